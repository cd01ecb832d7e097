"""Which sessions have ended and which accounts were deleted while tokens of theirs may be alive: known to every replica, without a look-up per call.

Contract: a replica reads auth_service's events each second, and at once when Redis says that there is one; so within 2 seconds it refuses the tokens
of a session that was revoked. Redis away or empty costs at most that second. While auth_service, or its database, is away, what a replica knows holds
on, and what is revoked meanwhile bites when it is back; a token lives at most its 15 minutes. A replica that starts is not ready, and accepts no
token, before it has read the events of one token lifetime.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Gauge

from servicekit.access.tokens import CLOCK_SKEW_SECONDS, MAX_LIFETIME_SECONDS
from servicekit.errors import DependencyUnavailable, TokenInvalid
from servicekit.identity import Identity

# Redis's channel for "there are new events".
CHANNEL: Final = "auth-events"
POLL_SECONDS: Final = 1.0
# While nothing has been read yet, and after a failure.
RETRY_SECONDS: Final = 0.25
# No token that was issued before an event is alive so long after it.
LOOK_BACK_SECONDS: Final = float(MAX_LIFETIME_SECONDS + 2 * CLOCK_SKEW_SECONDS)

log = structlog.get_logger()


class EventKind(IntEnum):
    """What happened. The numbers are those of event_service.proto and of the table."""

    SESSION_REVOKED = 1
    USER_DELETED = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `session_id` is None but for SESSION_REVOKED."""

    number: int
    kind: EventKind
    user_id: UUID
    session_id: UUID | None
    created_at: float


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order, the number to go on behind, and whether there are more now."""

    events: Sequence[Event]
    last_number: int
    more: bool


class EventSource(Protocol):
    """Where events come from: auth_service's database, or its EventService."""

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """The first events behind `after`. Raises DependencyUnavailable."""


class Revocations:
    """What is known.

    `on_change` is called after each reading that brought an ended session or a deleted account which was not known, for what goes on without being
    checked again; `on_user_deleted` after each in which an account was deleted. The first reading counts.
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
        # With the time on our clock until which it matters. Of sessions and of users alike, since ids are unique; the oldest first.
        self._ended: dict[UUID, float] = {}
        self._after: int | None = None
        self._read_at = float("-inf")
        Gauge("revocations", "Ended sessions and deleted accounts that are remembered.", registry=registry).set_function(lambda: len(self._ended))
        age = Gauge("revocations_age_seconds", "Time since auth_service's events were read.", registry=registry)
        age.set_function(lambda: clock() - self._read_at)

    def check(self, identity: Identity) -> None:
        """Raises TokenInvalid if the token's session or account is no more, DependencyUnavailable while that is not known at all."""
        if self._after is None:
            raise DependencyUnavailable("auth_service")
        if identity.session_id in self._ended or identity.user_id in self._ended:
            raise TokenInvalid

    async def ready(self) -> None:
        """A readiness check: the events have been read once. Raises DependencyUnavailable."""
        if self._after is None:
            raise DependencyUnavailable("auth_service's events")

    async def refresh(self) -> None:
        """Reads all events that are new. Raises DependencyUnavailable."""
        after, deleted, changed = self._after or 0, False, False
        while True:
            page = await self._source.list_events(after=after, max_age_seconds=LOOK_BACK_SECONDS)
            if page.last_number < after:
                # The log was restored from an older copy: begin again.
                log.warning("events_begin_again", after=after, last_number=page.last_number)
                after = 0
                continue
            until = self._clock() + LOOK_BACK_SECONDS
            for event in page.events:
                key = event.session_id or event.user_id
                changed = changed or key not in self._ended
                self._ended[key] = until
                deleted = deleted or event.kind is EventKind.USER_DELETED
            after = page.last_number
            if not page.more:
                break
        # Only now: a first reading counts when it is whole.
        self._after, self._read_at = after, self._clock()
        self._forget()
        if changed:
            self._on_change()
        if deleted:
            self._on_user_deleted()

    def _forget(self) -> None:
        now = self._read_at
        for key in [key for key, until in self._ended.items() if until <= now]:
            del self._ended[key]
