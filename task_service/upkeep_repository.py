"""What is kept no longer, in PostgreSQL: what lies in the bin, the change log's beginning, the answers under idempotency keys."""

from datetime import timedelta
from typing import Final

from servicekit.postgres import Database

SWEEP: Final = "SELECT task.sweep($1, $2, $3)"


class PostgresLeftovers:
    """Leftovers (see servicekit.upkeep). One replica removes at a time."""

    def __init__(self, database: Database, *, bin_days: int, change_days: int) -> None:
        """For how long deleted tasks can be brought back, and changes be followed."""
        self._database = database
        self._kept = (timedelta(days=bin_days), timedelta(days=change_days))

    async def remove(self, limit: int) -> int:
        """See Leftovers.remove."""
        row = await self._database.fetchrow(SWEEP, *self._kept, limit)
        return 0 if row is None else int(row[0])
