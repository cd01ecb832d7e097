"""The limiter on a Valkey that is killed or frozen: then each process limits by itself."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from devstack.process import Process
from servicekit import deadline
from servicekit.errors import DeadlineExceeded
from servicekit.stores import redis as breaker
from tests.servicekit.access.limiters import ANYBODY, LONG, Replica, ReplicaFactory, passed, take
from tests.servicekit.stores.valkeys import running_valkey, url_of
from tests.support.waiting import eventually


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch, patient: None) -> AsyncIterator[Process]:
    """A Valkey that the test owns and may kill."""
    monkeypatch.setattr(breaker, "PROBE_INTERVAL_SECONDS", 0.1)
    async with running_valkey() as process:
        yield process


async def returned(replica: Replica) -> None:
    async def closed() -> None:
        assert replica.figures.open == 0

    await eventually(closed, within=5)


async def test_without_redis_each_process_limits_by_itself(server: Process, replica_of: ReplicaFactory, key: str) -> None:
    replicas = [await replica_of(url_of(server)) for _ in range(2)]
    assert [await passed(one.limiter, key, LONG, 2) for one in replicas] == [2, 1]
    await server.kill(signal.SIGKILL)
    assert [await passed(one.limiter, key, LONG, 5) for one in replicas] == [LONG.burst] * 2
    assert [one.figures.local for one in replicas] == [5, 5]
    await replicas[0].limiter.give_back(key, LONG, ANYBODY)
    assert [await passed(one.limiter, key, LONG, 2) for one in replicas] == [1, 0]


async def test_after_redis_returned_empty_the_buckets_begin_full(server: Process, replica_of: ReplicaFactory, key: str) -> None:
    replica = await replica_of(url_of(server))
    assert await passed(replica.limiter, key, LONG, 5) == LONG.burst
    await server.kill(signal.SIGKILL)
    assert await passed(replica.limiter, key, LONG, 5) == LONG.burst
    await server.start()
    await returned(replica)
    assert await passed(replica.limiter, key, LONG, 5) == LONG.burst
    assert replica.figures.local == 5
    # These takes were not counted in this Redis.
    await replica.limiter.give_back(key, LONG, ANYBODY)
    await replica.limiter.give_back(str(uuid4()), LONG, ANYBODY)
    assert await passed(replica.limiter, key, LONG, 2) == 1


async def test_a_taking_whose_outcome_is_not_known_is_decided_locally(
    server: Process, replica_of: ReplicaFactory, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await replica_of(url_of(server))
    assert await passed(replica.limiter, key, LONG, 1) == 1
    server.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as hurried:
        hurried.setattr(breaker, "TIMEOUT_SECONDS", 0.3)
        assert await take(replica.limiter, key, LONG) == 0
    assert replica.figures.local == 1
    server.send_signal(signal.SIGCONT)
    await returned(replica)
    # When Redis continues, it may execute the pending take, which then counts there too.
    assert await passed(replica.limiter, key, LONG, 5) in {LONG.burst - 2, LONG.burst - 1}
    assert replica.figures.local == 1


@pytest.mark.parametrize("method", ["take", "give_back", "spend"])
async def test_the_calls_own_time_passes_through(server: Process, replica_of: ReplicaFactory, key: str, method: str) -> None:
    replica = await replica_of(url_of(server))
    await take(replica.limiter, key, LONG)
    server.send_signal(signal.SIGSTOP)

    async def call() -> None:
        deadline.begin(0.05)
        command: Callable[..., Awaitable[object]] = getattr(replica.limiter, method)
        await command(*((key,) if method == "spend" else (key, LONG)), ANYBODY)

    with pytest.raises(DeadlineExceeded):
        await asyncio.create_task(call())
    assert (replica.figures.local, replica.figures.open) == (0, 0)
