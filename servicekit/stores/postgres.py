"""PostgreSQL: a bounded pool in which every wait ends with the call's deadline, and one place that says what its errors mean.

Contract: a call never waits longer than its deadline or `timeout_seconds`, whichever is sooner; cancelling it frees its connection. PostgreSQL
gone or frozen is DependencyUnavailable, and the pool recovers by itself. Errors about data (constraints) pass through for the repository to name.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import CollectorRegistry, Gauge, Histogram

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, DependencyUnavailable

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

NAME: Final = "PostgreSQL"
CONNECT_TIMEOUT_SECONDS: Final = 2.0
RELEASE_TIMEOUT_SECONDS: Final = 1.0
WAIT_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# The server is away, going away, coming up, full, or has not got its schema yet: it may be well when the call is tried again.
_AWAY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # A deadlock, such as with a migration: nothing was done.
    asyncpg.DeadlockDetectedError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    # Nor its database, or its roles: somebody is about to restore it.
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    # What asyncpg makes of a use between the server's last words and the end of the connection.
    asyncpg.InternalClientError,
)


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """Where the database is and how much of it one process takes."""

    url: str
    application_name: str
    pool_max_size: int
    statement_cache_size: int
    timeout_seconds: float


class Database:
    """The pool. `run` is the way to a connection; the rest are short forms of it."""

    def __init__(self, options: DatabaseOptions, registry: CollectorRegistry) -> None:
        self._options = options
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        gauge = Gauge("db_pool_connections", "Connections of the pool to PostgreSQL.", ["state"], registry=registry)
        gauge.labels("idle").set_function(lambda: self._pool.get_idle_size() if self._pool else 0)
        gauge.labels("in_use").set_function(lambda: self._pool.get_size() - self._pool.get_idle_size() if self._pool else 0)
        Gauge("db_pool_connections_limit", "Connections that the pool may have.", registry=registry).set(options.pool_max_size)
        Gauge("db_pool_waiting", "Who waits for a connection of the pool.", registry=registry).set_function(lambda: self._waiting)
        self._waiting = 0
        self._wait_seconds = Histogram(
            "db_pool_wait_seconds", "Time until a connection was had, or given up.", registry=registry, buckets=WAIT_BUCKETS_SECONDS
        )

    async def start(self) -> None:
        """Makes the pool. Connects to nothing yet: the database may come later than we do."""
        options = self._options
        self._pool = await asyncpg.create_pool(
            options.url,
            min_size=0,
            max_size=options.pool_max_size,
            timeout=CONNECT_TIMEOUT_SECONDS,
            statement_cache_size=options.statement_cache_size,
            server_settings=_session(options),
            target_session_attrs=SessionAttribute.read_write,
            reset=_reset,
        )

    async def close(self) -> None:
        """Closes the pool, waiting for nothing that hangs."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def fetchrow(self, sql: str, *args: object) -> "asyncpg.Record | None":
        """The first row of one statement, in a transaction of its own."""
        return await self.run(lambda connection: connection.fetchrow(sql, *args))

    async def fetch(self, sql: str, *args: object) -> "Sequence[asyncpg.Record]":
        """All rows of one statement, in a transaction of its own."""
        return await self.run(lambda connection: connection.fetch(sql, *args))

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` in one transaction, committed if it returns. Run twice if a migration pulled a prepared statement from under it."""

        async def transaction(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        try:
            return await self.run(transaction)
        except asyncpg.InvalidCachedStatementError:
            return await self.run(transaction)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` on a connection. Raises DependencyUnavailable, DeadlineExceeded, and asyncpg's errors about data."""
        pool = self._pool
        if pool is None:
            raise DependencyUnavailable(NAME)
        bound = self._options.timeout_seconds
        seconds = deadline.bound(bound)
        try:
            async with asyncio.timeout(seconds):
                connection = await self._acquire(pool)
                try:
                    result = await work(connection)
                except BaseException:
                    # In the background: a server that hangs would hold up the answer as well.
                    self._release_later(connection)
                    raise
                # What was committed is not undone by what happens to the connection.
                with contextlib.suppress(Exception):
                    await pool.release(connection)
                return result
        except TimeoutError as error:
            # Whose bound it was decides, not the clock: uvloop's timers are up to a millisecond early.
            raise (DeadlineExceeded() if seconds < bound else DependencyUnavailable(NAME)) from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            # After a failover the pool can sit on what is now a replica: let every connection find the primary anew.
            await pool.expire_connections()
            raise DependencyUnavailable(NAME) from error
        except _AWAY as error:
            raise DependencyUnavailable(NAME) from error
        except asyncpg.InterfaceError as error:
            if _is_about_arguments(error):
                raise
            raise DependencyUnavailable(NAME) from error
        except asyncpg.PostgresError as error:
            # It quotes the row, and a row must reach no log.
            error.detail = None
            raise

    async def _acquire(self, pool: "asyncpg.Pool[asyncpg.Record]") -> "PoolConnectionProxy[asyncpg.Record]":
        started = time.perf_counter()
        self._waiting += 1
        try:
            return await pool.acquire()
        finally:
            self._waiting -= 1
            self._wait_seconds.observe(time.perf_counter() - started)

    def _release_later(self, connection: Connection) -> None:
        task = asyncio.create_task(self._release(connection))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, connection: Any) -> None:
        assert self._pool is not None
        # asyncpg closes a connection that it cannot clean in time; there is nobody to tell.
        with contextlib.suppress(Exception):
            await self._pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)


def _is_about_arguments(error: asyncpg.InterfaceError) -> bool:
    """Asyncpg has one type for a connection that is closed, closing or still being cancelled, and for a wrong number of arguments: our fault."""
    return type(error) is not asyncpg.InterfaceError or "expects" in str(error)


def _session(options: DatabaseOptions) -> dict[str, str]:
    """Bounds that hold on the server too, for when the client is gone. None behind an old PgBouncer, which refuses them."""
    if options.statement_cache_size == 0:
        return {}
    milliseconds = str(round(options.timeout_seconds * 1000))
    return {"application_name": options.application_name, "statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds}


async def _reset(connection: Connection) -> None:
    """Before a connection goes back: asyncpg's own reset is a round trip for session state that nothing of ours makes."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")
