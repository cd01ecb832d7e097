"""Redis behind a circuit breaker: a caller gets an answer within `TIMEOUT_SECONDS`, or RedisUnavailable.

Contract: a command takes at most `TIMEOUT_SECONDS`. The first failure opens the breaker. While the breaker is open, commands fail at once without
contacting Redis, and a probe contacts Redis every `PROBE_INTERVAL_SECONDS`. The breaker closes only after a successful probe. The breaker also opens
when Redis closes the connection of the pipelined commands, whether or not one is waiting.

From one closing of the breaker to its next opening, all connections lead to one Redis process, a master, which `process` identifies. A caller that
relies on data of one process names it: if the connections lead to another process, the command fails as if Redis were unavailable.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast

import redis.asyncio
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.exceptions import NoScriptError, RedisError

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, RedisUnavailable
from servicekit.stores.redis_session import Pipelined, Session, UnsuitableServer

T = TypeVar("T")
Client: TypeAlias = "redis.asyncio.Redis"

TIMEOUT_SECONDS: Final = 0.3
# No caller waits for an attempt to connect. It takes several round trips, and must succeed on a machine that is busy.
CONNECT_TIMEOUT_SECONDS: Final = 2.0
PROBE_INTERVAL_SECONDS: Final = 0.5

log = structlog.get_logger()


class Script(Protocol):
    """A Lua script."""

    def __call__(self, keys: Sequence[str], args: Sequence[bytes | int | str], *, process: str | None = None) -> Awaitable[Any]:
        """Runs the script and returns its result. Raises RedisUnavailable, or DeadlineExceeded if the call's deadline expired first.

        If the caller leaves and Redis has the script, Redis runs it all the same, before any command that is sent after it in the same way.
        """


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
    """A client with a circuit breaker. The breaker is open until `start`."""

    def __init__(self, url: str, registry: CollectorRegistry, *, traced: bool = False) -> None:
        """If `traced`, every command uses redis-py's client, because the instrumentation sees only the client."""
        self._url = url
        self._traced = traced
        self._session: Session | None = None
        self._probing: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._unsuitable = ""
        self._failures = Counter("redis_failures_total", "Commands that failed or that Redis did not answer in time.", registry=registry)
        gauge = Gauge("redis_breaker_open", "1 while the circuit breaker is open.", registry=registry)
        gauge.set_function(lambda: float(self._session is None))

    @property
    def process(self) -> str | None:
        """The run id of the Redis process that the connections lead to; None while the breaker is open."""
        return None if self._session is None else self._session.process

    def script(self, source: str) -> Script:
        """Returns a Lua script. The client sends the script's hash, and the source only if Redis does not have the script."""
        sha = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - the name that Redis gives the script

        async def script(keys: Sequence[str], args: Sequence[bytes | int | str], *, process: str | None = None) -> Any:
            async def evaluate(client: Client) -> Any:
                try:
                    return await client.evalsha(sha, len(keys), *keys, *args)
                except NoScriptError:
                    return await client.eval(source, len(keys), *keys, *args)

            if self._traced:
                return await self.run(evaluate, process=process)
            try:
                return await self._pipelined(lambda commands: commands.evaluate("EVALSHA", sha, keys, args), process)
            except NoScriptError:
                return await self._pipelined(lambda commands: commands.evaluate("EVAL", source, keys, args), process)

        return script

    async def start(self) -> None:
        """Connects. If that fails, the probe continues in the background."""
        if not await self._connected():
            self._probing = asyncio.create_task(self._probe())

    async def close(self) -> None:
        """Stops the probe and closes the connections."""
        session, self._session = self._session, None
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        if session is not None:
            await session.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def reconnect(self) -> None:
        """Opens the breaker, because the address may lead to another process by now. The probe connects anew."""
        if self._session is not None:
            self._lost(self._session, RedisError("asked to reconnect"))

    async def run(self, command: Callable[[Client], Awaitable[T]], *, process: str | None = None) -> T:
        """Runs `command`. Raises RedisUnavailable, or DeadlineExceeded if the call's deadline expired first."""
        session = self._of(process)
        seconds = deadline.bound(TIMEOUT_SECONDS)
        try:
            async with patience(seconds):
                return await command(session.client)
        except (RedisError, OSError, TimeoutError) as error:
            # Compares the two limits and not the clock, because uvloop's timers fire up to 1 ms early.
            if isinstance(error, TimeoutError) and seconds < TIMEOUT_SECONDS:
                raise DeadlineExceeded from error
            self._failures.inc()
            self._lost(session, error)
            raise RedisUnavailable from error

    async def get(self, key: str, *, process: str | None = None) -> bytes | None:
        """Returns the key's value, or None, in the cheapest way. Fails if the process is a replica of another one.

        Raises RedisUnavailable, or DeadlineExceeded if the call's deadline expired first.
        """
        if self._traced:
            return cast("bytes | None", await self.run(lambda client: client.getex(key), process=process))
        return await self._pipelined(lambda commands: commands.get(key.encode()), process)

    async def _pipelined(self, ask: Callable[[Pipelined], Awaitable[T]], process: str | None) -> T:
        session = self._of(process)
        seconds = deadline.bound(TIMEOUT_SECONDS)
        answer = ask(session.pipelined)
        try:
            # The connection limits the wait to TIMEOUT_SECONDS.
            return await (answer if seconds == TIMEOUT_SECONDS else _before_deadline(answer, seconds))
        except NoScriptError:
            raise
        except (RedisError, OSError, TimeoutError) as error:
            self._failures.inc()
            self._lost(session, error)
            raise RedisUnavailable from error

    def _of(self, process: str | None) -> Session:
        """Returns the session. Raises RedisUnavailable if there is none, or if it is with another process."""
        session = self._session
        if session is None or (process is not None and process != session.process):
            raise RedisUnavailable
        return session

    def _lost(self, session: Session, cause: BaseException) -> None:
        """Opens the breaker. A command of an earlier session that fails late changes nothing."""
        if self._session is not session:
            return
        self._session = None
        log.warning("redis_breaker_opened", cause=type(cause).__name__)
        self._close_later(session)
        self._probing = asyncio.create_task(self._probe())

    def _close_later(self, session: Session) -> None:
        closing = asyncio.create_task(session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _probe(self) -> None:
        # The probe does not belong to the call that noticed the failure.
        deadline.clear()
        while True:
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
            if await self._connected():
                log.info("redis_breaker_closed")
                return

    async def _connected(self) -> bool:
        """Opens new connections: the old ones are dead, or will still receive answers to abandoned commands. Returns whether that succeeded."""
        session = Session(self._url, TIMEOUT_SECONDS, self._lost)
        try:
            async with patience(CONNECT_TIMEOUT_SECONDS):
                await session.open()
                await session.client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            self._report_unsuitable(error)
            self._close_later(session)
            return False
        except Exception:
            log.exception("redis_probe_failed")
            self._close_later(session)
            return False
        except BaseException:
            self._close_later(session)
            raise
        if session.pipelined.ended:
            self._close_later(session)
            return False
        self._session, self._unsuitable = session, ""
        return True

    def _report_unsuitable(self, error: BaseException) -> None:
        """Logs why the server may not be used, once until the reason changes. That the server cannot be reached is `redis_breaker_open`."""
        reason = str(error) if isinstance(error, UnsuitableServer) else ""
        if reason and reason != self._unsuitable:
            log.error("redis_unsuitable", reason=reason)
        self._unsuitable = reason or self._unsuitable


async def _before_deadline(answer: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await answer
    except TimeoutError as error:
        if limit.expired():
            raise DeadlineExceeded from error
        raise
