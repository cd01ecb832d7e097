"""Deletes the rows of deleted accounts. It processes each deletion at least once, whichever service or store is down meanwhile.

A deleted account is queued in the database, in the same transaction that stores the number of its event. It stays in the queue until a transaction
finds that no row of the account is left. Any replica continues with what is queued, and two replicas at once do no harm. The account is closed
first, so that a token that has not expired can write nothing. Then its rows are deleted in batches. If an account fails, the others continue, and
the next round tries it again.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog

from servicekit.access.revocations import EventKind, EventSource
from task_service.accounts.domain import Left, Removed

# The interval between rounds without a wake-up. Revocations wakes the work when an account was deleted.
INTERVAL_SECONDS: Final = 30.0
# After a round in which an account failed or a dependency was unavailable.
RETRY_SECONDS: Final = 2.0
ROWS_AT_ONCE: Final = 2000
ACCOUNTS_AT_ONCE: Final = 1000

log = structlog.get_logger()


class AccountRows(Protocol):
    """The rows of accounts. All methods raise DependencyUnavailable."""

    async def get_deletions(self) -> tuple[int, str]:
        """Returns the number of the last event whose account is queued, and the epoch of its log."""

    async def queue_removals(self, user_ids: Sequence[UUID], last_number: int, epoch: str) -> None:
        """Queues the accounts and stores that number and epoch, in one transaction."""

    async def close_account(self, user_id: UUID) -> None:
        """Closes the account: every later write for the user is rejected. Waits for running writes. Queues the account too."""

    async def list_removals(self, after: UUID | None, limit: int) -> Sequence[UUID]:
        """Returns at most `limit` queued accounts in the order of their ids, those after `after`."""

    async def remove_account(self, user_id: UUID, limit: int) -> Removed:
        """Deletes at most `limit` rows of a queued account from each table, and takes it from the queue if no row is left.

        Closes the account if it is not closed. Does nothing if another replica deletes the account's rows at the moment.
        """


class DeletedAccounts:
    """Processes the deletions of accounts."""

    def __init__(self, source: EventSource, rows: AccountRows) -> None:
        self._source = source
        self._rows = rows
        # The accounts that failed in the last round, so that each is logged once.
        self._failed: set[UUID] = set()

    async def round(self) -> None:
        """Closes and queues the accounts of all new deletions, then deletes the rows of all queued accounts. Raises the last failure, if any."""
        failure = await self._queue_new()
        failed, self._failed = self._failed, set()
        after: UUID | None = None
        while page := await self._rows.list_removals(after, ACCOUNTS_AT_ONCE):
            for user_id in page:
                failure = await self._try(self._remove, user_id, known=failed) or failure
            after = page[-1]
        if failure is not None:
            raise failure

    async def _queue_new(self) -> Exception | None:
        """Closes the accounts at once, so that none waits for the rows of another. One that cannot be closed now is only queued."""
        failure = None
        after, epoch = known = await self._rows.get_deletions()
        while True:
            try:
                page = await self._source.list_events(after=after, kind=EventKind.USER_DELETED)
            except Exception as error:  # noqa: BLE001 - what is queued already does not need the source; `round` raises it
                return error
            if page.is_of_another_log(after, epoch):
                # After a restore or a failover of auth_service's database. Process all of the log once more, which does no harm.
                after, epoch = 0, page.epoch
                continue
            for event in page.events:
                failure = await self._try(self._rows.close_account, event.user_id, known=self._failed) or failure
            following = page.last_number, page.epoch or epoch
            if following != known:
                await self._rows.queue_removals([event.user_id for event in page.events], *following)
            after, epoch = known = following
            if not page.more:
                return failure

    async def _try(self, work: Callable[[UUID], Awaitable[None]], user_id: UUID, *, known: set[UUID]) -> Exception | None:
        """Returns the failure of the work for one account. Logs it unless the account is among the known failures."""
        try:
            await work(user_id)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this account, the others must go on; `round` raises it
            if user_id not in known:
                log.warning("account_removal_failed", user_id=str(user_id), error=type(error).__name__)
            self._failed.add(user_id)
            return error
        return None

    async def _remove(self, user_id: UUID) -> None:
        rows, left = 0, Left.SOME
        while left is Left.SOME:
            removed = await self._rows.remove_account(user_id, ROWS_AT_ONCE)
            rows, left = rows + removed.rows, removed.left
        if left is Left.NONE:
            log.info("account_removed", user_id=str(user_id), rows=rows)
