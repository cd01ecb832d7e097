"""The cache never returns a task older than an acknowledged write. The tests force the races by stopping the repository at the critical moments."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as Client

from devstack.stack import Stack
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from task_service.cache.domain import Mode, State
from task_service.tasks.cache import VALUE
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.messages import to_message
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Operations, Update, Written
from tests.servicekit.stores.databases import through
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, WITHIN_SECONDS, Clock, Replica, decode, delete, find, insert, update

Hook = Callable[[], Awaitable[None]]


class Stopping(PostgresTasks):
    """The repository, with hooks at the moments at which races happen."""

    def __init__(self, tasks: PostgresTasks) -> None:
        super().__init__(tasks._database)
        self.after_read: Hook | None = None
        self.before_write: Hook | None = None
        self.after_commit: Hook | None = None
        self.reads = 0
        self.writes = 0

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        self.reads += 1
        task = await super().find(user_id, task_id)
        await _run(self.after_read)
        return task

    async def write(
        self,
        actor: Actor,
        operations: Operations,
        idempotency: Idempotency | None = None,
        *,
        state: State | None = None,
        on_failed: Callable[[], None] | None = None,
    ) -> Written:
        await _run(self.before_write)
        self.writes += 1
        written = await super().write(actor, operations, idempotency, state=state, on_failed=on_failed)
        await _run(self.after_commit)
        return written


async def _run(hook: Hook | None) -> None:
    if hook is not None:
        await hook()


@pytest.fixture
def below(tasks: PostgresTasks) -> Stopping:
    return Stopping(tasks)


@pytest.fixture
async def replica(below: Stopping, database: Database, redis: Redis) -> Replica:
    """The replica under test. The cache is ON."""
    replica = Replica(below, database, redis)
    await replica.switch_on()
    return replica


@pytest.fixture
async def other(replica: Replica, tasks: PostgresTasks, database: Database, system: Stack) -> AsyncIterator[Replica]:
    """Another replica, with its own connections."""
    redis = Redis(system.state.redis_url, CollectorRegistry())
    await redis.start()
    other = Replica(tasks, database, redis)
    await other.switch_on()
    yield other
    await redis.close()


@pytest.fixture
async def client(system: Stack) -> AsyncIterator[Client]:
    client = Client.from_url(system.state.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def task(tasks: PostgresTasks, actor: Actor) -> Task:
    return await insert(tasks, actor, FIELDS)


async def _title(replica: Replica, task: Task) -> str:
    found = await find(replica.cache, task.user_id, task.id)
    assert found is not None
    return found.title


async def _require_hit(replica: Replica, task: Task, title: str) -> None:
    hits = replica.reads("hit") or 0
    assert await _title(replica, task) == title
    assert replica.reads("hit") == hits + 1, "not from the cache"


def _key(replica: Replica, task: Task) -> str:
    assert replica.state.relied_on is not None
    return f"task:3:{replica.state.relied_on.generation}:{task.user_id}:{task.id}"


async def _retitle(replica: Replica, actor: Actor, task: Task, title: str) -> None:
    assert await update(replica.cache, actor, task.id, TaskFields(title=title), ["title"]) is not None


async def test_a_second_read_does_not_ask_postgres(replica: Replica, below: Stopping, task: Task) -> None:
    for _ in range(2):
        assert await find(replica.cache, task.user_id, task.id) == task
    assert below.reads == 1
    assert (replica.reads("absent"), replica.reads("hit")) == (1, 1)


async def test_a_write_leaves_its_value(replica: Replica, below: Stopping, actor: Actor, task: Task) -> None:
    await _retitle(replica, actor, task, "new")
    await _require_hit(replica, task, "new")
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
        await _retitle(other, actor, task, "new")
        await client.delete(_key(other, task))

    below.after_read = overtake
    assert await _title(replica, task) == FIELDS.title
    assert await _title(other, task) == "new"
    assert await _title(replica, task) == "new"


async def test_nothing_is_filled_while_a_write_is_under_way(replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task) -> None:
    async def read_before_the_commit() -> None:
        for _ in range(2):
            assert await _title(other, task) == FIELDS.title
        assert (other.reads("fenced"), other.reads("hit")) == (2, 0)

    below.before_write = read_before_the_commit
    await _retitle(replica, actor, task, "new")
    await _require_hit(other, task, "new")


async def test_a_write_deletes_the_value_before_it_begins(
    replica: Replica, below: Stopping, other: Replica, client: Client, actor: Actor, task: Task
) -> None:
    await _title(other, task)

    async def look() -> None:
        assert await client.get(_key(other, task)) is None

    below.before_write = look
    await _retitle(replica, actor, task, "new")


async def test_a_writer_that_dies_between_commit_and_finish_leaves_no_old_value(
    replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task
) -> None:
    await _title(other, task)

    async def die() -> None:
        raise ConnectionResetError

    below.after_commit = die
    with pytest.raises(ConnectionResetError):
        await _retitle(replica, actor, task, "new")
    for _ in range(2):
        assert await _title(other, task) == "new"
    # The fence stays: only the next generation caches this task again.
    assert other.reads("fenced") == 2


async def test_of_two_writes_at_once_neither_leaves_a_value(replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task) -> None:
    async def overtake() -> None:
        below.before_write = None
        await _retitle(other, actor, task, "first")
        assert await _title(other, task) == "first"
        assert other.reads("fenced") == 1

    below.before_write = overtake
    await _retitle(replica, actor, task, "second")
    assert await _title(other, task) == "second"
    assert other.reads("absent") == 1
    await _require_hit(other, task, "second")


async def test_a_refused_write_leaves_no_fence(replica: Replica, actor: Actor, task: Task) -> None:
    with pytest.raises(Exception, match="changed meanwhile"):
        await replica.cache.write(actor, [Update(task.id, TaskFields(title="new"), ["title"], etags=('"77"',))])
    await replica.cache.close()
    await _title(replica, task)
    await _require_hit(replica, task, FIELDS.title)


async def test_if_redis_loses_the_fences_nothing_is_filled_in_their_generation(
    replica: Replica, below: Stopping, other: Replica, client: Client, actor: Actor, task: Task
) -> None:
    async def flush_and_read() -> None:
        below.before_write = None
        await client.delete(_key(other, task).rpartition(f":{task.user_id}")[0])
        for _ in range(2):
            assert await _title(other, task) == FIELDS.title

    below.before_write = flush_and_read
    await _retitle(replica, actor, task, "new")
    assert await _title(other, task) == "new"
    await other.state.round()
    assert other.state.relied_on is not None
    assert other.state.relied_on.mode is Mode.OFF


async def test_a_deleted_task_is_not_answered_from_the_cache(replica: Replica, actor: Actor, task: Task) -> None:
    await _title(replica, task)
    await delete(replica.cache, actor, task.id)
    assert await replica.cache.find(task.user_id, task.id) is None


async def test_a_write_of_several_tasks_leaves_no_old_values(replica: Replica, actor: Actor, task: Task, tasks: PostgresTasks) -> None:
    second = await insert(tasks, actor, FIELDS)
    for one in (task, second):
        await _title(replica, one)
    await replica.cache.write(actor, [Update(one.id, TaskFields(title="new"), ["title"]) for one in (task, second, task)])
    for one in (task, second):
        assert await _title(replica, one) == "new"
        await _require_hit(replica, one, "new")


async def test_what_a_replica_writes_that_is_cut_off_from_redis_is_seen_at_once(
    replica: Replica, tasks: PostgresTasks, database: Database, system: Stack, actor: Actor, task: Task
) -> None:
    """The reader reaches Redis, which has the old value, and relies on it until it has read of OFF or its knowledge is too old."""
    reader = Replica(tasks, database, replica.redis, time.monotonic)
    await reader.switch_on()
    async with _proxied(system) as proxy:
        redis = Redis(through(system.state.redis_url, proxy.port), CollectorRegistry())
        await redis.start()
        writer = Replica(tasks, database, redis, time.monotonic)
        await writer.switch_on()
        await _title(reader, task)
        await _require_hit(reader, task, FIELDS.title)
        await proxy.stop()
        await _retitle(writer, actor, task, "new")
        assert await _title(reader, task) == "new"
        assert reader.reads("expired") == 1
        await reader.state.round()
        assert await _title(reader, task) == "new"
        assert reader.reads("off") == 1
        await redis.close()


def _proxied(system: Stack) -> contextlib.AbstractAsyncContextManager[Proxy]:
    parts = urlsplit(system.state.redis_url)
    assert parts.hostname is not None
    return proxied(parts.hostname, parts.port or 0)


async def test_a_write_without_a_fence_waits_once_and_only_after_off(
    replica: Replica, tasks: PostgresTasks, database: Database, actor: Actor, task: Task
) -> None:
    away = Redis("redis://127.0.0.1:1", CollectorRegistry())
    writer = Replica(tasks, database, away, time.monotonic)
    began = time.monotonic()
    await _retitle(writer, actor, task, "first")
    first = time.monotonic() - began
    began = time.monotonic()
    for number in range(5):
        await _retitle(writer, actor, task, f"next {number}")
    assert first >= 0.5
    assert time.monotonic() - began < 5 * 0.5
    await away.close()


async def test_a_write_that_was_fenced_in_another_generation_is_made_again(
    replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task
) -> None:
    await _title(other, task)
    generation = other.state.relied_on

    async def change() -> None:
        below.before_write = None
        assert generation is not None
        await other.state._set_off(generation)
        await other.switch_on()

    below.before_write = change
    await _retitle(replica, actor, task, "new")
    assert below.writes == 2
    await replica.state.round()
    assert replica.state.relied_on == other.state.relied_on != generation
    await _require_hit(other, task, "new")


async def test_a_write_that_waited_in_off_is_made_again_after_off(
    replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task
) -> None:
    """The cache is ON again before the statement begins, and a reader has filled in the old row."""
    assert replica.state.relied_on is not None
    await replica.state._set_off(replica.state.relied_on)
    assert isinstance(replica.clock, Clock)
    replica.clock.seconds += 0.5

    async def switch_on() -> None:
        below.before_write = None
        await other.switch_on()
        assert await _title(other, task) == FIELDS.title
        await _require_hit(other, task, FIELDS.title)

    below.before_write = switch_on
    await _retitle(replica, actor, task, "new")
    assert below.writes == 2
    assert await _title(other, task) == "new"


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
    call = asyncio.create_task(_retitle(replica, actor, task, "new"))
    await finishing.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await replica.cache.close()
    assert await _title(other, task) == "new"
    await _require_hit(other, task, "new")


async def test_a_caller_that_leaves_during_the_write_leaves_no_fence_when_the_write_has_ended(
    replica: Replica, other: Replica, actor: Actor, task: Task, database_url: str
) -> None:
    blocker = await asyncpg.connect(database_url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT FROM task.counters WHERE user_id = $1 FOR UPDATE", actor.user_id)
    call = asyncio.create_task(_retitle(replica, actor, task, "new"))
    await eventually(lambda: _require_fences(replica, 1), within=WITHIN_SECONDS)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: _require_fences(replica, 0), within=WITHIN_SECONDS)
    await transaction.rollback()
    await blocker.close()
    assert await _title(other, task) == FIELDS.title
    await _require_hit(other, task, FIELDS.title)


async def _require_fences(replica: Replica, number: int) -> None:
    assert replica.state.relied_on is not None
    assert await replica.values.keep(replica.state.relied_on) == number


async def test_a_cancelled_reader_does_not_take_the_answer_from_another(replica: Replica, task: Task) -> None:
    first = asyncio.create_task(_title(replica, task))
    second = asyncio.create_task(_title(replica, task))
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
    held = b"".join(parts.values()) + to_message(replace(task, title="wrong")).SerializeToString()
    await client.set(_key(replica, task), {"lease": b"another's", "nothing": b""}.get(wrong, held), px=60_000)
    assert await _title(replica, task) == task.title
    assert replica.reads("hit") == 0


async def test_without_redis_reads_and_writes_go_on(tasks: PostgresTasks, database: Database, system: Stack, actor: Actor, task: Task) -> None:
    redis = Redis(system.state.redis_url, CollectorRegistry())
    await redis.start()
    replica = Replica(tasks, database, redis, time.monotonic)
    await replica.switch_on()
    await redis.close()
    assert await _title(replica, task) == task.title
    assert replica.reads("unavailable") == 1
    await _retitle(replica, actor, task, "new")
    assert await _title(replica, task) == "new"


async def test_knowledge_that_is_too_old_is_not_relied_on(replica: Replica, task: Task) -> None:
    assert isinstance(replica.clock, Clock)
    await _title(replica, task)
    replica.clock.seconds += 0.44
    await _require_hit(replica, task, task.title)
    replica.clock.seconds += 0.02
    assert await _title(replica, task) == task.title
    assert (replica.reads("hit"), replica.reads("expired")) == (1, 1)


async def test_in_armed_a_write_is_fenced_and_no_read_relies_on_its_value(replica: Replica, other: Replica, actor: Actor, task: Task) -> None:
    assert isinstance(replica.clock, Clock)
    assert replica.state.relied_on is not None
    await replica.state._set_off(replica.state.relied_on)
    replica.clock.seconds += 0.5
    await replica.state.round()
    assert replica.state._latest is not None
    assert replica.state._latest.mode is Mode.ARMED
    await _retitle(replica, actor, task, "new")
    assert await _title(replica, task) == "new"
    assert replica.reads("hit") == 0
    await eventually(other.switch_on, within=WITHIN_SECONDS)
    await _require_hit(other, task, "new")
