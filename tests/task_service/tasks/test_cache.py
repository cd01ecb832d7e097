"""The cache never returns a task older than an acknowledged write. The tests force the races by stopping the repository at the critical moments."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as Client

from devstack.stack import Stack
from servicekit.errors import RedisUnavailable
from servicekit.rpc.retry import Idempotency
from servicekit.stores import redis as stores
from servicekit.stores.redis import Redis
from task_service.tasks import cache as cached_tasks
from task_service.tasks.cache import MAX_SUSPECT_KEYS, CachedTasks, Suspects, key_of
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.encoding import encode
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Operations, Written
from tests.task_service.conftest import FIELDS, delete, insert, new_id, update

Hook = Callable[[], Awaitable[None]]

# Far longer than a circuit breaker takes to close.
WITHIN_SECONDS = 10.0


class Stopping(PostgresTasks):
    """The repository, with hooks at the moments at which races happen."""

    def __init__(self, tasks: PostgresTasks) -> None:
        super().__init__(tasks._database)
        self.after_read: Hook | None = None
        self.before_write: Hook | None = None
        self.after_commit: Hook | None = None
        self.reads = 0

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        self.reads += 1
        task = await super().find(user_id, task_id)
        await _run(self.after_read)
        return task

    async def write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None = None, *, unfenced: bool = False) -> Written:
        await _run(self.before_write)
        written = await super().write(actor, operations, idempotency, unfenced=unfenced)
        await _run(self.after_commit)
        return written


async def _run(hook: Hook | None) -> None:
    if hook is not None:
        await hook()


class Outage:
    """Opens circuit breakers, like a cut connection. They stay open until `end`, however long the test takes until then."""

    def __init__(self, *clients: Redis) -> None:
        self._over = False
        for redis in clients:
            redis._hooks.insert(0, self._refuse)
            redis.trip(ConnectionError())

    def end(self) -> None:
        self._over = True

    async def _refuse(self, _: Client) -> None:
        if not self._over:
            raise ConnectionError


@pytest.fixture
def below(tasks: PostgresTasks) -> Stopping:
    return Stopping(tasks)


@pytest.fixture
def cache(below: Stopping, redis: Redis) -> CachedTasks:
    """The cache under test."""
    return CachedTasks(below, redis, CollectorRegistry(), value_seconds=60, write_timeout_seconds=5)


@pytest.fixture
async def other(tasks: PostgresTasks, system: Stack) -> AsyncIterator[CachedTasks]:
    """Another replica, with its own connections and circuit breaker."""
    redis = Redis(system.state.redis_url, CollectorRegistry())
    yield CachedTasks(tasks, redis, CollectorRegistry(), value_seconds=60, write_timeout_seconds=5)
    await redis.close()


@pytest.fixture
async def client(system: Stack) -> AsyncIterator[Client]:
    client = Client.from_url(system.state.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def task(tasks: PostgresTasks, actor: Actor) -> Task:
    return await insert(tasks, actor, FIELDS)


async def _title(cache: CachedTasks, task: Task) -> str:
    found = await cache.find(task.user_id, task.id)
    assert found is not None
    return found.title


async def _held(client: Client, task: Task) -> bytes:
    return cast("bytes", await client.get(key_of(task.user_id, task.id)) or b"")


async def _retitle(cache: CachedTasks, actor: Actor, task: Task, title: str) -> None:
    assert await update(cache, actor, task.id, TaskFields(title=title), ["title"]) is not None


async def test_a_second_read_does_not_ask_postgres(cache: CachedTasks, below: Stopping, task: Task) -> None:
    assert await cache.find(task.user_id, task.id) == task
    assert await cache.find(task.user_id, task.id) == task
    assert below.reads == 1


async def test_a_write_leaves_its_value(cache: CachedTasks, below: Stopping, actor: Actor, task: Task) -> None:
    await _retitle(cache, actor, task, "new")
    assert await _title(cache, task) == "new"
    assert below.reads == 0


async def test_a_fill_that_is_overtaken_by_a_write_does_not_count(
    cache: CachedTasks, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    """The stale fill: a slow reader reads the old row, and fills it in after another replica's write is done and its value was evicted."""

    async def overtake() -> None:
        below.after_read = None
        await _retitle(other, actor, task, "new")
        await client.delete(key_of(task.user_id, task.id))

    below.after_read = overtake
    assert await _title(cache, task) == FIELDS.title
    assert await _title(other, task) == "new"
    assert await _title(cache, task) == "new"


async def test_nothing_is_filled_while_a_write_is_under_way(
    cache: CachedTasks, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    async def read_before_the_commit() -> None:
        assert await _title(other, task) == FIELDS.title
        assert (await _held(client, task))[:1] == b"f"

    below.before_write = read_before_the_commit
    await _retitle(cache, actor, task, "new")
    assert await _title(other, task) == "new"


async def test_a_writer_that_dies_between_commit_and_finish_leaves_no_old_value(
    cache: CachedTasks, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    await other.find(task.user_id, task.id)
    assert (await _held(client, task))[:1] == b"v"

    async def die() -> None:
        raise ConnectionResetError

    below.after_commit = die
    with pytest.raises(ConnectionResetError):
        await _retitle(cache, actor, task, "new")
    assert await _title(other, task) == "new"
    assert (await _held(client, task))[:1] == b"f"
    # The fence expires by itself, after twice the time that a write can take.
    assert 5_000 < await client.pttl(key_of(task.user_id, task.id)) <= 10_000


async def test_two_writers_at_once_leave_an_anonymous_fence(
    cache: CachedTasks, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    async def overtake() -> None:
        below.before_write = None
        await _retitle(other, actor, task, "first")
        assert await _held(client, task) == b"a"

    below.before_write = overtake
    await _retitle(cache, actor, task, "second")
    assert await _held(client, task) == b"a"
    assert await _title(other, task) == "second"
    assert await _held(client, task) == b"a"


async def test_a_fence_that_was_evicted_is_made_good_by_the_finish(
    cache: CachedTasks, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    async def evict_and_fill() -> None:
        below.before_write = None
        await client.delete(key_of(task.user_id, task.id))
        assert await _title(other, task) == FIELDS.title
        assert (await _held(client, task))[:1] == b"v"

    below.before_write = evict_and_fill
    await _retitle(cache, actor, task, "new")
    assert await _title(other, task) == "new"


async def test_a_deleted_task_is_not_answered_from_the_cache(cache: CachedTasks, actor: Actor, task: Task) -> None:
    await cache.find(task.user_id, task.id)
    await delete(cache, actor, task.id)
    assert await cache.find(task.user_id, task.id) is None


async def test_with_redis_away_the_rest_goes_on_and_the_old_value_is_deleted_first(
    cache: CachedTasks, redis: Redis, other: CachedTasks, actor: Actor, task: Task
) -> None:
    """Only this replica is cut off from Redis, during a write. This is the exception to the rule; the circuit breaker's probe ends it."""
    await other.find(task.user_id, task.id)
    outage = Outage(redis)
    await _retitle(cache, actor, task, "new")
    assert await _title(cache, task) == "new"
    assert await _title(other, task) == FIELDS.title
    outage.end()
    async with asyncio.timeout(WITHIN_SECONDS):
        while await _title(other, task) != "new":
            await asyncio.sleep(0.05)


async def test_a_fence_that_failed_does_not_let_a_fill_outlive_the_write(
    cache: CachedTasks, redis: Redis, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    """The breaker closes between a write's failed fence and its commit, and a reader fills in the old row meanwhile."""
    outage = Outage(redis)
    assert not redis.settled

    async def recover_and_fill() -> None:
        below.before_write = None
        outage.end()
        await _back(redis)
        assert await _title(other, task) == FIELDS.title
        assert (await _held(client, task))[:1] == b"v"

    below.before_write = recover_and_fill
    await _retitle(cache, actor, task, "new")
    assert await _title(other, task) == "new"


async def test_a_caller_that_leaves_after_the_commit_leaves_no_old_value(
    cache: CachedTasks, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task
) -> None:
    """The caller cancels during the finish, after the fence was evicted and the old row filled in. The old value must be deleted all the same."""
    finishing = asyncio.Event()

    async def evict_and_fill() -> None:
        below.before_write = None
        await client.delete(key_of(task.user_id, task.id))
        await other.find(task.user_id, task.id)

    async def slow_finish(keys: Sequence[str], args: Sequence[bytes | int]) -> None:
        finishing.set()
        await asyncio.sleep(10)

    below.before_write = evict_and_fill
    cache._set_finish = slow_finish
    call = asyncio.create_task(_retitle(cache, actor, task, "new"))
    await finishing.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await cache.close()
    assert await _title(other, task) == "new"


async def test_a_cancelled_reader_does_not_take_the_answer_from_another(cache: CachedTasks, task: Task) -> None:
    first = asyncio.create_task(cache.find(task.user_id, task.id))
    second = asyncio.create_task(cache.find(task.user_id, task.id))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == task


async def test_more_suspects_than_are_remembered_keep_the_cache_unused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = Suspects(value_seconds=60)
    for i in range(MAX_SUSPECT_KEYS + 1):
        suspects.add(f"no such key {i}")
    with pytest.raises(Exception, match="not remembered"):
        await suspects.delete(client)
    monkeypatch.setattr(cached_tasks, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 60))
    await suspects.delete(client)
    assert not suspects._keys


async def test_values_come_back_as_they_went(cache: CachedTasks, tasks: PostgresTasks, actor: Actor) -> None:
    made = await insert(tasks, actor, replace(FIELDS, title='"\\ \u2028 \N{GRINNING FACE}', due_date=None, labels=()))
    await cache.find(actor.user_id, made.id)
    assert await cache.find(actor.user_id, made.id) == made


async def test_a_replica_that_is_back_fences_at_once_and_reads_later(
    cache: CachedTasks, redis: Redis, below: Stopping, other: CachedTasks, client: Client, actor: Actor, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test itself ends this time.
    monkeypatch.setattr(stores, "SETTLE_SECONDS", 600.0)
    redis.trip(ConnectionError())
    await _back(redis)
    # An old value from another replica that does not use Redis again yet.
    await client.set(key_of(task.user_id, task.id), b"v" + encode(replace(task, title="old")))
    assert await _title(cache, task) == FIELDS.title
    await _retitle(cache, actor, task, "new")
    assert await _title(other, task) == "new"
    redis._settled_at = time.monotonic()
    assert redis.settled
    reads = below.reads
    assert await _title(cache, task) == "new"
    assert below.reads == reads


async def test_a_write_of_unknown_outcome_without_a_fence_is_not_forgotten(
    cache: CachedTasks, redis: Redis, below: Stopping, other: CachedTasks, actor: Actor, task: Task
) -> None:
    """Redis is down, and PostgreSQL's answer is lost after the commit. Readers have seen the new row, and must not see the old one again."""
    await other.find(task.user_id, task.id)
    outage = Outage(redis)

    async def die() -> None:
        raise ConnectionResetError

    below.after_commit = die
    with pytest.raises(ConnectionResetError):
        await _retitle(cache, actor, task, "new")
    outage.end()
    await _settled(redis)
    assert await _title(other, task) == "new"


async def test_a_value_of_another_task_is_not_answered(cache: CachedTasks, client: Client, actor: Actor, task: Task, tasks: PostgresTasks) -> None:
    stranger = await insert(tasks, Actor(new_id(), new_id(), ""), FIELDS)
    await client.set(key_of(task.user_id, task.id), b"v" + encode(stranger))
    assert await cache.find(task.user_id, task.id) == task


async def test_what_a_replica_that_died_wrote_without_redis_is_made_good_by_the_others(
    cache: CachedTasks, redis: Redis, tasks: PostgresTasks, system: Stack, actor: Actor, task: Task
) -> None:
    """Redis is unresponsive for all replicas and returns with its old data. The replica that wrote meanwhile does not return."""
    another_redis = Redis(system.state.redis_url, CollectorRegistry())
    another = CachedTasks(tasks, another_redis, CollectorRegistry(), value_seconds=60, write_timeout_seconds=5)
    await another_redis.start()
    await _settled(another_redis)
    assert await _title(another, task) == FIELDS.title
    outage = Outage(redis, another_redis)
    await _retitle(cache, actor, task, "new")
    await redis.close()
    outage.end()
    await _settled(another_redis)
    assert await _title(another, task) == "new"
    await another_redis.close()


async def _back(redis: Redis) -> None:
    """Waits until the circuit breaker is closed."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not await _answers(redis):
            await asyncio.sleep(0.05)


async def _answers(redis: Redis) -> bool:
    try:
        await redis.run(lambda client: client.ping())
    except RedisUnavailable:
        return False
    return True


async def _settled(redis: Redis) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not redis.settled:
            await asyncio.sleep(0.05)
