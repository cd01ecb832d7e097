"""Wakes subscribers in other processes through Redis's pub/sub. A message says that something has changed, never what. A message can get lost.

Contract: a subscriber that is called back reads the database. It also polls the database without being called. So a lost message only delays the
subscriber until its next poll.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, RedisUnavailable
from servicekit.stores.redis import Client, Redis, patience

Callback: TypeAlias = Callable[[], None]

RECONNECT_SECONDS: Final = 0.5
# An unresponsive Redis looks like one that has no messages. After this time without a message, the subscriber sends a PING.
QUIET_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 2.0
# Limits one command to about 50 kB: Redis executes one command at a time, and the other clients wait for it.
CHANNELS_PER_COMMAND: Final = 1000
# Announcements within this time are sent together. Watchers do not notice the delay, and at 1000 writes a second ten of them share a round trip.
GATHER_SECONDS: Final = 0.01

log = structlog.get_logger()


class Wakeups:
    """Subscribes to channels. Calls a callback on each message, and once whenever the callback may have missed a message.

    A callback may have missed messages when its subscription begins: at first, and after each reconnect. From that call on, it misses none until the
    connection is lost. Callbacks run one after the other, so a callback must only record that it was called.

    It has one connection of its own, opened for the first channel. It notices within `QUIET_SECONDS` + `ANSWER_SECONDS` that Redis is unavailable.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._callbacks: dict[bytes, list[Callback]] = {}
        self._link: _Link | None = None
        self._started = False
        self._lost = False
        self._running: asyncio.Task[None] | None = None

    def subscribe(self, channel: str, callback: Callback) -> None:
        """Subscribes `callback` to the channel. Does not wait for Redis. Can be called at any time, also before `start`."""
        name = channel.encode()
        callbacks = self._callbacks.setdefault(name, [])
        callbacks.append(callback)
        if self._link is not None:
            if name in self._link.confirmed:
                # Redis has already confirmed the channel, so no confirmation will call this callback.
                asyncio.get_running_loop().call_soon(self._call_if_still_there, name, callback)
            else:
                self._link.change(name)
        self._run_if_needed()

    def unsubscribe(self, channel: str, callback: Callback) -> None:
        """Undoes one `subscribe`. The callback is not called afterwards."""
        name = channel.encode()
        callbacks = self._callbacks[name]
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[name]
            if self._link is not None:
                self._link.change(name)

    async def start(self) -> None:
        """Connects in the background as soon as there is a channel."""
        self._started = True
        self._run_if_needed()

    async def close(self) -> None:
        """Closes the connection, or cancels the attempt to connect. No callback is called afterwards."""
        self._started = False
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _run_if_needed(self) -> None:
        if self._started and self._callbacks and self._running is None:
            # In an empty context, because the task outlives the call that was the first to subscribe.
            self._running = asyncio.create_task(self._run(), name="wakeups", context=contextvars.Context())

    async def _run(self) -> None:
        while self._callbacks:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if not self._lost:
                    log.warning("wakeups_lost", cause=type(error).__name__)
            except Exception:
                # Any other error too: if this task ended, no callback would ever be called again.
                if not self._lost:
                    log.exception("wakeups_failed")
            self._lost = True
            await asyncio.sleep(RECONNECT_SECONDS)
        # The next `subscribe` starts a new task.
        self._running = None

    async def _listen(self) -> None:
        """Listens until the connection is lost, then raises RedisError or OSError."""
        async with _connected(self._url) as connection:
            link = _Link(connection, self._callbacks)
            # In the background, because a write to an unresponsive Redis may block, and must not block the check whether Redis responds.
            writing = asyncio.create_task(link.write(), name="wakeups writing")
            self._link = link
            try:
                while not writing.done():
                    self._take(link, await link.next_message())
                await writing
            finally:
                self._link = None
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    def _take(self, link: "_Link", message: Any) -> None:
        """Calls the callbacks of a message's channel, also for the confirmation of a subscription: from then on, no message is missed."""
        match message:
            case [b"subscribe", bytes(channel), _]:
                link.confirm(channel)
                if self._lost:
                    self._lost = False
                    log.info("wakeups_back")
            case [b"message", bytes(channel), _]:
                pass
            case _:
                return
        for callback in tuple(self._callbacks.get(channel, ())):
            _call(channel, callback)

    def _call_if_still_there(self, channel: bytes, callback: Callback) -> None:
        if callback in self._callbacks.get(channel, ()):
            _call(channel, callback)


class _Link:
    """One connection, and the channels that it has requested. `wanted` holds the channels to subscribe to, and may change at any time."""

    def __init__(self, connection: Any, wanted: Mapping[bytes, object]) -> None:
        self.confirmed: set[bytes] = set()
        self._connection = connection
        self._wanted = wanted
        self._asked: set[bytes] = set()
        # In the order of their changes, each channel once.
        self._changed: dict[bytes, None] = dict.fromkeys(wanted)
        self._woken = asyncio.Event()
        self._woken.set()

    def change(self, channel: bytes) -> None:
        """Marks a channel that may have been added to `wanted` or removed. All changes of one turn of the event loop are sent together."""
        self._changed[channel] = None
        self._woken.set()

    def confirm(self, channel: bytes) -> None:
        """Records that Redis has confirmed the subscription to a channel."""
        if channel in self._asked:
            self.confirmed.add(channel)

    async def write(self) -> None:
        """Sends the changes to Redis, whenever there are any. Raises RedisError or OSError if the connection is lost, as `next_message` does."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            changed, self._changed = self._changed, {}
            wanted = self._wanted
            begin = [channel for channel in changed if channel in wanted and channel not in self._asked]
            end = [channel for channel in changed if channel not in wanted and channel in self._asked]
            self._asked.update(begin)
            self._asked.difference_update(end)
            self.confirmed.difference_update(end)
            for command, channels in (("SUBSCRIBE", begin), ("UNSUBSCRIBE", end)):
                for some in _portions(channels):
                    await self._send(command, *some)

    async def next_message(self) -> Any:
        """Returns the next message or other response of Redis. Raises RedisError or TimeoutError if Redis does not respond."""
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                return await self._receive()
        except TimeoutError:
            pass
        async with patience(ANSWER_SECONDS):
            await self._send("PING")
            return await self._receive()

    async def _send(self, *command: str | bytes) -> None:
        await self._connection.send_packed_command(self._connection.pack_command(*command), check_health=False)

    async def _receive(self) -> Any:
        return await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)


class Announcements:
    """A Resource that publishes in the background. An announcement never fails and never waits: subscribers that poll do not depend on it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pending: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def announce(self, channel: str) -> None:
        """Publishes on the channel, together with the other announcements of `GATHER_SECONDS`."""
        self._pending.add(channel)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def start(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Waits until the pending announcements have been sent."""
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _send(self) -> None:
        # This task does not belong to the call that started it.
        deadline.clear()
        try:
            while self._pending:
                await asyncio.sleep(GATHER_SECONDS)
                channels, self._pending = self._pending, set()
                await announce(self._redis, *channels)
        finally:
            self._sending = None


async def announce(redis: Redis, *channels: str) -> None:
    """Wakes all subscribers of the channels, in one round trip.

    Does not raise if Redis is unavailable: subscribers notice the change at their next poll.
    """

    async def publish(client: Client) -> None:
        if len(channels) == 1:
            await client.publish(channels[0], b"")
            return
        async with client.pipeline(transaction=False) as pipeline:
            for channel in channels:
                pipeline.publish(channel, b"")
            await pipeline.execute()

    if not channels:
        return
    # The announced change is already committed, so an expired deadline must not fail the call.
    with contextlib.suppress(RedisUnavailable, DeadlineExceeded):
        await redis.run(publish)


def _call(channel: bytes, callback: Callback) -> None:
    try:
        callback()
    except Exception:
        log.exception("wakeup_failed", channel=channel.decode())


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    """Opens a connection that raises each failure. With its default settings, redis-py would reconnect and subscribe again without an error.

    Uses RESP2, in which messages and responses are read in the same way.
    """
    retry = Retry(NoBackoff(), 0, supported_errors=())
    # `patience` limits each wait for an answer. redis-py's own timeouts would cost a task for each command.
    pool = redis.asyncio.ConnectionPool.from_url(url, protocol=2, retry=retry, socket_timeout=None, socket_connect_timeout=ANSWER_SECONDS)
    connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with patience(ANSWER_SECONDS):
            await connection.connect()
        yield connection
    finally:
        await connection.disconnect(nowait=True)


def _portions(channels: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(channels), CHANNELS_PER_COMMAND):
        yield channels[start : start + CHANNELS_PER_COMMAND]
