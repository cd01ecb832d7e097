"""Deletes expired rows in the background. Replicas may do so at the same time: each statement skips the rows that another replica has locked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from servicekit.stores.postgres import Database

INTERVAL_SECONDS: Final = 10.0
BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Removal:
    """A statement that deletes at most as many rows as its last parameter says, and returns one row with their number.

    If it deletes from several tables, the limit holds for each of them and the number is the largest.
    """

    sql: str
    args: Sequence[object] = ()


class Upkeep:
    """Runs the statements, each in a transaction of its own."""

    def __init__(self, database: Database, removals: Sequence[Removal]) -> None:
        self._database = database
        self._removals = removals

    async def round(self) -> None:
        """Deletes all expired rows, a batch at a time. Raises DependencyUnavailable."""
        while await self.remove(BATCH) == BATCH:
            pass

    async def remove(self, limit: int) -> int:
        """Runs each statement once. Returns the largest number of rows that one of them deleted. Raises DependencyUnavailable."""
        rows = [await self._database.fetchrow(removal.sql, *removal.args, limit) for removal in self._removals]
        return max((int(row[0]) for row in rows if row is not None), default=0)
