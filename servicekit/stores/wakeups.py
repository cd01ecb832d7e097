"""Telling other processes to look again, by Redis's pub/sub. A message says that something has changed, never what: it may be lost at any moment.

Contract: whoever is called back looks in the database, and looks there now and then without being called. So a lost message costs time, and nothing
else.
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
# A Redis that hangs looks like one that has nothing to say: after this long without a word it is asked whether it is there.
QUIET_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 2.0
# In one command, which is some 50 kB: Redis does one command at a time, and others wait for it.
CHANNELS_PER_COMMAND: Final = 1000
# Announcements within this time are sent together: no watcher notices the delay, and at a thousand writes a second ten share a command.
GATHER_SECONDS: Final = 0.01

log = structlog.get_logger()


class Wakeups:
    """Subscribes to channels; calls back on each message, and once whenever something may have been missed.

    That is when a channel has been subscribed to, by the first callback or after a reconnect: from that call on none is missed. Callbacks must only
    take note: the others wait for them.

    It has one connection of its own, none before the first channel, and notices within `QUIET_SECONDS` + `ANSWER_SECONDS` that Redis is away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._callbacks: dict[bytes, list[Callback]] = {}
        self._link: _Link | None = None
        self._started = False
        self._lost = False
        self._running: asyncio.Task[None] | None = None

    def subscribe(self, channel: str, callback: Callback) -> None:
        """Has `callback` called for the channel. Waits for nothing, and can be done at any time, also before the start."""
        name = channel.encode()
        callbacks = self._callbacks.setdefault(name, [])
        callbacks.append(callback)
        if self._link is not None:
            if name in self._link.confirmed:
                # The channel's confirmation, by which the others were called, is over.
                asyncio.get_running_loop().call_soon(self._call_if_still_there, name, callback)
            else:
                self._link.change(name)
        self._run_if_needed()

    def unsubscribe(self, channel: str, callback: Callback) -> None:
        """Takes back one `subscribe`. The callback is not called any more."""
        name = channel.encode()
        callbacks = self._callbacks[name]
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[name]
            if self._link is not None:
                self._link.change(name)

    async def start(self) -> None:
        """Connects in the background, as soon as there is a channel."""
        self._started = True
        self._run_if_needed()

    async def close(self) -> None:
        """Ends the connection, and the attempt to make one. Nobody is called any more."""
        self._started = False
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _run_if_needed(self) -> None:
        if self._started and self._callbacks and self._running is None:
            # In no context: it outlives the call that happened to be the first to subscribe.
            self._running = asyncio.create_task(self._run(), name="wakeups", context=contextvars.Context())

    async def _run(self) -> None:
        while self._callbacks:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if not self._lost:
                    log.warning("wakeups_lost", cause=type(error).__name__)
            except Exception:
                # Whatever it was: a task that ended would be deaf for good.
                if not self._lost:
                    log.exception("wakeups_failed")
            self._lost = True
            await asyncio.sleep(RECONNECT_SECONDS)
        # The next channel begins anew.
        self._running = None

    async def _listen(self) -> None:
        """Listens until the connection is lost. Raises RedisError or OSError then."""
        async with _connected(self._url) as connection:
            link = _Link(connection, self._callbacks)
            # In the background: what is written to a Redis that hangs must not keep us from noticing that.
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
        """Calls back. Redis's confirmation of a subscription is a message too: from that moment on none is missed."""
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
    """One connection, and what it has asked Redis for. `wanted` are the channels that there should be, and may change at any time."""

    def __init__(self, connection: Any, wanted: Mapping[bytes, object]) -> None:
        self.confirmed: set[bytes] = set()
        self._connection = connection
        self._wanted = wanted
        self._asked: set[bytes] = set()
        # In the order in which they were changed, each once.
        self._changed: dict[bytes, None] = dict.fromkeys(wanted)
        self._woken = asyncio.Event()
        self._woken.set()

    def change(self, channel: bytes) -> None:
        """Says that a channel may have become wanted, or unwanted. All that change in one turn of the loop go in one command."""
        self._changed[channel] = None
        self._woken.set()

    def confirm(self, channel: bytes) -> None:
        """Notes that Redis has subscribed us to it."""
        if channel in self._asked:
            self.confirmed.add(channel)

    async def write(self) -> None:
        """Asks Redis for what has changed, again and again. Raises RedisError or OSError, which the one who reads meets as well."""
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
        """The next message, or whatever else Redis says. Raises RedisError or TimeoutError if it does not answer."""
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
    """A Resource. Nothing here fails or waits: who polls finds out without it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pending: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def announce(self, channel: str) -> None:
        """Soon, on this channel."""
        self._pending.add(channel)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Waits for what is being said."""
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _send(self) -> None:
        # It is no part of the call that it began in.
        deadline.clear()
        try:
            while self._pending:
                await asyncio.sleep(GATHER_SECONDS)
                channels, self._pending = self._pending, set()
                await announce(self._redis, *channels)
        finally:
            self._sending = None


async def announce(redis: Redis, *channels: str) -> None:
    """Tells every subscriber of the channels to look again, in one round trip.

    Never raises for Redis being away: who polls finds it out a little later.
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
    # What is announced is done already, and stays so when the call's time is over.
    with contextlib.suppress(RedisUnavailable, DeadlineExceeded):
        await redis.run(publish)


def _call(channel: bytes, callback: Callback) -> None:
    try:
        callback()
    except Exception:
        log.exception("wakeup_failed", channel=channel.decode())


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    """A connection whose failures are ours to see: redis-py, if let, would connect and subscribe again by itself.

    In RESP2, where all that comes in is read in one way.
    """
    retry = Retry(NoBackoff(), 0, supported_errors=())
    # `patience` bounds what waits for an answer; redis-py's own bounds would cost a task for each command.
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
