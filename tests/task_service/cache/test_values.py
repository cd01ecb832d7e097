"""The scripts of a generation on a real Valkey."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis as Client

from servicekit.errors import RedisUnavailable
from servicekit.stores.redis import Redis
from task_service.cache.domain import Mode, State
from task_service.cache.values import MAX_TOKENS, CachedValues, new_token

USER = uuid4()


@pytest.fixture
def values(redis: Redis) -> CachedValues:
    return CachedValues(redis, 60)


@pytest.fixture
async def state(values: CachedValues) -> State:
    assert values.process is not None
    generation = uuid4()
    replication = await values.mark(generation, values.process)
    return State(generation, Mode.ON, values.process, replication)


async def _raw(redis: Redis, state: State) -> bytes | None:
    """Returns what is left of the generation's hash without its marker, and fails if it expires too soon."""

    async def read(client: Client) -> bytes | None:
        key = f"task:3:{state.generation}"
        assert 500_000 < await client.pttl(key) <= 600_000
        held: dict[bytes, bytes] = await client.hgetall(key)
        held.pop(b"marker")
        return next(iter(held.values()), None)

    return await redis.run(read)


async def test_a_lease_lets_one_reader_fill(values: CachedValues, state: State) -> None:
    task = uuid4()
    lease = await values.take_lease(state, USER, task)
    assert lease is not None
    assert await values.take_lease(state, USER, task) is None
    assert await values.get(state, USER, task) == lease
    await values.fill(state, USER, task, b"another lease", b"wrong")
    assert await values.get(state, USER, task) == lease
    await values.fill(state, USER, task, lease, b"value")
    assert await values.get(state, USER, task) == b"value"
    await values.fill(state, USER, task, lease, b"late")
    assert await values.get(state, USER, task) == b"value"


async def test_a_fence_deletes_the_value_and_keeps_leases_out(values: CachedValues, state: State) -> None:
    tasks = [uuid4(), uuid4()]
    for task in tasks:
        lease = await values.take_lease(state, USER, task)
        assert lease is not None
        await values.fill(state, USER, task, lease, b"old")
    token = new_token()
    assert await values.fence(state, USER, tasks, token)
    assert await values.keep(state) == 2
    for task in tasks:
        assert await values.get(state, USER, task) is None
        assert await values.take_lease(state, USER, task) is None
    await values.finish(state, USER, tasks, token)
    assert await values.keep(state) == 0
    for task in tasks:
        assert await values.take_lease(state, USER, task) is not None


async def test_the_only_fence_becomes_the_value(values: CachedValues, state: State, redis: Redis) -> None:
    task = uuid4()
    token = new_token()
    assert await values.fence(state, USER, [task], token)
    await values.finish(state, USER, [task], b"x" * len(token), b"wrong")
    assert await values.get(state, USER, task) is None
    await values.finish(state, USER, [task], token, b"value")
    assert await values.get(state, USER, task) == b"value"
    assert await _raw(redis, state) is None
    # A second time, after another write.
    assert await values.fence(state, USER, [task], new_token())
    await values.finish(state, USER, [task], token, b"value")
    assert await values.get(state, USER, task) is None
    assert await values.take_lease(state, USER, task) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 2)])
async def test_shared_fences_leave_no_value_and_end_with_the_last(values: CachedValues, state: State, redis: Redis, order: tuple[int, ...]) -> None:
    task = uuid4()
    tokens = [new_token() for _ in range(3)]
    for token in tokens:
        assert await values.fence(state, USER, [task], token)
    for number in order:
        assert await values.take_lease(state, USER, task) is None
        await values.finish(state, USER, [task], tokens[number], b"value")
    assert await _raw(redis, state) is None
    assert await values.get(state, USER, task) is None
    assert await values.take_lease(state, USER, task) is not None


async def test_a_fence_of_too_many_writes_stays(values: CachedValues, state: State, redis: Redis) -> None:
    task = uuid4()
    tokens = [new_token() for _ in range(MAX_TOKENS * 2)]
    for token in tokens:
        assert await values.fence(state, USER, [task], token)
    for token in tokens:
        await values.finish(state, USER, [task], token, b"value")
    assert await _raw(redis, state) == b"x"
    assert await values.take_lease(state, USER, task) is None


@pytest.mark.parametrize("lost", ["flushed", "never marked"])
async def test_without_the_marker_nothing_is_fenced_leased_or_kept(values: CachedValues, state: State, redis: Redis, lost: str) -> None:
    task = uuid4()
    if lost == "flushed":
        assert await values.fence(state, USER, [task], new_token())
        await redis.run(lambda client: client.delete(f"task:3:{state.generation}"))
    else:
        state = replace(state, generation=uuid4())
    assert not await values.fence(state, USER, [task], new_token())
    assert await values.take_lease(state, USER, task) is None
    assert await values.keep(state) is None
    assert await redis.run(lambda client: client.exists(f"task:3:{state.generation}")) == 0


async def test_keys_of_another_replication_are_as_good_as_lost(values: CachedValues, state: State) -> None:
    assert await values.keep(state) == 0
    assert await values.keep(replace(state, replication="0" * 40)) is None


async def test_generations_are_separate(values: CachedValues, state: State) -> None:
    task = uuid4()
    lease = await values.take_lease(state, USER, task)
    assert lease is not None
    following = replace(state, generation=uuid4())
    await values.mark(following.generation, state.process)
    assert await values.get(following, USER, task) is None
    assert await values.fence(following, USER, [task], new_token())
    await values.fill(state, USER, task, lease, b"value")
    assert await values.get(state, USER, task) == b"value"


async def test_another_process_is_as_good_as_none(values: CachedValues, state: State) -> None:
    elsewhere = replace(state, process="a" * 40)
    task: UUID = uuid4()
    for call in (
        values.mark(uuid4(), elsewhere.process),
        values.keep(elsewhere),
        values.get(elsewhere, USER, task),
        values.take_lease(elsewhere, USER, task),
        values.fill(elsewhere, USER, task, b"", b""),
        values.fence(elsewhere, USER, [task], new_token()),
        values.finish(elsewhere, USER, [task], b"token"),
    ):
        with pytest.raises(RedisUnavailable):
            await call
    assert await values.fence(state, USER, [task], new_token())
