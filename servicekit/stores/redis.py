"""Redis behind a breaker. Redis may be lost at any moment: a caller of this either has its answer soon or RedisUnavailable sooner.

Contract: a command takes at most `TIMEOUT_SECONDS`, a read that must connect first twice that; the first failure opens the breaker, and until it
closes commands fail at once, at no cost. While it is open Redis is probed each `PROBE_INTERVAL_SECONDS`, and before it closes each `before_close`
hook must have succeeded. It is open at first; and it opens when Redis ends the connection, asked or not: what is there on the next one may be older
than what others wrote meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast

import redis.asyncio
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, RedisUnavailable
from servicekit.stores.redis_reads import Reads

T = TypeVar("T")
Client: TypeAlias = "redis.asyncio.Redis"
Script: TypeAlias = Callable[[Sequence[str], Sequence[bytes | int]], Awaitable[Any]]
Hook: TypeAlias = Callable[[Client], Awaitable[None]]

TIMEOUT_SECONDS: Final = 0.3
PROBE_INTERVAL_SECONDS: Final = 0.5
# When Redis returns, each process finds out by a probe of its own, after at most the interval, a time-out or two, and its hooks. Only after this
# long has every one of them found out, and only then is what Redis holds to be believed.
SETTLE_SECONDS: Final = 1.5
HOOK_TIMEOUT_SECONDS: Final = 0.5
MAX_CONNECTIONS: Final = 32

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """asyncio.timeout in two halves, the second counted from when the loop has come round after the first: being stalled is not Redis's silence."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        first_half = loop.call_later(seconds / 2, lambda: timeout.reschedule(loop.time() + seconds / 2))
        try:
            yield
        finally:
            first_half.cancel()


class Redis:
    """A client with a breaker."""

    def __init__(self, url: str, registry: CollectorRegistry, *, traced: bool = False) -> None:
        """`traced`: reads go through the client as well, which is what the instrumentation sees. Until `start` Redis is taken to be there."""
        # redis-py would try each command about ten times, five seconds each.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=None,
            # `patience` bounds every command, the wait for a connection too. redis-py's own bound would cost a task for each, and fails a process
            # that was merely stalled.
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        # Where calls are traced, its connection only tells when Redis is lost: redis-py makes new ones silently.
        self._reads = Reads(pool, TIMEOUT_SECONDS, self.trip)
        self._traced = traced
        self._open = False
        self._settled_at = float("-inf")
        self._hooks: list[Hook] = []
        self._probing: asyncio.Task[None] | None = None
        self._failures = Counter("redis_failures_total", "Commands that Redis did not answer.", registry=registry)
        Gauge("redis_breaker_open", "1 while Redis is taken to be away.", registry=registry).set_function(lambda: float(self._open))

    def before_close(self, hook: Hook) -> None:
        """Adds what must have been done on the returned Redis before anybody uses it again. A hook fails by raising."""
        self._hooks.append(hook)

    def script(self, source: str) -> Script:
        """A Lua script, as a function of keys and arguments to be called within `run`; it returns what the script returns.

        Redis is sent the script's hash, or the source if need be.
        """
        registered = self._client.register_script(source)

        async def script(keys: Sequence[str], args: Sequence[bytes | int]) -> Any:
            return await registered(keys=keys, args=args)

        return script

    async def start(self) -> None:
        """Begins as if Redis had been away: others may be coming back to it just now."""
        self._open = True
        self._probing = asyncio.create_task(self._probe(after_seconds=0))

    async def close(self) -> None:
        """Ends the probe and closes the connections."""
        # So that no connection that ends now begins another probe.
        self._open = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._reads.close()
        await self._client.aclose()

    async def run(self, command: Callable[[Client], Awaitable[T]]) -> T:
        """Runs `command`. Raises RedisUnavailable, or DeadlineExceeded if it was the call's time that ran out."""
        if self._open:
            raise RedisUnavailable
        seconds = deadline.bound(TIMEOUT_SECONDS)
        try:
            async with patience(seconds):
                return await command(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            # Whose bound it was decides, not the clock: uvloop's timers are up to a millisecond early.
            if isinstance(error, TimeoutError) and seconds < TIMEOUT_SECONDS:
                raise DeadlineExceeded from error
            self._failures.inc()
            self.trip(error)
            raise RedisUnavailable from error

    async def get(self, key: str) -> bytes | None:
        """What the key holds, by the cheapest way there is. Raises RedisUnavailable."""
        if self._traced:
            return cast("bytes | None", await self.run(lambda client: client.get(key)))
        if self._open:
            raise RedisUnavailable
        try:
            return await self._reads.get(key)
        except (RedisError, OSError, TimeoutError) as error:
            self._failures.inc()
            self.trip(error)
            raise RedisUnavailable from error

    @property
    def settled(self) -> bool:
        """Whether what Redis holds is to be believed: it is here, and has been for so long that every other process must have found out as well.

        Until then commands work already, so that processes which return to it one by one can make good what they did without it.
        """
        return not self._open and time.monotonic() >= self._settled_at

    def trip(self, cause: BaseException) -> None:
        """Opens the breaker."""
        if self._open:
            return
        self._open = True
        log.warning("redis_breaker_opened", cause=type(cause).__name__)
        self._probing = asyncio.create_task(self._probe(after_seconds=PROBE_INTERVAL_SECONDS))

    async def _probe(self, after_seconds: float) -> None:
        # It is no part of the call that noticed.
        deadline.clear()
        while True:
            await asyncio.sleep(after_seconds)
            after_seconds = PROBE_INTERVAL_SECONDS
            try:
                # What is left of before is dead or has answers to nobody's questions on its way, and would open the breaker again.
                await self._client.connection_pool.disconnect(inuse_connections=False)
                self._reads.reset()
                await self._reads.connect()
                async with patience(TIMEOUT_SECONDS):
                    await self._client.ping()
                for hook in self._hooks:
                    async with patience(HOOK_TIMEOUT_SECONDS):
                        await hook(self._client)
                if not self._reads.is_connected:
                    continue
            except (RedisError, OSError, TimeoutError):
                continue
            except Exception:
                log.exception("redis_probe_failed")
                continue
            self._open = False
            self._settled_at = time.monotonic() + SETTLE_SECONDS
            log.info("redis_breaker_closed")
            return
