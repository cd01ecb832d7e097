"""PostgreSQL: a connection pool of limited size, in which every wait ends at the call's deadline, and the classification of PostgreSQL's errors.

Contract: a call waits until its deadline or for `timeout_seconds`, whichever ends first. Cancelling the call frees its connection. If PostgreSQL is
down, the call raises DependencyUnavailable. If the wait takes `timeout_seconds`, because PostgreSQL is unresponsive, a lock is held or the pool is
busy, the call raises TimeLimitExceeded. The pool recovers by itself. Errors about data (constraints) pass through, so that the repository can map
them to named errors. While all connections are in use, the users that wait get them in turns.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
import structlog
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import CollectorRegistry, Gauge

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, DependencyUnavailable, TimeLimitExceeded
from servicekit.meters import Histograms
from servicekit.stores.session import GENERIC_PLAN_REFUSED, Pooler, named_statements, report_unlimited, startup_settings
from servicekit.stores.slots import Slots

log = structlog.get_logger()

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

NAME: Final = "PostgreSQL"
CONNECT_TIMEOUT_SECONDS: Final = 2.0
RELEASE_TIMEOUT_SECONDS: Final = 1.0
# After an attempt to connect has failed, calls that would have to connect fail at once for this time: otherwise each call would ask the DNS again.
FAILED_CONNECT_SECONDS: Final = 0.1
WAIT_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# The server is down, stopping, starting or full, or has no schema yet. A retry may succeed.
_AWAY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # A deadlock, for example with a migration: PostgreSQL has rolled the transaction back.
    asyncpg.DeadlockDetectedError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    # The schema of before: a migration has not granted this role its rights yet.
    asyncpg.InsufficientPrivilegeError,
    # The database or its role does not exist: an operator may be restoring it.
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    # asyncpg raises this if a connection is used after the server has announced its end and before it has ended.
    asyncpg.InternalClientError,
)
# The same, for Citus: a server that stops or does not answer. These messages have the code of an internal error (XX000).
_CITUS_AWAY: Final = ("postmaster was shut down", "failure on connection marked as essential", "could not commit transaction for shard")


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """The database's URL, what it leads to, and how much of the database one process may use.

    `generic_plans`: PostgreSQL plans each statement once for each connection, whatever its parameters are. Otherwise PostgreSQL plans a statement
    anew for each execution where it expects a better plan. If the server is Citus and refuses such a plan, the pool continues without.
    """

    url: str
    application_name: str
    pool_max_size: int
    statement_cache_size: int
    timeout_seconds: float
    pooler: Pooler = Pooler.NONE
    generic_plans: bool = False


class Database:
    """The connection pool. `run` lends a connection; the other methods are short forms of it."""

    def __init__(self, options: DatabaseOptions, registry: CollectorRegistry) -> None:
        self._options = options
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._slots = Slots(options.pool_max_size)
        self._releasing: set[asyncio.Task[None]] = set()
        self._reported = False
        gauge = Gauge("db_pool_connections", "Connections of the pool to PostgreSQL.", ["state"], registry=registry)
        gauge.labels("idle").set_function(lambda: self._pool.get_idle_size() if self._pool else 0)
        gauge.labels("in_use").set_function(lambda: self._pool.get_size() - self._pool.get_idle_size() if self._pool else 0)
        Gauge("db_pool_connections_limit", "Maximum number of connections of the pool.", registry=registry).set(options.pool_max_size)
        Gauge("db_pool_waiting", "Calls that wait for a connection of the pool.", registry=registry).set_function(lambda: self._waiting)
        self._waiting = 0
        self._failed_at = float("-inf")
        waits = Histograms(
            "db_pool_wait_seconds", "Time until a call got a connection or stopped waiting.", (), registry, bounds=WAIT_BUCKETS_SECONDS
        )
        self._wait_seconds = waits.labels()

    @property
    def timeout_seconds(self) -> float:
        """The time limit of a call without a deadline."""
        return self._options.timeout_seconds

    @property
    def connections(self) -> int:
        """The maximum number of connections."""
        return self._options.pool_max_size

    async def start(self) -> None:
        """Creates the pool. Does not connect yet, because the database may start later than this process."""
        options = self._options
        self._pool = await asyncpg.create_pool(
            options.url,
            min_size=0,
            max_size=options.pool_max_size,
            init=None if options.pooler is Pooler.NONE else self._report,
            reset=_reset,
            **_connect_options(options),
        )

    async def close(self) -> None:
        """Closes the pool. Terminates the connections that are still in use after `RELEASE_TIMEOUT_SECONDS`."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def fetchrow(self, sql: str, *args: object) -> "asyncpg.Record | None":
        """Returns the first row of one statement, or None. The statement runs in its own transaction."""
        return await self.run(lambda connection: connection.fetchrow(sql, *args))

    async def fetch(self, sql: str, *args: object, on_failed: Callable[[], None] | None = None) -> "Sequence[asyncpg.Record]":
        """Returns all rows of one statement. The statement runs in its own transaction. `on_failed`: see `run`."""
        return await self.run(lambda connection: connection.fetch(sql, *args), on_failed=on_failed)

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` in one transaction and commits if it returns. If a migration has invalidated a prepared statement, runs `work` again."""

        async def transaction(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        try:
            return await self.run(transaction)
        except asyncpg.InvalidCachedStatementError:
            return await self.run(transaction)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, on_failed: Callable[[], None] | None = None) -> T:
        """Runs `work` on a connection. Raises DependencyUnavailable, DeadlineExceeded, TimeLimitExceeded, or asyncpg's errors about data.

        If the work does not return, its last statement may still be running on the server, and may be committed. `on_failed` is called when it is
        certain that nothing of the work is running any more, which may be after this method has raised. If that never becomes certain (the
        connection was lost), it is not called.
        """
        on_failed = on_failed or _nothing
        bound = self._options.timeout_seconds
        try:
            seconds = deadline.bound(bound)
        except DeadlineExceeded:
            on_failed()
            raise
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._lent(work, on_failed)
        except TimeoutError as error:
            if not limit.expired():
                # asyncpg could not connect within CONNECT_TIMEOUT_SECONDS.
                raise DependencyUnavailable(NAME) from error
            # Compares the two limits and not the clock, because uvloop's timers fire up to 1 ms early.
            raise (DeadlineExceeded() if seconds < bound else TimeLimitExceeded()) from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            # After a failover, the pool's connections may lead to a standby. Expiring them makes the pool connect to the primary.
            if self._pool is not None:
                await self._pool.expire_connections()
            raise DependencyUnavailable(NAME) from error
        except (*_AWAY, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if str(error).startswith(GENERIC_PLAN_REFUSED) and self._pool is not None and self._options.pooler is Pooler.NONE:
                await self._plan_each_time(self._pool)
                raise DependencyUnavailable(NAME) from error
            if (failure := _failure(error)) is None:
                raise
            raise failure from error

    async def _plan_each_time(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Replaces the connections by some that do not ask for generic plans: the tables were distributed while this process ran."""
        log.warning("generic_plan_refused", setting="DATABASE_GENERIC_PLANS")
        if self._options.generic_plans:
            self._options = replace(self._options, generic_plans=False)
            pool.set_connect_args(self._options.url, **_connect_options(self._options))
        await pool.expire_connections()

    async def _report(self, connection: Connection) -> None:
        """Reports the timeouts that the first session does not have."""
        if not self._reported:
            self._reported = True
            await report_unlimited(connection)

    async def _lent(self, work: Callable[[Connection], Awaitable[T]], on_failed: Callable[[], None]) -> T:
        """Runs `work` on a connection and releases it."""
        pool = self._pool
        try:
            if pool is None:
                raise DependencyUnavailable(NAME)
            connection = await self._acquire(pool)
        except BaseException:
            on_failed()
            raise
        try:
            result = await work(connection)
        except BaseException as error:
            # In the background, because an unresponsive server would also delay the error.
            self._release_later(connection, on_failed, at_rest=_is_from_server(error))
            raise
        # The work is committed. A failure of the connection does not undo it.
        try:
            with contextlib.suppress(Exception):
                await pool.release(connection)
        except BaseException:
            on_failed()
            raise
        finally:
            self._slots.give_back()
        return result

    async def _acquire(self, pool: "asyncpg.Pool[asyncpg.Record]") -> "PoolConnectionProxy[asyncpg.Record]":
        started = time.perf_counter()
        if started - self._failed_at < FAILED_CONNECT_SECONDS and pool.get_size() == 0:
            raise DependencyUnavailable(NAME)
        self._waiting += 1
        try:
            await self._slots.take()
            try:
                return await pool.acquire()
            except BaseException:
                self._slots.give_back()
                raise
        except OSError:
            # Its name has no address, or nothing listens.
            self._failed_at = time.perf_counter()
            raise
        finally:
            self._waiting -= 1
            self._wait_seconds.observe(time.perf_counter() - started)

    def _release_later(self, connection: Connection, on_failed: Callable[[], None], *, at_rest: bool) -> None:
        task = asyncio.create_task(self._release(connection, on_failed, at_rest=at_rest))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, connection: Any, on_failed: Callable[[], None], *, at_rest: bool) -> None:
        """Releases the connection of a call that failed. `at_rest`: the server has ended the call's statement itself. No caller waits for this."""
        assert self._pool is not None
        with contextlib.suppress(Exception):
            if not at_rest:
                # asyncpg sends Parse and Execute separately. If the call ended between them, the server's statement timeout still runs, and would end
                # the next statement of this connection. Another statement ends the timeout, and begins only when the call's statement has ended.
                # (asyncpg fails on an empty one.)
                await connection.execute("SELECT", timeout=RELEASE_TIMEOUT_SECONDS)
            on_failed()
        # asyncpg closes a connection that it cannot reset in time.
        try:
            with contextlib.suppress(Exception):
                await self._pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)
        finally:
            self._slots.give_back()


def _connect_options(options: DatabaseOptions) -> dict[str, Any]:
    """Returns the keyword arguments of asyncpg.connect."""
    return {
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "statement_cache_size": named_statements(options.pooler, options.statement_cache_size),
        "server_settings": startup_settings(options.pooler, options.application_name, options.timeout_seconds, generic_plans=options.generic_plans),
        "target_session_attrs": SessionAttribute.read_write,
    }


def _nothing() -> None:
    pass


def _failure(error: Exception) -> Exception | None:
    """Returns what an error of the server or of the connection means, or None if it is about data or about the statement."""
    if isinstance(error, asyncpg.QueryCanceledError):
        # The server's statement timeout was faster than the timer of `run`, or an operator has cancelled the statement.
        return TimeLimitExceeded()
    if isinstance(error, asyncpg.InterfaceError):
        return None if _is_about_arguments(error) else DependencyUnavailable(NAME)
    if isinstance(error, _AWAY) or (isinstance(error, asyncpg.InternalServerError) and str(error).startswith(_CITUS_AWAY)):
        return DependencyUnavailable(NAME)
    if isinstance(error, asyncpg.PostgresError):
        # The detail quotes the row, and the log must not contain rows.
        error.detail = None
    return None


def _is_from_server(error: BaseException) -> bool:
    """Whether the server has ended the statement with this error. asyncpg also raises connection errors of which the server may know nothing."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError)


def _is_about_arguments(error: asyncpg.InterfaceError) -> bool:
    """Whether a statement was given wrong arguments, which is a programming error.

    asyncpg raises the same type for a wrong number of arguments and for a connection that is closed, closing or being cancelled.
    """
    return type(error) is not asyncpg.InterfaceError or "expects" in str(error)


async def _reset(connection: Connection) -> None:
    """Resets a connection before the pool reuses it. asyncpg's own reset would cost a round trip for session state that this code never sets."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")
