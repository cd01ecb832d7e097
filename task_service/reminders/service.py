"""The use case of firing reminders. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what it needs.

Contract: each reminder is logged once, in the transaction that removes it, by whichever process is first. Any number of processes can run this.
Normally a reminder is logged within a second of its time. After an outage, each one that came due meanwhile is logged late, once.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from task_service.reminders.domain import DueUser, Fired

INTERVAL_SECONDS: Final = 0.5
# How many reminders of one user a transaction logs at most. Writes of the user wait meanwhile.
PER_TRANSACTION: Final = 200
# How many users a process serves at the same time.
AT_ONCE: Final = 8
# If somebody writes for a user, that user's reminders wait for the next round; if they are as late, for the end of the write.
PATIENCE: Final = timedelta(seconds=1)
LATENESS_BUCKETS: Final = (0.1, 0.5, 1, 2, 5, 10, 60, 600, 3600, 86_400)


class ReminderStore(Protocol):
    """Stores the reminders that have not fired. All methods raise DependencyUnavailable."""

    async def list_due(self) -> Sequence[DueUser]:
        """Returns users with reminders that are due, those with the oldest ones at least."""

    async def fire(self, user_id: UUID, limit: int, *, waits: bool) -> Fired | None:
        """Logs at most `limit` reminders of the user that are due, and removes them, in one transaction.

        Returns None, and does nothing, if somebody else writes for the user just now, unless it `waits` for that.
        """


class Reminders:
    """Fires what is due."""

    def __init__(self, store: ReminderStore, announce: Callable[[UUID], None], registry: CollectorRegistry) -> None:
        """`announce` notifies the streams of a user that there are changes."""
        self._store = store
        self._announce = announce
        self._due = Gauge("task_reminder_users_due", "Users with due reminders at the last look, at most 5000.", registry=registry)
        self._fired = Counter("task_reminders_fired_total", "Reminders that this process has logged.", registry=registry)
        self._late = Histogram(
            "task_reminder_late_seconds", "How late the oldest reminder of a transaction was.", buckets=LATENESS_BUCKETS, registry=registry
        )

    async def round(self) -> None:
        """Fires until nothing is due that this process can fire; runs every INTERVAL_SECONDS. Raises DependencyUnavailable."""
        while True:
            due = list(await self._store.list_due())
            self._due.set(len(due))
            # Two processes that begin at different ends meet once.
            random.shuffle(due)
            if not any(await self._fire_all(due)):
                return

    async def _fire_all(self, due: Sequence[DueUser]) -> Sequence[int]:
        at_once = asyncio.Semaphore(AT_ONCE)

        async def fire(user: DueUser) -> int:
            async with at_once:
                return await self._fire(user)

        outcomes = await asyncio.gather(*map(fire, due), return_exceptions=True)
        for outcome in outcomes:
            # After all have ended, so that the next round overlaps with none of them.
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    async def _fire(self, user: DueUser) -> int:
        is_late = datetime.now(UTC) - user.since > PATIENCE
        fired = await self._store.fire(user.user_id, PER_TRANSACTION, waits=is_late)
        if fired is None or fired.oldest is None:
            return 0
        self._fired.inc(fired.count)
        self._late.observe(max((datetime.now(UTC) - fired.oldest).total_seconds(), 0.0))
        self._announce(user.user_id)
        return fired.count
