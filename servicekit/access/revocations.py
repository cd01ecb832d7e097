"""The revoked sessions and deleted accounts whose access tokens may not have expired yet. Every replica knows them, without a look-up per call.

Contract: a replica reads auth_service's events every second, and at once when Redis signals a new event. So within 2 seconds, it rejects the tokens
of a revoked session. If Redis is down or empty, the replica learns of a revocation at most one second later. While auth_service or its database is
unavailable, the replica continues to reject the tokens that it knows to be revoked. If a session was revoked and the replica has not read the event,
the session's tokens stay valid until auth_service is available again, at most for their lifetime of 15 minutes. A replica that starts is not ready
and accepts no token until it has read the events of one token lifetime. After a failover of PostgreSQL, which may have lost events,
the replica reads the log from its beginning and continues to reject the tokens that it knows to be revoked.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from servicekit.access.tokens import CLOCK_SKEW_SECONDS, MAX_LIFETIME_SECONDS
from servicekit.errors import DependencyUnavailable, TokenInvalid
from servicekit.identity import Identity

# The Redis channel that signals new events.
CHANNEL: Final = "auth-events"
POLL_SECONDS: Final = 1.0
# The interval after a failed read, also before the first successful one.
RETRY_SECONDS: Final = 0.25
# No token that was issued before an event is still valid this long after the event.
LOOK_BACK_SECONDS: Final = float(MAX_LIFETIME_SECONDS + 2 * CLOCK_SKEW_SECONDS)

log = structlog.get_logger()


class EventKind(IntEnum):
    """The kind of an event. The numbers are those of event_service.proto and of the table."""

    SESSION_REVOKED = 1
    USER_DELETED = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `session_id` is None unless the kind is SESSION_REVOKED."""

    number: int
    kind: EventKind
    user_id: UUID
    session_id: UUID | None
    created_at: float


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order, the number after which to continue, whether more events exist now, and the epoch of the log.

    After another epoch than before, numbers may belong to other events: start again at 0. It is empty if the source does not know it.
    """

    events: Sequence[Event]
    last_number: int
    more: bool
    epoch: str

    def is_of_another_log(self, after: int, epoch: str) -> bool:
        """Whether the page is from another log than the one with this epoch, in which the reader has read up to number `after`."""
        return self.last_number < after or ("" not in (epoch, self.epoch) and epoch != self.epoch)


class EventSource(Protocol):
    """The source of events: auth_service's database, or its EventService."""

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """Returns the first events after number `after`. Raises DependencyUnavailable."""


class Revocations:
    """The revoked sessions and deleted accounts that this replica knows.

    `on_change` is called after each read that returned a revoked session or a deleted account that was not known yet. It is for work that continues
    after its call was admitted, such as streams. `on_user_deleted` is called after each read that returned a deleted account. The first read counts
    too.
    """

    def __init__(
        self,
        source: EventSource,
        registry: CollectorRegistry,
        *,
        on_user_deleted: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._on_user_deleted = on_user_deleted
        self._on_change = on_change
        self._clock = clock
        # By session id or user id, since ids are unique: the time on this replica's clock until which the entry is kept.
        self._ended: dict[UUID, float] = {}
        self._after: int | None = None
        self._epoch = ""
        self._read_at = float("-inf")
        Gauge("revocations", "Revoked sessions and deleted accounts that are kept.", registry=registry).set_function(lambda: len(self._ended))
        age = Gauge("revocations_age_seconds", "Time since the last successful read of auth_service's events.", registry=registry)
        age.set_function(lambda: clock() - self._read_at)
        self._restarts = Counter(
            "revocations_restarts_total", "Times that auth_service's events were another log, after a failover or a restore.", registry=registry
        )

    def check(self, identity: Identity) -> None:
        """Raises TokenInvalid if the session is revoked or the account deleted, DependencyUnavailable before the first successful read."""
        if self._after is None:
            raise DependencyUnavailable("auth_service")
        if identity.session_id in self._ended or identity.user_id in self._ended:
            raise TokenInvalid

    async def ready(self) -> None:
        """A readiness check: this replica has read the events at least once. Raises DependencyUnavailable."""
        if self._after is None:
            raise DependencyUnavailable("auth_service's events")

    async def refresh(self) -> None:
        """Reads all new events. Raises DependencyUnavailable."""
        after, epoch, deleted, changed = self._after or 0, self._epoch, False, False
        while True:
            page = await self._source.list_events(after=after, max_age_seconds=LOOK_BACK_SECONDS)
            if page.is_of_another_log(after, epoch):
                # Read it from its beginning. What is known stays known: the tokens of revocations that were lost may still be valid.
                log.warning("events_begin_again", after=after, last_number=page.last_number)
                self._restarts.inc()
                after, epoch = 0, page.epoch
                continue
            until = self._clock() + LOOK_BACK_SECONDS
            for event in page.events:
                key = event.session_id or event.user_id
                changed = changed or key not in self._ended
                self._ended[key] = until
                deleted = deleted or event.kind is EventKind.USER_DELETED
            after, epoch = page.last_number, page.epoch or epoch
            if not page.more:
                break
        # Set only after the last page: the first read counts only if it is complete.
        self._after, self._epoch, self._read_at = after, epoch, self._clock()
        self._forget()
        if changed:
            self._on_change()
        if deleted:
            self._on_user_deleted()

    def _forget(self) -> None:
        now = self._read_at
        for key in [key for key, until in self._ended.items() if until <= now]:
            del self._ended[key]
