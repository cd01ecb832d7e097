"""The pool of a service behind a real PgBouncer in transaction mode: its guarantees hold on sessions that it shares."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
import structlog.testing
from prometheus_client import CollectorRegistry

from devstack.stack import Stack
from servicekit.errors import DeadlineExceeded
from servicekit.stores.postgres import Connection, Database, DatabaseOptions
from servicekit.stores.session import TIMEOUTS, Pooler
from tests.pgbouncer.conftest import CONNECTIONS
from tests.servicekit.stores.databases import WITHIN_SECONDS, hold, started, takes, within_call
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow("starts a system for each way to use PgBouncer")

ROUNDS = 20
COUNT_SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"


async def test_the_deadline_ends_a_statement_on_the_server(database: Database, breakable: Stack) -> None:
    await database.fetchrow("SELECT 1")
    with takes(0.05, 4.0), pytest.raises(DeadlineExceeded):
        await within_call(0.1, lambda: hold(database, 30))
    postgres = await asyncpg.connect(breakable.state.database_url)

    async def none_sleeps() -> None:
        assert await postgres.fetchval(COUNT_SLEEPING) == 0

    try:
        # Before the role's own limit of 5 s.
        await eventually(none_sleeps, within=2.0)
    finally:
        await postgres.close()


async def test_the_role_has_the_limits_that_a_connection_cannot_set(database: Database) -> None:
    for name in TIMEOUTS:
        assert (await database.fetch("SELECT current_setting($1)", name))[0][0] == "5s"


async def test_a_role_without_limits_is_reported_once(pooled_migrator_url: str, pooler: Pooler) -> None:
    options = DatabaseOptions(pooled_migrator_url, "test", CONNECTIONS, 100, 10.0, pooler=pooler)
    with structlog.testing.capture_logs() as lines:
        async with started(Database(options, CollectorRegistry())) as database:
            await asyncio.gather(*(hold(database, 0.1) for _ in range(CONNECTIONS)))
    assert lines == [{"event": "database_role_unlimited", "log_level": "warning", "settings": list(TIMEOUTS)}]


async def test_transactions_on_shared_sessions_see_only_their_own(database: Database) -> None:
    """Each of more transactions than sessions sets a value, waits, and reads it again. Other statements run between them."""

    async def transaction(value: str) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute("SELECT set_config('tests.value', $1, true)", value)
            await connection.execute("SELECT pg_sleep(0.001)")
            assert await connection.fetchval("SELECT current_setting('tests.value')") == value

        await database.transact(work)
        # Nothing of a transaction is left for the next user of its session.
        assert not await database.run(lambda connection: connection.fetchval("SELECT current_setting('tests.value', true)"))

    for _ in range(ROUNDS):
        await asyncio.gather(*(transaction(uuid4().hex) for _ in range(CONNECTIONS)))


async def test_callers_that_leave_free_their_sessions(database: Database) -> None:
    for _ in range(ROUNDS):
        holding = [asyncio.create_task(hold(database, 30)) for _ in range(CONNECTIONS)]
        await asyncio.sleep(0.02)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
    with takes(0, WITHIN_SECONDS):
        await asyncio.gather(*(database.fetchrow("SELECT 1") for _ in range(CONNECTIONS)))


async def test_types_are_looked_up_on_shared_sessions(database: Database) -> None:
    """asyncpg asks for the definition of a type that it does not know, and forgets a statement without a name while it does."""
    ranges = await asyncio.gather(*(database.fetchrow("SELECT t, $1::int AS n FROM task.feed AS t", number) for number in range(CONNECTIONS)))
    assert [row is not None and row["n"] for row in ranges] == list(range(CONNECTIONS))
