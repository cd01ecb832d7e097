"""The cache never returns a task older than an acknowledged write. The tests force the races by stopping the repository at the critical moments."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis as Client

from task_service.tasks.cache import VALUE
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.messages import to_message
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Update
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, WITHIN_SECONDS, Replica, decode, delete, find, insert
from tests.task_service.tasks.cached.conftest import Stopping, key_of, require_fences, require_hit, retitle, title_of


async def test_a_second_read_does_not_ask_postgres(replica: Replica, below: Stopping, task: Task) -> None:
    for _ in range(2):
        assert await find(replica.cache, task.user_id, task.id) == task
    assert below.reads == 1
    assert (replica.reads("absent"), replica.reads("hit")) == (1, 1)


async def test_a_write_leaves_its_value(replica: Replica, below: Stopping, actor: Actor, task: Task) -> None:
    await retitle(replica, actor, task, "new")
    await require_hit(replica, task, "new")
    assert below.reads == 0


async def test_a_write_returns_the_bytes_that_it_has_stored(replica: Replica, actor: Actor, task: Task) -> None:
    written = await replica.cache.write(actor, [Update(task.id, TaskFields(title="new"), ["title"])])
    assert written.encoded is not None
    assert decode(written.encoded) == written.tasks[0]
    assert await replica.cache.find(task.user_id, task.id) == written.encoded


async def test_a_fill_that_is_overtaken_by_a_write_does_not_count(
    replica: Replica, below: Stopping, other: Replica, client: Client, actor: Actor, task: Task
) -> None:
    """The stale fill: a slow reader reads the old row, and fills it in after another replica's write is done and its value was evicted."""

    async def overtake() -> None:
        below.after_read = None
        await retitle(other, actor, task, "new")
        await client.delete(key_of(other, task))

    below.after_read = overtake
    assert await title_of(replica, task) == FIELDS.title
    assert await title_of(other, task) == "new"
    assert await title_of(replica, task) == "new"


async def test_nothing_is_filled_while_a_write_is_under_way(replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task) -> None:
    async def read_before_the_commit() -> None:
        for _ in range(2):
            assert await title_of(other, task) == FIELDS.title
        assert (other.reads("fenced"), other.reads("hit")) == (2, 0)

    below.before_write = read_before_the_commit
    await retitle(replica, actor, task, "new")
    await require_hit(other, task, "new")


async def test_a_write_deletes_the_value_before_it_begins(
    replica: Replica, below: Stopping, other: Replica, client: Client, actor: Actor, task: Task
) -> None:
    await title_of(other, task)

    async def look() -> None:
        assert await client.get(key_of(other, task)) is None

    below.before_write = look
    await retitle(replica, actor, task, "new")


async def test_a_writer_that_dies_between_commit_and_finish_leaves_no_old_value(
    replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task
) -> None:
    await title_of(other, task)

    async def die() -> None:
        raise ConnectionResetError

    below.after_commit = die
    with pytest.raises(ConnectionResetError):
        await retitle(replica, actor, task, "new")
    for _ in range(2):
        assert await title_of(other, task) == "new"
    # The fence stays: only the next generation caches this task again.
    assert other.reads("fenced") == 2


async def test_of_two_writes_at_once_neither_leaves_a_value(replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task) -> None:
    async def overtake() -> None:
        below.before_write = None
        await retitle(other, actor, task, "first")
        assert await title_of(other, task) == "first"
        assert other.reads("fenced") == 1

    below.before_write = overtake
    await retitle(replica, actor, task, "second")
    assert await title_of(other, task) == "second"
    assert other.reads("absent") == 1
    await require_hit(other, task, "second")


async def test_a_refused_write_leaves_no_fence(replica: Replica, actor: Actor, task: Task) -> None:
    with pytest.raises(Exception, match="changed meanwhile"):
        await replica.cache.write(actor, [Update(task.id, TaskFields(title="new"), ["title"], etags=('"77"',))])
    await replica.cache.close()
    await title_of(replica, task)
    await require_hit(replica, task, FIELDS.title)


async def test_a_deleted_task_is_not_answered_from_the_cache(replica: Replica, actor: Actor, task: Task) -> None:
    await title_of(replica, task)
    await delete(replica.cache, actor, task.id)
    assert await replica.cache.find(task.user_id, task.id) is None


async def test_a_write_of_several_tasks_leaves_no_old_values(replica: Replica, actor: Actor, task: Task, tasks: PostgresTasks) -> None:
    second = await insert(tasks, actor, FIELDS)
    for one in (task, second):
        await title_of(replica, one)
    await replica.cache.write(actor, [Update(one.id, TaskFields(title="new"), ["title"]) for one in (task, second, task)])
    for one in (task, second):
        assert await title_of(replica, one) == "new"
        await require_hit(replica, one, "new")


async def test_a_caller_that_leaves_after_the_commit_leaves_no_fence(
    replica: Replica, other: Replica, actor: Actor, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing = asyncio.Event()
    finish = replica.values.finish

    async def slow_finish(*args: object) -> None:
        monkeypatch.setattr(replica.values, "finish", finish)
        finishing.set()
        await asyncio.sleep(10)

    monkeypatch.setattr(replica.values, "finish", slow_finish)
    call = asyncio.create_task(retitle(replica, actor, task, "new"))
    await finishing.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await replica.cache.close()
    assert await title_of(other, task) == "new"
    await require_hit(other, task, "new")


async def test_a_caller_that_leaves_during_the_write_leaves_no_fence_when_the_write_has_ended(
    replica: Replica, other: Replica, actor: Actor, task: Task, database_url: str
) -> None:
    blocker = await asyncpg.connect(database_url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT FROM task.counters WHERE user_id = $1 FOR UPDATE", actor.user_id)
    # Another test of the same generation may have left one.
    assert replica.state.relied_on is not None
    before = await replica.values.keep(replica.state.relied_on)
    assert before is not None
    call = asyncio.create_task(retitle(replica, actor, task, "new"))
    await eventually(lambda: require_fences(replica, before + 1), within=WITHIN_SECONDS)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: require_fences(replica, before), within=WITHIN_SECONDS)
    await transaction.rollback()
    await blocker.close()
    assert await title_of(other, task) == FIELDS.title
    await require_hit(other, task, FIELDS.title)


async def test_a_cancelled_reader_does_not_take_the_answer_from_another(replica: Replica, task: Task) -> None:
    first = asyncio.create_task(title_of(replica, task))
    second = asyncio.create_task(title_of(replica, task))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == task.title


async def test_values_come_back_as_they_went(replica: Replica, tasks: PostgresTasks, actor: Actor) -> None:
    made = await insert(tasks, actor, replace(FIELDS, title='"\\ \u2028 \N{GRINNING FACE}', due_date=None, labels=()))
    for _ in range(2):
        assert await find(replica.cache, actor.user_id, made.id) == made


@pytest.mark.parametrize("wrong", ["encoding", "generation", "user", "task", "lease", "nothing"])
async def test_what_does_not_begin_as_it_must_is_a_miss(replica: Replica, client: Client, task: Task, wrong: str) -> None:
    assert replica.state.relied_on is not None
    parts = {"encoding": VALUE, "generation": replica.state.relied_on.generation.bytes, "user": task.user_id.bytes, "task": task.id.bytes}
    parts |= {"encoding": VALUE[:-1] + b"\xff"} if wrong == "encoding" else {wrong: uuid4().bytes} if wrong in parts else {}
    held = b"".join(parts.values()) + to_message(task._replace(title="wrong")).SerializeToString()
    await client.set(key_of(replica, task), {"lease": b"another's", "nothing": b""}.get(wrong, held), px=60_000)
    assert await title_of(replica, task) == task.title
    assert replica.reads("hit") == 0
