"""The pool on a real PostgreSQL: every wait is limited, and every connection is returned."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from servicekit.errors import DeadlineExceeded, DependencyUnavailable, TimeLimitExceeded
from servicekit.stores.postgres import Connection, Database
from tests.servicekit.stores.databases import WITHIN_SECONDS, busy_are, held, hold, options, pool, started, takes, within_call
from tests.support.waiting import eventually


async def test_statements_give_their_rows(database: Database) -> None:
    row = await database.fetchrow("SELECT $1::int AS n", 7)
    assert row is not None
    assert row["n"] == 7
    assert [r["n"] for r in await database.fetch("SELECT * FROM generate_series(1, 3) AS n")] == [1, 2, 3]
    await database.fetchrow("SELECT 1")


async def test_the_pool_is_bounded(database: Database, database_url: str) -> None:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'test'"
    async with pool(database_url, size=1) as watcher:
        seen: list[int] = []
        with takes(0.85, 8.0):
            holding = [asyncio.create_task(hold(database, 0.3)) for _ in range(6)]
            while not all(task.done() for task in holding):
                seen.append(await watcher.run(lambda connection: connection.fetchval(sql)))
                await asyncio.sleep(0.05)
            await asyncio.gather(*holding)
        # The pool keeps its connections, so the last count has them all.
        seen.append(await watcher.run(lambda connection: connection.fetchval(sql)))
        assert max(seen) == seen[-1] == 2 + 1


async def test_the_deadline_bounds_the_wait_for_a_connection(database: Database) -> None:
    async with held(database), held(database):
        with takes(0.05, 5.0), pytest.raises(DeadlineExceeded):
            await within_call(0.1, lambda: database.fetchrow("SELECT 1"))
    await database.fetchrow("SELECT 1")


async def test_the_deadline_bounds_a_statement_and_ends_it_on_the_server(database: Database) -> None:
    await database.fetchrow("SELECT 1")
    with takes(0.05, 4.0), pytest.raises(DeadlineExceeded):
        await within_call(0.1, lambda: hold(database, 30))
    # Well before the server's own time limit.
    await busy_are(database, 0)


async def test_no_time_left_is_no_time(database: Database) -> None:
    with takes(0, 5.0), pytest.raises(DeadlineExceeded):
        await within_call(-1, lambda: hold(database, 30))


async def test_without_a_deadline_the_pools_own_time_counts(database_url: str) -> None:
    async with pool(database_url, seconds=0.2) as database:
        with takes(0.1, 5.0), pytest.raises(TimeLimitExceeded):
            await hold(database, 30)


async def test_a_call_that_waits_for_a_connection_for_the_pools_own_time_has_taken_too_long(database_url: str) -> None:
    async with pool(database_url, size=1, seconds=1) as database:
        outcomes = await asyncio.gather(*(hold(database, 0.4) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), TimeLimitExceeded}


@pytest.mark.parametrize("cancelled", ["by the server's timeout", "by an operator"])
async def test_a_cancelled_statement_has_taken_too_long(database_url: str, cancelled: str) -> None:
    async with pool(database_url, size=1) as database, pool(database_url, size=1) as other:
        if cancelled == "by the server's timeout":
            await database.run(lambda connection: connection.execute("SET statement_timeout = 100"))
        row = await database.fetchrow("SELECT pg_backend_pid()")
        assert row is not None
        holding = asyncio.create_task(hold(database, 30))
        if cancelled == "by an operator":
            await busy_are(other, 1)
            await other.fetchrow("SELECT pg_cancel_backend($1)", row[0])
        with takes(0, 5.0), pytest.raises(TimeLimitExceeded):
            await holding


async def test_cancelling_frees_the_connection(database_url: str) -> None:
    async with pool(database_url, size=1) as database:
        for _ in range(5):
            holding = asyncio.create_task(hold(database, 30))
            await asyncio.sleep(0.05)
            holding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holding
        with takes(0, 5.0):
            await database.fetchrow("SELECT 1")


async def test_a_cancelled_transaction_leaves_nothing(database: Database) -> None:
    await database.run(lambda connection: connection.execute("CREATE TABLE IF NOT EXISTS cancelled (id int)"))

    inserted = asyncio.Event()

    async def insert_and_wait(connection: Connection) -> None:
        await connection.execute("INSERT INTO cancelled VALUES (1)")
        inserted.set()
        await asyncio.sleep(30)

    work = asyncio.create_task(database.transact(insert_and_wait))
    async with asyncio.timeout(WITHIN_SECONDS):
        await inserted.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    row = await database.fetchrow("SELECT count(*) FROM cancelled")
    assert row is not None
    assert row[0] == 0


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    await database.run(lambda connection: connection.execute("CREATE TABLE IF NOT EXISTS whole (id int PRIMARY KEY)"))

    async def insert(connection: Connection) -> None:
        await connection.execute("INSERT INTO whole VALUES (1)")

    async def insert_twice(connection: Connection) -> None:
        await connection.execute("INSERT INTO whole VALUES (2)")
        await connection.execute("INSERT INTO whole VALUES (1)")

    await database.transact(insert)
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.transact(insert_twice)
    assert [row["id"] for row in await database.fetch("SELECT id FROM whole")] == [1]


async def test_a_work_that_leaves_a_transaction_open_gives_back_a_clean_connection(database_url: str) -> None:
    async with pool(database_url, size=1) as database:
        await database.run(lambda connection: connection.execute("BEGIN"))
        in_transaction = await database.run(lambda connection: asyncio.sleep(0, connection.is_in_transaction()))
        assert not in_transaction


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError, ValueError])
async def test_a_call_that_ends_before_its_statement_leaves_no_timeout_running(database_url: str, error: type[BaseException]) -> None:
    """A prepared statement starts PostgreSQL's statement timeout, which would end the connection's next statement."""

    async def ended(connection: Connection) -> None:
        await connection.prepare("SELECT 1")
        raise error

    async with pool(database_url, size=1) as database:
        # Only the server's timeout is short. With a short pool timeout, a busy machine would fail the last statement.
        await database.run(lambda connection: connection.execute("SET statement_timeout = 300"))
        with pytest.raises((asyncio.CancelledError, DependencyUnavailable, ValueError)):
            await database.run(ended)
        await asyncio.sleep(0.6)
        assert await database.fetchrow("SELECT 2") is not None


async def test_a_statement_whose_table_was_changed_meanwhile_is_run_again(database_url: str) -> None:
    """In a transaction, asyncpg cannot prepare the statement again: the whole transaction must run again."""
    async with pool(database_url, size=1) as database, pool(database_url, size=1) as migrator:
        await migrator.run(lambda connection: connection.execute("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)"))
        runs = 0

        async def read(connection: Connection) -> asyncpg.Record | None:
            nonlocal runs
            runs += 1
            return await connection.fetchrow("SELECT * FROM changing")

        await database.transact(read)
        await migrator.run(lambda connection: connection.execute("ALTER TABLE changing ADD COLUMN b text DEFAULT 'new'"))
        row = await database.transact(read)
        assert row is not None
        assert dict(row) == {"a": 1, "b": "new"}
        assert runs == 3
        # Outside of a transaction, asyncpg prepares the statement again by itself.
        await database.fetchrow("SELECT * FROM changing")
        await migrator.run(lambda connection: connection.execute("ALTER TABLE changing DROP COLUMN b"))
        row = await database.fetchrow("SELECT * FROM changing")
        assert row is not None
        assert dict(row) == {"a": 1}


async def test_wrong_arguments_are_our_own_fault(database: Database) -> None:
    with pytest.raises(asyncpg.DataError):
        await database.fetchrow("SELECT $1::int", "seven")
    with pytest.raises(asyncpg.InterfaceError):
        await database.fetchrow("SELECT $1::int")


async def test_the_pools_figures(database_url: str) -> None:
    registry = CollectorRegistry()
    async with started(Database(options(database_url), registry)) as database:

        def figures() -> tuple[float | None, ...]:
            return tuple(registry.get_sample_value("db_pool_connections", {"state": state}) for state in ("idle", "in_use"))

        assert figures() == (0, 0)
        async with held(database):
            assert figures() == (0, 1)
        assert figures() == (1, 0)


async def test_who_waits_for_a_connection_is_counted_and_timed(database_url: str) -> None:
    registry = CollectorRegistry()
    async with started(Database(options(database_url, pool=1), registry)) as database:

        async def one_waits() -> None:
            assert registry.get_sample_value("db_pool_waiting") == registry.get_sample_value("db_pool_connections_limit") == 1

        async with held(database):
            waiting = asyncio.create_task(hold(database, 0))
            await eventually(one_waits, within=WITHIN_SECONDS, every=0.01)
            await asyncio.sleep(0.1)
        await waiting
        assert registry.get_sample_value("db_pool_waiting") == 0
        assert registry.get_sample_value("db_pool_wait_seconds_count") == 2
        assert (registry.get_sample_value("db_pool_wait_seconds_sum") or 0) > 0.05


async def test_the_server_itself_bounds_a_statement(database_url: str) -> None:
    """A client that has died can no longer cancel its statement."""
    async with pool(database_url, seconds=7.5) as database:
        row = await database.fetchrow("SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')")
        assert row is not None
        assert tuple(row) == ("7500ms", "7500ms")


@pytest.mark.parametrize("message", ["postmaster was shut down, exiting", "failure on connection marked as essential: 127.0.0.1:5432"])
async def test_a_server_of_citus_that_is_away_is_a_dependency_that_is(database: Database, message: str) -> None:
    """Citus raises these as internal errors."""
    with pytest.raises(DependencyUnavailable):
        await database.fetch(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = '{message}'; END $$")
    with pytest.raises(asyncpg.InternalServerError):
        await database.fetch("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'cache lookup failed'; END $$")


async def test_a_server_of_citus_that_refuses_a_generic_plan_is_not_asked_for_one_again(database_url: str) -> None:
    """The tables were distributed while the service ran."""
    refused = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'could not create distributed plan'; END $$"
    mode = "SELECT current_setting('plan_cache_mode') AS mode, current_setting('statement_timeout') AS timeout"
    async with started(Database(replace(options(database_url), generic_plans=True), CollectorRegistry())) as database:
        for expected in ("force_generic_plan", "auto", "auto"):
            row = await database.fetchrow(mode)
            assert row is not None
            assert tuple(row) == (expected, "10s")
            with pytest.raises(DependencyUnavailable):
                await database.fetch(refused)
