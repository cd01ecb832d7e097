"""Following the change log: which streams there are, when each must look again, and when it must end.

Contract: a stream looks again when this process or, by Redis, another one says that its user's tasks have changed, and each second the counters of
all watched users are read in one statement; so a change is told within 2 seconds whatever is lost. In the same second each stream's session is looked
at, and at once when one has ended. A stream lasts at most as long as its token.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge

from servicekit.errors import Overloaded, ServiceError, TokenInvalid
from servicekit.identity import Identity
from task_service.feed.domain import Changes
from task_service.feed.errors import ServiceStopping

POLL_SECONDS: Final = 1.0
# Below the minute after which balancers take a silent connection for dead.
HEARTBEAT_SECONDS: Final = 45.0
# On one replica: more windows than anybody has open.
MAX_WATCHES_PER_USER: Final = 100
# No number in a change log.
UNKNOWN: Final = -1


class ChangeLog(Protocol):
    """The users' change logs. Raises DependencyUnavailable."""

    async def list(self, user_id: UUID, after: int | None, limit: int) -> Changes:
        """At most `limit` changes behind the one with the number `after`; none for None."""

    async def list_moved(self, known: Mapping[UUID, int]) -> Sequence[tuple[UUID, int]]:
        """The users whose last number is another than is known, each with it."""


class Wakeups(Protocol):
    """Calls back when another process says that a channel's subject has changed: see servicekit.stores.wakeups.Wakeups."""

    def subscribe(self, channel: str, callback: Callable[[], None]) -> None:
        """From now on."""

    def unsubscribe(self, channel: str, callback: Callable[[], None]) -> None:
        """No more."""


class Watch:
    """One stream: how far it has read, and how it waits."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        # The log's last number when the stream looked last.
        self.last_seq = UNKNOWN
        self._woken = asyncio.Event()
        self._end: ServiceError | None = None

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()

    def end(self, error: ServiceError) -> None:
        """The stream is to end with this error."""
        self._end = self._end or error
        self._woken.set()

    async def wait(self) -> bool:
        """Waits until there may be something new; False if it is only time for a sign of life. Raises as `check`."""
        left = self.identity.expires_at - time.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(left, 0), HEARTBEAT_SECONDS)):
                await self._woken.wait()
        self.check()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken

    def check(self) -> None:
        """Raises what the stream is to end with, if it is. To be asked before each message: a stream that has much to tell does not wait."""
        if self._end is not None:
            raise self._end
        if self.identity.expires_at <= time.time():
            raise TokenInvalid


class _User:
    """The streams of one user."""

    def __init__(self, by_redis: Counter) -> None:
        self.watches: set[Watch] = set()
        self._by_redis = by_redis

    @property
    def last_seq(self) -> int:
        """How far all of them have read; UNKNOWN if one has read further than another, so that the other is not forgotten."""
        seqs = {watch.last_seq for watch in self.watches}
        return seqs.pop() if len(seqs) == 1 else UNKNOWN

    def wake(self, by: Counter) -> None:
        by.inc(len(self.watches))
        for watch in self.watches:
            watch.wake()

    def wake_by_redis(self) -> None:
        self.wake(self._by_redis)

    def moved(self, last_seq: int, by: Counter) -> None:
        for watch in self.watches:
            if watch.last_seq != last_seq:
                by.inc()
                watch.wake()


class Watches:
    """All streams of this process. `check` raises if an identity's session has ended."""

    def __init__(self, log: ChangeLog, wakeups: Wakeups, check: Callable[[Identity], None], registry: CollectorRegistry) -> None:
        self._log = log
        self._wakeups = wakeups
        self._check = check
        self._users: dict[UUID, _User] = {}
        self._stopping = False
        Gauge("task_watches", "Streams of WatchTasks under way.", registry=registry).set_function(self._count)
        woken = Counter("task_watch_wakeups_total", "Times that a stream was to look again, by what said so.", ["by"], registry=registry)
        self._by_process, self._by_redis, self._by_poll = (woken.labels(by) for by in ("process", "redis", "poll"))

    @contextlib.contextmanager
    def watch(self, identity: Identity) -> Iterator[Watch]:
        """A stream's place here, as long as it lasts. To be taken before the log is read for the first time, so that nothing is missed.

        Raises ServiceStopping, and Overloaded if the user has too many already.
        """
        if self._stopping:
            raise ServiceStopping
        watch, user = Watch(identity), self._users.get(identity.user_id)
        if user is None:
            user = self._users[identity.user_id] = _User(self._by_redis)
            self._wakeups.subscribe(channel_of(identity.user_id), user.wake_by_redis)
        elif len(user.watches) >= MAX_WATCHES_PER_USER:
            raise Overloaded
        user.watches.add(watch)
        try:
            yield watch
        finally:
            user.watches.discard(watch)
            if not user.watches:
                del self._users[identity.user_id]
                self._wakeups.unsubscribe(channel_of(identity.user_id), user.wake_by_redis)

    def changed(self, user_id: UUID) -> None:
        """The user's tasks have changed, by a write of this process."""
        if (user := self._users.get(user_id)) is not None:
            user.wake(self._by_process)

    def check(self) -> None:
        """Ends the streams whose session has ended."""
        for user in list(self._users.values()):
            for watch in user.watches:
                try:
                    self._check(watch.identity)
                except ServiceError as error:
                    watch.end(error)

    async def round(self) -> None:
        """What is to be done each POLL_SECONDS. Raises DependencyUnavailable."""
        self.check()
        if not self._users:
            return
        for user_id, last_seq in await self._log.list_moved({user_id: user.last_seq for user_id, user in self._users.items()}):
            if (user := self._users.get(user_id)) is not None:
                user.moved(last_seq, self._by_poll)

    async def drain(self) -> None:
        """Ends all streams, and lets no new one begin."""
        self._stopping = True
        for user in list(self._users.values()):
            for watch in user.watches:
                watch.end(ServiceStopping())

    def _count(self) -> int:
        return sum(len(user.watches) for user in self._users.values())


def channel_of(user_id: UUID) -> str:
    """Redis's channel for "this user's tasks have changed"."""
    return f"task-changes:{user_id}"
