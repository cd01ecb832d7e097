"""Telling other processes to look again, by Redis's pub/sub. A message says that something has changed, never what: it may be lost at any moment.

Contract: whoever is called back looks in the database, and looks there now and then without being called. So a lost message costs time, and nothing
else.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from servicekit.errors import DeadlineExceeded
from servicekit.redis import Redis, RedisUnavailable, patience

RECONNECT_SECONDS: Final = 0.5
# A Redis that hangs looks like one that has nothing to say: after this long without a word it is asked whether it is there.
QUIET_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 2.0

log = structlog.get_logger()


class Wakeups:
    """Subscribes to channels while it runs; calls back on each message, and once after every (re)connect since something may have been missed.

    It has a connection of its own, and notices within `QUIET_SECONDS` + `ANSWER_SECONDS` that Redis is away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._callbacks: defaultdict[bytes, list[Callable[[], None]]] = defaultdict(list)
        self._lost = False
        self._running: asyncio.Task[None] | None = None

    def on(self, channel: str, callback: Callable[[], None]) -> None:
        """Has `callback` called for the channel, from the next start on. It must only take note: the others wait for it."""
        self._callbacks[channel.encode()].append(callback)

    async def start(self) -> None:
        """Connects in the background."""
        # Redis knows no subscription to nothing.
        if self._callbacks:
            self._running = asyncio.create_task(self._run(), name="wakeups")

    async def close(self) -> None:
        """Ends the connection, and the attempt to make one."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
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

    async def _listen(self) -> None:
        """Listens until the connection is lost. Raises RedisError or OSError then."""
        async with _client(self._url) as client, client.pubsub() as pubsub:
            async with patience(ANSWER_SECONDS):
                await pubsub.subscribe(*self._callbacks)
            while True:
                self._take(await _next_message(pubsub))

    def _take(self, message: Any) -> None:
        """Calls back. Redis's confirmation of the subscription is a message too: from that moment on none is missed."""
        if message is None or message["type"] not in {"subscribe", "message"}:
            return
        if self._lost:
            self._lost = False
            log.info("wakeups_back")
        channel: bytes = message["channel"]
        for callback in self._callbacks[channel]:
            try:
                callback()
            except Exception:
                log.exception("wakeup_failed", channel=channel.decode())


async def announce(redis: Redis, channel: str) -> None:
    """Tells every subscriber to look again. Never raises for Redis being away: who polls finds it out a little later."""
    # What is announced is done already, and stays so when the call's time is over.
    with contextlib.suppress(RedisUnavailable, DeadlineExceeded):
        await redis.run(lambda client: client.publish(channel, b""))


def _client(url: str) -> redis.asyncio.Redis:
    """A client whose failures are ours to see: with errors that it takes for passing it would connect and subscribe again by itself."""
    retry = Retry(NoBackoff(), 0, supported_errors=())
    # `patience` bounds what waits for an answer; redis-py's own bounds would cost a task for each command.
    return redis.asyncio.Redis.from_url(url, retry=retry, socket_timeout=None, socket_connect_timeout=ANSWER_SECONDS)


async def _next_message(pubsub: Any) -> Any:
    """The next message, or None if all is quiet and well. Raises TimeoutError if Redis does not answer."""
    message = await pubsub.get_message(timeout=QUIET_SECONDS)
    if message is not None:
        return message
    async with patience(ANSWER_SECONDS):
        await pubsub.ping()
        return await pubsub.get_message(timeout=None)
