"""The open streams of the change feed: when each of them must read the change log again, and when it must end.

Contract: a stream reads the log again when this process, or another one through Redis, announces a change of its user's tasks. In addition, the
replica reads the counters of all watched users every second in one statement, so a stream sends each change within 2 s even if announcements are
lost. It also reads the log's epoch, so that a stream notices within 2 s that it follows another log. The replica also checks each
stream's session every second, and at once when a session has ended. A stream ends at the latest when its access token expires.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge

from servicekit.errors import ServiceError, TokenInvalid
from servicekit.identity import Identity
from task_service.feed.domain import Changes, TaskChange
from task_service.feed.errors import ServiceStopping, TooManyWatches

POLL_SECONDS: Final = 1.0
# Less than the 60 s after which load balancers close an idle connection.
HEARTBEAT_SECONDS: Final = 45.0
# Per replica. More than the windows that one user has open.
MAX_WATCHES_PER_USER: Final = 100
# Not the number of any change.
UNKNOWN: Final = -1


class ChangeLog(Protocol):
    """The users' change logs. All methods raise DependencyUnavailable."""

    async def list(self, user_id: UUID, after: int | None, limit: int) -> Changes:
        """Returns at most `limit` changes after the one with the number `after`, fewer if they are large; no changes if `after` is None.

        Stops before a change of a kind that only a newer version knows, as if the log had lost it.
        """

    async def list_of_task(self, user_id: UUID, task_id: UUID, before: int, limit: int) -> Sequence[TaskChange] | None:
        """Returns at most `limit` changes of a task with numbers below `before`, newest first; None if the user has no such task, also in the bin.

        Leaves out changes of a kind that only a newer version knows.
        """

    async def get_epoch(self) -> str:
        """Returns the log's epoch."""

    async def list_moved(self, known: Mapping[UUID, int]) -> Sequence[tuple[UUID, int]]:
        """Returns the users whose last number differs from the one in `known`, each with its last number."""


class Wakeups(Protocol):
    """Calls back when another process announces a change on a channel: see servicekit.stores.wakeups.Wakeups."""

    def subscribe(self, channel: str, callback: Callable[[], None]) -> None:
        """Calls the callback for the channel from now on."""

    def unsubscribe(self, channel: str, callback: Callable[[], None]) -> None:
        """Stops calling the callback."""


class Watch:
    """One stream: how far it has read, and what wakes or ends it."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        # The log's last number and epoch at the stream's last read.
        self.last_seq = UNKNOWN
        self.epoch = ""
        self._woken = asyncio.Event()
        self._end: ServiceError | None = None

    def wake(self) -> None:
        """Wakes the stream, because there may be a new change."""
        self._woken.set()

    def end(self, error: ServiceError) -> None:
        """Ends the stream with this error, unless another error has ended it before."""
        self._end = self._end or error
        self._woken.set()

    async def wait(self) -> bool:
        """Waits until the stream is woken. Returns False if it was not woken within HEARTBEAT_SECONDS. Raises as `check`."""
        left = self.identity.expires_at - time.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(left, 0), HEARTBEAT_SECONDS)):
                await self._woken.wait()
        self.check()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken

    def check(self) -> None:
        """Raises the error that ends the stream, or TokenInvalid if its token has expired.

        Call it before each message, because a stream with many changes to send does not wait.
        """
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
        """The number up to which all streams have read; UNKNOWN if they differ, so that polling also wakes a stream that is behind."""
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

    def replaced(self, epoch: str, by: Counter) -> None:
        for watch in self.watches:
            if watch.epoch not in ("", epoch):
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
        Gauge("task_watches", "Open streams of WatchTasks.", registry=registry).set_function(self._count)
        woken = Counter("task_watch_wakeups_total", "Wake-ups of streams, by what woke them.", ["by"], registry=registry)
        self._by_process, self._by_redis, self._by_poll = (woken.labels(by) for by in ("process", "redis", "poll"))

    @contextlib.contextmanager
    def watch(self, identity: Identity) -> Iterator[Watch]:
        """Registers a stream for as long as the context lasts. Enter it before the first read of the log, so that no change is missed.

        Raises ServiceStopping, and TooManyWatches if the user already has MAX_WATCHES_PER_USER streams.
        """
        if self._stopping:
            raise ServiceStopping
        watch, user = Watch(identity), self._users.get(identity.user_id)
        if user is None:
            user = self._users[identity.user_id] = _User(self._by_redis)
            self._wakeups.subscribe(channel_of(identity.user_id), user.wake_by_redis)
        elif len(user.watches) >= MAX_WATCHES_PER_USER:
            raise TooManyWatches
        user.watches.add(watch)
        try:
            yield watch
        finally:
            user.watches.discard(watch)
            if not user.watches:
                del self._users[identity.user_id]
                self._wakeups.unsubscribe(channel_of(identity.user_id), user.wake_by_redis)

    def changed(self, user_id: UUID) -> None:
        """Wakes the user's streams after a write of this process."""
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
        """Checks the sessions and reads the counters; runs every POLL_SECONDS. Raises DependencyUnavailable."""
        self.check()
        if not self._users:
            return
        for user_id, last_seq in await self._log.list_moved({user_id: user.last_seq for user_id, user in self._users.items()}):
            if (user := self._users.get(user_id)) is not None:
                user.moved(last_seq, self._by_poll)
        epoch = await self._log.get_epoch()
        for user in self._users.values():
            user.replaced(epoch, self._by_poll)

    async def drain(self) -> None:
        """Ends all streams with ServiceStopping, and rejects new ones with it."""
        self._stopping = True
        for user in list(self._users.values()):
            for watch in user.watches:
                watch.end(ServiceStopping())

    def _count(self) -> int:
        return sum(len(user.watches) for user in self._users.values())


def channel_of(user_id: UUID) -> str:
    """Returns the Redis channel that announces changes of the user's tasks."""
    return f"task-changes:{user_id}"
