"""The rows of deleted accounts in PostgreSQL."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from servicekit.stores.postgres import Database
from task_service.accounts.domain import Left, Removed

GET_DELETIONS: Final = "SELECT last_number, epoch FROM task.deletions"
QUEUE_REMOVALS: Final = "SELECT task.queue_removals($1, $2, $3)"
CLOSE_ACCOUNT: Final = "SELECT task.close_account($1)"
LIST_REMOVALS: Final = "SELECT user_id FROM task.account_removals WHERE $1::uuid IS NULL OR user_id > $1 ORDER BY user_id LIMIT $2"
REMOVE_ACCOUNT: Final = "SELECT o_removed, o_left FROM task.remove_account($1, $2)"


class PostgresAccountRows:
    """Implements AccountRows (see task_service.accounts.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_deletions(self) -> tuple[int, str]:
        """See AccountRows.get_deletions."""
        row = await self._database.fetchrow(GET_DELETIONS)
        return (0, "") if row is None else (row[0], row[1])

    async def queue_removals(self, user_ids: Sequence[UUID], last_number: int, epoch: str) -> None:
        """See AccountRows.queue_removals."""
        await self._database.fetchrow(QUEUE_REMOVALS, user_ids, last_number, epoch)

    async def close_account(self, user_id: UUID) -> None:
        """See AccountRows.close_account."""
        await self._database.fetchrow(CLOSE_ACCOUNT, user_id)

    async def list_removals(self, after: UUID | None, limit: int) -> Sequence[UUID]:
        """See AccountRows.list_removals."""
        return [row[0] for row in await self._database.fetch(LIST_REMOVALS, after, limit)]

    async def remove_account(self, user_id: UUID, limit: int) -> Removed:
        """See AccountRows.remove_account."""
        row = await self._database.fetchrow(REMOVE_ACCOUNT, user_id, limit)
        assert row is not None
        return Removed(row[0], Left(row[1]))
