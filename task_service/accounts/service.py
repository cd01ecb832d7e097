"""Deletes the rows of deleted accounts. It processes each deletion at least once, whichever service or store is down meanwhile.

The database stores the number of the last processed event. Any replica continues from there, and two replicas at once do no harm. The account is
closed first, so that a token that has not expired can write nothing. Then its rows are deleted in batches.
"""

from typing import Final, Protocol
from uuid import UUID

import structlog

from servicekit.access.revocations import EventKind, EventSource

# The interval between rounds without a wake-up. Revocations wakes the work when an account was deleted.
INTERVAL_SECONDS: Final = 30.0
ROWS_AT_ONCE: Final = 2000

log = structlog.get_logger()


class AccountRows(Protocol):
    """The rows of accounts. All methods raise DependencyUnavailable."""

    async def get_deletions(self) -> int:
        """Returns the number of the last processed event."""

    async def update_deletions(self, last_number: int) -> None:
        """Stores that number."""

    async def close_account(self, user_id: UUID) -> None:
        """Closes the account: every later write for the user is rejected."""

    async def remove_rows(self, user_id: UUID, limit: int) -> int:
        """Deletes at most `limit` rows of a closed account from each table. Returns the number of all deleted rows."""


class DeletedAccounts:
    """Processes the deletions of accounts."""

    def __init__(self, source: EventSource, rows: AccountRows) -> None:
        self._source = source
        self._rows = rows

    async def round(self) -> None:
        """Processes all new deletions. Raises DependencyUnavailable."""
        after = await self._rows.get_deletions()
        while True:
            page = await self._source.list_events(after=after, kind=EventKind.USER_DELETED)
            if page.last_number < after:
                # The event log was restored from an older backup. Process all of it once more, which does no harm.
                after = 0
                continue
            for event in page.events:
                await self._rows.close_account(event.user_id)
            for event in page.events:
                await self._remove(event.user_id)
            if page.last_number != after:
                await self._rows.update_deletions(page.last_number)
            after = page.last_number
            if not page.more:
                return

    async def _remove(self, user_id: UUID) -> None:
        removed = 0
        while rows := await self._rows.remove_rows(user_id, ROWS_AT_ONCE):
            removed += rows
        log.info("account_removed", user_id=str(user_id), rows=removed)
