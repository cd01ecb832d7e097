"""The rows of deleted accounts in PostgreSQL."""

from typing import Final
from uuid import UUID

from servicekit.stores.postgres import Database

GET_DELETIONS: Final = "SELECT last_number FROM task.deletions"
UPDATE_DELETIONS: Final = "UPDATE task.deletions SET last_number = $1"
CLOSE_ACCOUNT: Final = "SELECT task.close_account($1)"
REMOVE_ROWS: Final = "SELECT task.remove_rows($1, $2)"


class PostgresAccountRows:
    """Implements AccountRows (see task_service.accounts.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_deletions(self) -> int:
        """See AccountRows.get_deletions."""
        return await self._number(GET_DELETIONS)

    async def update_deletions(self, last_number: int) -> None:
        """See AccountRows.update_deletions."""
        await self._database.fetchrow(UPDATE_DELETIONS, last_number)

    async def close_account(self, user_id: UUID) -> None:
        """See AccountRows.close_account."""
        await self._database.fetchrow(CLOSE_ACCOUNT, user_id)

    async def remove_rows(self, user_id: UUID, limit: int) -> int:
        """See AccountRows.remove_rows."""
        return await self._number(REMOVE_ROWS, user_id, limit)

    async def _number(self, sql: str, *args: object) -> int:
        row = await self._database.fetchrow(sql, *args)
        return 0 if row is None else int(row[0])
