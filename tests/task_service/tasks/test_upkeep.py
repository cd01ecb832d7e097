"""The cleanup deletes expired rows and nothing else. Any replica can run it, one at a time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database, DatabaseOptions
from servicekit.stores.upkeep import Upkeep
from task_service.tasks.domain import Actor
from task_service.tasks.errors import TaskNotFound
from task_service.tasks.repository import PostgresTasks, removals
from task_service.tasks.writes import Creation, Undeletion
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, delete, insert, new_id

BIN_DAYS, CHANGE_DAYS = 30, 7
# How far the tests' rows are before or after the end of their retention.
MOMENT = timedelta(minutes=1)


@pytest.fixture
def cleanup(database: Database) -> Upkeep:
    return Upkeep(database, removals(bin_days=BIN_DAYS, change_days=CHANGE_DAYS))


async def _age(database: Database, sql: str, actor: Actor, age: timedelta) -> None:
    await database.fetchrow(sql, actor.user_id, age)


async def test_the_bin_is_emptied_after_its_days(database: Database, tasks: PostgresTasks, cleanup: Upkeep, actor: Actor) -> None:
    kept, over, live = [await insert(tasks, actor, FIELDS) for _ in range(3)]
    for task in (kept, over):
        await delete(tasks, actor, task.id)
    aged = "UPDATE task.tasks SET deleted_at = deleted_at - $2::interval, created_at = created_at - $2 WHERE user_id = $1 AND id = $3"
    await database.fetchrow(aged, actor.user_id, timedelta(days=BIN_DAYS) - MOMENT, kept.id)
    await database.fetchrow(aged, actor.user_id, timedelta(days=BIN_DAYS) + MOMENT, over.id)
    await cleanup.round()
    rows = await database.fetch("SELECT id FROM task.tasks WHERE user_id = $1", actor.user_id)
    assert {row["id"] for row in rows} == {kept.id, live.id}
    # The cleanup of the bin logs no change, because the user's deletion is in the log already.
    assert len(await database.fetch("SELECT FROM task.changes WHERE user_id = $1", actor.user_id)) == 5


async def test_a_task_that_is_removed_while_it_is_brought_back_is_not_found(
    database: Database, database_url: str, tasks: PostgresTasks, actor: Actor
) -> None:
    task = await insert(tasks, actor, FIELDS)
    await delete(tasks, actor, task.id)
    await _age(database, "UPDATE task.tasks SET deleted_at = deleted_at - $2::interval WHERE user_id = $1", actor, timedelta(days=BIN_DAYS + 1))
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute(f"SELECT task.sweep('{BIN_DAYS} days', '{CHANGE_DAYS} days', 10)")
        undeleting = asyncio.create_task(tasks.write(actor, [Undeletion(task.id)]))
        await eventually(lambda: _require_waiting(database), within=5)
    await connection.close()
    with pytest.raises(TaskNotFound):
        await undeleting
    assert len(await database.fetch("SELECT FROM task.changes WHERE user_id = $1", actor.user_id)) == 2


async def _require_waiting(database: Database) -> None:
    """Fails unless a connection waits for a lock that another one holds."""
    assert await database.fetch("SELECT FROM pg_locks WHERE NOT granted")


async def test_the_log_loses_its_beginning_after_its_days(database: Database, tasks: PostgresTasks, cleanup: Upkeep, actor: Actor) -> None:
    for _ in range(5):
        await insert(tasks, actor, FIELDS)
    aged = "UPDATE task.changes SET at = at - $2::interval WHERE user_id = $1 AND seq <= $3"
    await database.fetchrow(aged, actor.user_id, timedelta(days=CHANGE_DAYS) + MOMENT, 3)
    await cleanup.round()
    rows = await database.fetch("SELECT seq FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    assert [row["seq"] for row in rows] == [4, 5]


async def test_answers_are_forgotten_after_a_day(database: Database, tasks: PostgresTasks, cleanup: Upkeep, actor: Actor) -> None:
    for key in ("old", "new"):
        await tasks.write(actor, [Creation(new_id(), FIELDS)], Idempotency(key, b"hash"))
    aged = "UPDATE task.idempotency_keys SET created_at = created_at - $2::interval WHERE user_id = $1 AND key = 'old'"
    await _age(database, aged, actor, timedelta(days=1) + MOMENT)
    await cleanup.round()
    rows = await database.fetch("SELECT key FROM task.idempotency_keys WHERE user_id = $1", actor.user_id)
    assert [row["key"] for row in rows] == ["new"]


async def test_a_round_goes_on_until_nothing_is_left(database: Database, tasks: PostgresTasks, cleanup: Upkeep, actor: Actor) -> None:
    await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(25)])
    await _age(database, "UPDATE task.changes SET at = at - $2::interval WHERE user_id = $1", actor, timedelta(days=CHANGE_DAYS + 1))
    assert await cleanup.remove(10) == 10
    assert await cleanup.remove(10) == 10
    assert await cleanup.remove(10) == 5
    assert await cleanup.remove(10) == 0


@pytest.fixture
async def serving(database_url: str) -> AsyncIterator[Database]:
    """One connection with the settings of the service."""
    database = Database(DatabaseOptions(database_url, "tests", 1, 100, timeout_seconds=30, generic_plans=True), CollectorRegistry())
    await database.start()
    yield database
    await database.close()


FILL_LOG = """
INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
SELECT $1, n, 1, $1, 1, '{}', '{}', $1, $1, '', now() - interval '1 day' FROM generate_series(1000, 100000) AS n
"""


@pytest.mark.parametrize("sql", ["SELECT task.sweep('30 days', '7 days', 1000)", "SELECT task.remove_rows($1, 1000)"])
async def test_removals_do_not_read_a_whole_log(serving: Database, tasks: PostgresTasks, actor: Actor, sql: str) -> None:
    """Also on a connection with generic plans, which the service uses. PostgreSQL counts the scans of a whole table."""
    await insert(tasks, actor, FIELDS)
    another = new_id()
    await serving.fetch(FILL_LOG, another)
    await serving.fetch("ANALYZE task.changes")
    await serving.fetch("UPDATE task.counters SET closed_at = now() WHERE user_id = $1", actor.user_id)
    before = await _scans_of_the_log(serving)
    await serving.fetch(sql, *([actor.user_id] if "$1" in sql else []))
    assert await _scans_of_the_log(serving) == before
    await serving.fetch("DELETE FROM task.changes WHERE user_id = $1", another)


async def _scans_of_the_log(database: Database) -> int:
    await database.fetch("SELECT pg_stat_force_next_flush()")
    return int((await database.fetch("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'changes'"))[0][0])


async def test_another_that_sweeps_just_now_is_left_alone(
    database: Database, database_url: str, tasks: PostgresTasks, cleanup: Upkeep, actor: Actor
) -> None:
    await insert(tasks, actor, FIELDS)
    await _age(database, "UPDATE task.changes SET at = at - $2::interval WHERE user_id = $1", actor, timedelta(days=CHANGE_DAYS + 1))
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('task sweep', 0))")
        assert await cleanup.remove(10) == 0
    await connection.close()
    assert await cleanup.remove(10) == 1
