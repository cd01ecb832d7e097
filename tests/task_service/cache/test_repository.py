"""The state of the cache in real PostgreSQL, and the writes that compare it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from servicekit.stores.postgres import Database
from task_service.cache.domain import Mode, State
from task_service.cache.repository import PostgresCacheState
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.errors import CacheStateChanged
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Deletion, Update
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, WITHIN_SECONDS, insert


@pytest.fixture
def repository(database: Database) -> PostgresCacheState:
    return PostgresCacheState(database)


@pytest.fixture
async def off(repository: PostgresCacheState, database: Database) -> State:
    await database.fetchrow("UPDATE task.cache_state SET unreachable_until = '-infinity'")
    state = await repository.set_off((await repository.get()).generation)
    assert (state.mode, state.process, state.replication, state.fenced) == (Mode.OFF, "", "", False)
    return state


@pytest.fixture
async def armed(repository: PostgresCacheState, off: State) -> State:
    state = await repository.set_armed(off.generation, uuid4(), "one", "r1")
    assert (state.mode, state.process, state.replication, state.fenced) == (Mode.ARMED, "one", "r1", True)
    return state


@pytest.fixture
async def on(repository: PostgresCacheState, armed: State) -> State:
    state = await _on(repository, armed)
    assert state == State(armed.generation, Mode.ON, "one", "r1")
    return state


@pytest.fixture
async def task(database: Database, actor: Actor) -> Task:
    return await insert(PostgresTasks(database), actor, FIELDS)


async def _on(repository: PostgresCacheState, armed: State) -> State:
    async with asyncio.timeout(WITHIN_SECONDS):
        while (state := await repository.set_on(armed.generation)).mode is Mode.ARMED:
            # Other transactions of the same PostgreSQL have to end.
            await asyncio.sleep(0.01)
    return state


async def test_a_new_database_begins_off(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM task.cache_state") == 1
    await connection.close()


async def test_off_comes_with_another_generation_and_only_once(repository: PostgresCacheState, on: State) -> None:
    answers = await asyncio.gather(*(repository.set_off(on.generation) for _ in range(10)))
    assert len(set(answers)) == 1
    assert answers[0].mode is Mode.OFF
    assert answers[0].generation != on.generation
    assert await repository.set_off(answers[0].generation) == answers[0]


async def test_armed_and_on_need_the_generation_that_they_follow(repository: PostgresCacheState, off: State) -> None:
    assert await repository.set_armed(uuid4(), uuid4(), "one", "r1") == off
    assert await repository.set_on(off.generation) == off
    armed = await repository.set_armed(off.generation, uuid4(), "one", "r1")
    assert await repository.set_armed(off.generation, uuid4(), "two", "r1") == armed
    assert await repository.set_on(uuid4()) == armed


async def test_while_redis_is_reported_unreachable_nobody_sets_armed(repository: PostgresCacheState, database: Database, off: State) -> None:
    assert await repository.report_unreachable() == off
    assert await repository.set_armed(off.generation, uuid4(), "one", "r1") == off

    async def armed() -> None:
        assert (await repository.set_armed(off.generation, uuid4(), "one", "r1")).mode is Mode.ARMED

    await eventually(armed, within=WITHIN_SECONDS)


async def test_a_report_far_ahead_is_that_of_a_wrong_clock(repository: PostgresCacheState, database: Database, off: State) -> None:
    await database.fetchrow("UPDATE task.cache_state SET unreachable_until = now() + interval '1 day'")
    assert (await repository.set_armed(off.generation, uuid4(), "one", "r1")).mode is Mode.ARMED


@pytest.mark.parametrize("began", ["before ARMED was set", "while ARMED was being set"])
async def test_on_waits_for_every_write_that_may_have_seen_off(
    repository: PostgresCacheState, database_url: str, off: State, actor: Actor, task: Task, began: str
) -> None:
    """In the second case the write has a greater transaction id than ARMED, and has not seen ARMED all the same."""
    async with _transaction(database_url) as writing, _transaction(database_url) as arming:
        if began == "before ARMED was set":
            await _write(writing, actor, task, off)
            await _arm(arming, off)
        else:
            await _arm(arming, off)
            await _write(writing, actor, task, off)
        await arming.execute("COMMIT")
        armed = await repository.get()
        assert armed.mode is Mode.ARMED
        for _ in range(10):
            assert (await repository.set_on(armed.generation)).mode is Mode.ARMED
        await writing.execute("COMMIT")
    assert (await _on(repository, armed)).mode is Mode.ON


async def _arm(connection: asyncpg.Connection, off: State) -> None:  # type: ignore[type-arg]
    await connection.execute("SELECT task.cache_armed($1, $2, 'one', 'r1')", off.generation, uuid4())


async def _write(connection: asyncpg.Connection, actor: Actor, task: Task, state: State) -> None:  # type: ignore[type-arg]
    await connection.execute(
        "SELECT task.write($1, 3::smallint, $2, ROW($1, $3, '')::task.actor, NULL, NULL, 1000000, $4, $5)",
        actor.user_id,
        f'[{{"n": 0, "id": "{task.id}"}}]',
        actor.session_id,
        state.generation,
        state.fenced,
    )


@asynccontextmanager
async def _transaction(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_write_of_another_state_is_refused_and_changes_nothing(
    repository: PostgresCacheState, database: Database, on: State, actor: Actor, task: Task
) -> None:
    tasks = PostgresTasks(database)
    update, deletion = Update(task.id, TaskFields(title="new"), ["title"]), Deletion(task.id)
    for state in (State(uuid4(), Mode.ON, "one", "r1"), State(uuid4(), Mode.OFF, "", ""), State(on.generation, Mode.OFF, "", "")):
        for operation in (update, deletion):
            with pytest.raises(CacheStateChanged):
                await tasks.write(actor, [operation], state=state)
    assert await tasks.find(task.user_id, task.id) == task
    # ARMED and ON have the same generation: a write that was fenced in ARMED is also good in ON.
    written = await tasks.write(actor, [update], state=State(on.generation, Mode.ARMED, "one", "r1"))
    assert written.tasks[0].version == task.version + 1
    after = await repository.set_off(on.generation)
    with pytest.raises(CacheStateChanged):
        await tasks.write(actor, [update], state=on)
    assert (await tasks.write(actor, [update], state=after)).tasks[0].title == "new"


ASK = {
    "get": lambda repository, _: repository.get(),
    "off": lambda repository, _: repository.set_off(uuid4()),
    "armed": lambda repository, state: repository.set_armed(state.generation, uuid4(), "one", "r1"),
    "on": lambda repository, state: repository.set_on(state.generation),
    "unreachable": lambda repository, _: repository.report_unreachable(),
}


@pytest.mark.parametrize("asked", ASK)
async def test_no_answer_relies_on_a_row_from_before_a_failover(repository: PostgresCacheState, database: Database, on: State, asked: str) -> None:
    epoch = await _epoch(database)
    await database.fetchrow("UPDATE task.cache_state SET server = 'of before'")
    with capture_logs() as logs:
        state = await ASK[asked](repository, on)
    assert [line["event"] for line in logs] == ["database_failover"]
    assert (state.mode, state.process, state.replication) == (Mode.OFF, "", "")
    assert state.generation != on.generation
    assert await _epoch(database) != epoch
    with capture_logs() as logs:
        assert await repository.get() == state
    assert logs == []


async def test_replicas_that_notice_a_failover_at_once_give_one_epoch(repository: PostgresCacheState, database: Database, on: State) -> None:
    await database.fetchrow("UPDATE task.cache_state SET server = 'of before'")
    states = await asyncio.gather(*(repository.get() for _ in range(8)))
    assert len({state.generation for state in states}) == 1


async def test_a_role_that_may_not_ask_for_the_identity_of_the_server_does_without(database_url: str) -> None:
    async with _transaction(database_url) as connection:
        await connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; GRANT USAGE ON SCHEMA task TO task_service")
        await connection.execute("SET LOCAL ROLE task_service")
        assert await connection.fetchval("SELECT task.server()") == "unknown"


async def _epoch(database: Database) -> object:
    row = await database.fetchrow("SELECT epoch FROM task.feed")
    assert row is not None
    return row[0]
