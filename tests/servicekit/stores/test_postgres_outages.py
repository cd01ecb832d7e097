"""The pool while PostgreSQL is unavailable: calls fail with DependencyUnavailable or TimeLimitExceeded in time, and the pool recovers by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, DependencyUnavailable, TimeLimitExceeded
from servicekit.stores.postgres import FAILED_CONNECT_SECONDS, RELEASE_TIMEOUT_SECONDS, Database
from tests.servicekit.stores.databases import WITHIN_SECONDS, busy_are, held, hold, options, pool, started, takes, through, within_call
from tests.support.databases import as_role, with_database
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with proxied(parts.hostname, parts.port) as made:
        yield made


async def test_terminated_backends_are_away_and_the_pool_recovers(database: Database, database_url: str) -> None:
    holding = [asyncio.create_task(hold(database, 30)) for _ in range(2)]
    async with pool(database_url, size=1) as killer:
        await busy_are(killer, 2)
        await killer.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    for outcome in await asyncio.gather(*holding, return_exceptions=True):
        assert isinstance(outcome, DependencyUnavailable)
    # An idle connection that died unnoticed causes at most one failed call.
    failures = 0
    for _ in range(4):
        try:
            await database.fetchrow("SELECT 1")
        except DependencyUnavailable:
            failures += 1
    assert failures <= 2
    await database.fetchrow("SELECT 1")


async def test_idle_backends_that_died_are_noticed(database_url: str) -> None:
    registry = CollectorRegistry()

    async def none_is_idle() -> None:
        assert registry.get_sample_value("db_pool_connections", {"state": "idle"}) == 0

    async with started(Database(options(database_url), registry)) as database:
        async with held(database), held(database):
            pass
        assert registry.get_sample_value("db_pool_connections", {"state": "idle"}) == 2
        async with pool(database_url, size=1) as killer:
            await killer.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await eventually(none_is_idle, within=WITHIN_SECONDS, every=0.01)
        await asyncio.gather(*(database.fetchrow("SELECT 1") for _ in range(4)))


async def test_a_server_that_hangs_holds_nobody_up(database_url: str, proxy: Proxy) -> None:
    async with pool(through(database_url, proxy.port), seconds=0.3) as database:
        # On a busy machine, the first connection may take longer than the pool's time.
        await _recovers(database)
        proxy.freeze()
        with takes(0.2, 5.0), pytest.raises(TimeLimitExceeded):
            await database.fetchrow("SELECT 1")
        with takes(0.05, 5.0), pytest.raises(DeadlineExceeded):
            await within_call(0.1, lambda: database.fetchrow("SELECT 1"))
        proxy.thaw()
        await _recovers(database)


async def test_closing_waits_for_nothing_that_hangs(database_url: str, proxy: Proxy) -> None:
    database = Database(options(through(database_url, proxy.port), seconds=30.0), CollectorRegistry())
    await database.start()
    await database.fetchrow("SELECT 1")
    holding = asyncio.create_task(hold(database, 30))
    await asyncio.sleep(0.1)
    proxy.freeze()
    with takes(0, 10.0):
        await database.close()
    await asyncio.gather(holding, return_exceptions=True)


async def test_a_server_that_is_gone_is_away_and_comes_back(database_url: str, proxy: Proxy) -> None:
    async with pool(through(database_url, proxy.port)) as database:
        await database.fetchrow("SELECT 1")
        await proxy.stop()
        for _ in range(3):
            with pytest.raises(DependencyUnavailable, match="PostgreSQL"):
                await database.fetchrow("SELECT 1")
        await proxy.start()
        await _recovers(database)


async def test_it_starts_before_the_database_is_there() -> None:
    async with started(Database(options("postgresql://u:p@127.0.0.1:1/d"), CollectorRegistry())) as database:
        with pytest.raises(DependencyUnavailable):
            await database.fetchrow("SELECT 1")


@pytest.mark.parametrize("lost", ["database", "role"])
async def test_a_database_that_is_being_restored_is_away(database_url: str, lost: str) -> None:
    nowhere = with_database(database_url, "nowhere") if lost == "database" else as_role(database_url, "nobody", "any")
    async with pool(nowhere) as away:
        with pytest.raises(DependencyUnavailable):
            await away.fetchrow("SELECT 1")


async def test_before_the_start_it_is_away(database_url: str) -> None:
    database = Database(options(database_url), CollectorRegistry())
    with pytest.raises(DependencyUnavailable):
        await database.fetchrow("SELECT 1")
    await database.close()


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM no_such_table", DependencyUnavailable),
        ("SELECT no_such_function()", DependencyUnavailable),
        ("SELECT * FROM no_such_schema.t", DependencyUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '57P03'; END $$", DependencyUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '53300'; END $$", DependencyUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '25006'; END $$", DependencyUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", DependencyUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", asyncpg.SerializationError),
        ("SELECT 1/0", asyncpg.DivisionByZeroError),
        ("SELECT", None),
        ("SELEC", asyncpg.PostgresSyntaxError),
    ],
)
async def test_what_is_away_and_what_is_wrong(database: Database, sql: str, error: type[Exception] | None) -> None:
    with pytest.raises(error) if error else contextlib.nullcontext():
        await database.run(lambda connection: connection.execute(sql))
    await database.fetchrow("SELECT 1")


async def _recovers(database: Database) -> None:
    """Returns when a call succeeds again. Fails after 5 seconds."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(DependencyUnavailable, TimeLimitExceeded):
                await database.fetchrow("SELECT 1")
                return
            await asyncio.sleep(0.05)


async def test_a_failed_work_is_reported_when_it_is_not_running_any_more(database: Database, database_url: str) -> None:
    """A caller that leaves does not wait for it: the server ends the statement later."""
    reported: list[int] = []
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60%' AND state = 'active'"
    async with pool(database_url) as watcher:

        async def running(number: int) -> None:
            assert await watcher.run(lambda connection: connection.fetchval(sql)) == number

        work = asyncio.create_task(database.fetch("SELECT pg_sleep(60 + $1)", 0, on_failed=lambda: reported.append(1)))
        await eventually(lambda: running(1), within=WITHIN_SECONDS)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await eventually(lambda: reporting(reported, 1), within=WITHIN_SECONDS)
        await running(0)


async def reporting(reported: list[int], number: int) -> None:
    assert len(reported) == number


async def test_what_fails_on_the_server_or_never_reached_it_is_reported(database: Database) -> None:
    reported: list[int] = []
    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.fetch("SELECT 1 / $1::integer", 0, on_failed=lambda: reported.append(1))
    await eventually(lambda: reporting(reported, 1), within=WITHIN_SECONDS)
    async with held(database), held(database):
        waiting = asyncio.create_task(database.fetch("SELECT 1", on_failed=lambda: reported.append(1)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await reporting(reported, 2)
    assert await database.fetch("SELECT 1", on_failed=lambda: reported.append(1))
    await reporting(reported, 2)


async def test_what_may_still_be_running_behind_a_lost_connection_is_not_reported(database_url: str, proxy: Proxy) -> None:
    """The connection is cut, and the server does not know it yet."""
    reported: list[int] = []
    async with pool(through(database_url, proxy.port)) as database:
        work = asyncio.create_task(database.fetch("SELECT pg_sleep(2)", on_failed=lambda: reported.append(1)))
        await asyncio.sleep(0.3)
        await proxy.cut()
        with pytest.raises(DependencyUnavailable):
            await work
        await asyncio.sleep(0.3)
        assert reported == []


async def test_what_did_not_begin_is_reported(database: Database) -> None:
    reported: list[int] = []

    async def call() -> None:
        deadline.begin(-1.0)
        await database.fetch("SELECT 1", on_failed=lambda: reported.append(1))

    with pytest.raises(DeadlineExceeded):
        await asyncio.create_task(call())
    await reporting(reported, 1)


async def test_what_may_still_be_running_is_not_reported(database_url: str, proxy: Proxy) -> None:
    """The server does not answer, so nobody knows."""
    reported: list[int] = []
    async with pool(through(database_url, proxy.port)) as database:
        await database.fetch("SELECT 1")
        proxy.freeze()
        work = asyncio.create_task(database.fetch("SELECT 2", on_failed=lambda: reported.append(1)))
        await asyncio.sleep(0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await asyncio.sleep(1.5 * RELEASE_TIMEOUT_SECONDS)
        assert reported == []
        proxy.thaw()


async def test_a_failed_attempt_to_connect_is_remembered_for_a_moment(database_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be reached, calls do not each try it; a call a moment later does."""
    attempts = 0
    resolve = asyncio.get_running_loop().getaddrinfo

    async def counted(*args: object, **options: object) -> object:
        nonlocal attempts
        attempts += 1
        return await resolve(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", counted)
    await proxy.stop()
    async with pool(through(database_url, proxy.port).replace("127.0.0.1", "localhost")) as database:
        with pytest.raises(DependencyUnavailable):
            await database.fetchrow("SELECT 1")
        before = attempts
        for _ in range(20):
            with pytest.raises(DependencyUnavailable):
                await database.fetchrow("SELECT 1")
        assert attempts == before > 0
        await proxy.start()
        await asyncio.sleep(FAILED_CONNECT_SECONDS)
        await database.fetchrow("SELECT 1")
