"""Redis behind a circuit breaker: a caller gets an answer within `TIMEOUT_SECONDS`, or RedisUnavailable.

Contract: a command takes at most `TIMEOUT_SECONDS`. A read that must connect first takes at most twice that. The first failure opens the breaker.
While the breaker is open, commands fail at once without contacting Redis, and a probe contacts Redis every `PROBE_INTERVAL_SECONDS`. The breaker
closes only after a probe in which each `before_close` hook succeeded. `start` opens the breaker. The breaker also opens when Redis closes the
connection, whether or not a command is waiting: the data on the next connection may be older than what other processes have written since.
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
# When Redis is available again, each process notices it by its own probe: after at most the probe interval, one or two timeouts, and its hooks.
# Only after this time has every process noticed, and only then may a process use the data in Redis.
SETTLE_SECONDS: Final = 1.5
HOOK_TIMEOUT_SECONDS: Final = 0.5
MAX_CONNECTIONS: Final = 32

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Like asyncio.timeout, but in two halves. The second half starts only when the event loop has run after the first.

    So a process that was stalled does not take its own delay for a timeout of Redis.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        first_half = loop.call_later(seconds / 2, lambda: timeout.reschedule(loop.time() + seconds / 2))
        try:
            yield
        finally:
            first_half.cancel()


class Redis:
    """A client with a circuit breaker."""

    def __init__(self, url: str, registry: CollectorRegistry, *, traced: bool = False) -> None:
        """If `traced`, reads use the client too, because the instrumentation sees only the client. The breaker is closed until `start`."""
        # With its defaults, redis-py would try each command about ten times, for five seconds each.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=None,
            # `patience` limits every command, including its wait for a connection. redis-py's own timeout would cost a task for each command, and
            # it would also fail the commands of a process that was only stalled.
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        # If calls are traced, this connection only serves to notice that Redis is lost, because redis-py reconnects without an error.
        self._reads = Reads(pool, TIMEOUT_SECONDS, self.trip)
        self._traced = traced
        self._open = False
        self._settled_at = float("-inf")
        self._hooks: list[Hook] = []
        self._probing: asyncio.Task[None] | None = None
        self._failures = Counter("redis_failures_total", "Commands that failed or that Redis did not answer in time.", registry=registry)
        Gauge("redis_breaker_open", "1 while the circuit breaker is open.", registry=registry).set_function(lambda: float(self._open))

    def before_close(self, hook: Hook) -> None:
        """Adds a hook that must succeed on the returned Redis before the breaker closes. A hook fails by raising."""
        self._hooks.append(hook)

    def script(self, source: str) -> Script:
        """Returns a Lua script as a function of keys and arguments, to be called within `run`. The function returns the script's result.

        The client sends the script's hash, and the source only if Redis does not have the script.
        """
        registered = self._client.register_script(source)

        async def script(keys: Sequence[str], args: Sequence[bytes | int]) -> Any:
            return await registered(keys=keys, args=args)

        return script

    async def start(self) -> None:
        """Opens the breaker and probes Redis at once, as after an outage: other processes may be reconnecting to Redis now."""
        self._open = True
        self._probing = asyncio.create_task(self._probe(after_seconds=0))

    async def close(self) -> None:
        """Stops the probe and closes the connections."""
        # So that a connection that ends now does not start another probe.
        self._open = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._reads.close()
        await self._client.aclose()

    async def run(self, command: Callable[[Client], Awaitable[T]]) -> T:
        """Runs `command`. Raises RedisUnavailable, or DeadlineExceeded if the call's deadline expired first."""
        if self._open:
            raise RedisUnavailable
        seconds = deadline.bound(TIMEOUT_SECONDS)
        try:
            async with patience(seconds):
                return await command(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            # Compares the two limits and not the clock, because uvloop's timers fire up to 1 ms early.
            if isinstance(error, TimeoutError) and seconds < TIMEOUT_SECONDS:
                raise DeadlineExceeded from error
            self._failures.inc()
            self.trip(error)
            raise RedisUnavailable from error

    async def get(self, key: str) -> bytes | None:
        """Returns the key's value, or None, in the cheapest way. Raises RedisUnavailable; if calls are traced, also DeadlineExceeded."""
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
        """Whether the data in Redis may be used: the breaker has been closed for `SETTLE_SECONDS`, so every process knows that Redis is back.

        Commands already work before that, so that each process that reconnects can correct in Redis what it wrote without Redis.
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
        # The probe does not belong to the call that noticed the failure.
        deadline.clear()
        while True:
            await asyncio.sleep(after_seconds)
            after_seconds = PROBE_INTERVAL_SECONDS
            try:
                # The old connections are dead, or will still receive answers to abandoned commands. Using them would open the breaker again.
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
