"""Removes what accounts leave behind when they are deleted: each at least once, whatever was away meanwhile.

How far it has come is kept in the database; any replica goes on from there, and two at once do no harm. An account is closed first, so that a token
still alive can write nothing, and then its rows go, some at a time.
"""

from typing import Final, Protocol
from uuid import UUID

import structlog

from servicekit.access.revocations import EventKind, EventSource

# When nobody has said that there is something to do. Revocations wakes it when an account was deleted.
INTERVAL_SECONDS: Final = 30.0
ROWS_AT_ONCE: Final = 2000

log = structlog.get_logger()


class AccountRows(Protocol):
    """What belongs to accounts. Raises DependencyUnavailable."""

    async def get_deletions(self) -> int:
        """The number of the last event that has been carried out."""

    async def update_deletions(self, last_number: int) -> None:
        """Keeps that number."""

    async def close_account(self, user_id: UUID) -> None:
        """Nothing can be written for the user from now on."""

    async def remove_rows(self, user_id: UUID, limit: int) -> int:
        """Removes at most so many rows of each kind of a closed account. Returns how many it removed."""


class DeletedAccounts:
    """One round carries out all deletions that are new."""

    def __init__(self, source: EventSource, rows: AccountRows) -> None:
        self._source = source
        self._rows = rows

    async def round(self) -> None:
        """See the module."""
        after = await self._rows.get_deletions()
        while True:
            page = await self._source.list_events(after=after, kind=EventKind.USER_DELETED)
            if page.last_number < after:
                # The log was restored from an older copy: all of it once more, which does no harm.
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
