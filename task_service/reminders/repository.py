"""Reminders in PostgreSQL. Each method is one round trip."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from servicekit.stores.postgres import Database
from task_service.reminders.domain import DueUser, Fired

# The error code of a write for a closed account: see migrations/0004_writes.sql.
ACCOUNT_DELETED: Final = "TM001"
# Reads at most as many entries of the index, however many are due.
MAX_ENTRIES: Final = 5000
LIST_DUE: Final = """
SELECT user_id, min(fire_at) FROM (
    SELECT user_id, fire_at FROM task.reminders WHERE fire_at <= clock_timestamp() ORDER BY fire_at LIMIT $1
) AS due GROUP BY user_id
"""
FIRE: Final = "SELECT o_fired, o_due FROM task.fire_reminders($1, $2, $3)"


class PostgresReminders:
    """A ReminderStore (see task_service.reminders.service)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_due(self) -> Sequence[DueUser]:
        """See ReminderStore.list_due."""
        return [DueUser(*row) for row in await self._database.fetch(LIST_DUE, MAX_ENTRIES)]

    async def fire(self, user_id: UUID, limit: int, *, waits: bool) -> Fired | None:
        """See ReminderStore.fire."""
        try:
            (row,) = await self._database.fetch(FIRE, user_id, limit, waits)
        except asyncpg.PostgresError as error:
            # The removal of the account removes its reminders.
            if error.sqlstate == ACCOUNT_DELETED:
                return Fired(0, None)
            raise
        return None if row[0] is None else Fired(row[0], row[1])
