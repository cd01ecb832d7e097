"""Fixtures of the limiter's tests."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from devstack.stack import Stack
from servicekit.access.rate_limit import RateLimiter
from servicekit.stores.redis import Redis
from tests.servicekit.access.limiters import PREFIX, Figures, Replica, ReplicaFactory


@pytest.fixture
async def replica_of() -> AsyncIterator[ReplicaFactory]:
    made: list[Redis] = []

    async def make(url: str) -> Replica:
        figures = Figures()
        made.append(Redis(url, figures))
        await made[-1].start()
        return Replica(made[-1], RateLimiter(made[-1], figures, prefix=PREFIX), figures)

    yield make
    for redis in made:
        await redis.close()


@pytest.fixture
async def replica(system: Stack, patient: None, replica_of: ReplicaFactory) -> Replica:
    return await replica_of(system.state.redis_url)


@pytest.fixture
def limiter(replica: Replica) -> RateLimiter:
    return replica.limiter


@pytest.fixture
def key() -> str:
    return str(uuid4())
