"""A second running system, which tests may break and which is restored before and after each test, and fixtures that write to the first system."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.e2e.scenes import SceneFactory, Way, make_scene, over_grpc, over_rest
from tests.support.accounts import Account, make_account
from tests.support.clients import rest_of

# The gateway checks health every second, so the drain delay must be longer. The timeouts for PostgreSQL and slow readers are below their defaults to
# save time, but SLOW_READER_SECONDS is longer than a replica stays frozen in these tests. The bcrypt cost makes a hash slow enough to be measured.
ENVIRONMENT = {
    "BCRYPT_COST": "8",
    "LOG_LEVEL": "INFO",
    "DATABASE_TIMEOUT_SECONDS": "2",
    "SLOW_READER_SECONDS": "3",
    "LOGIN_ADDRESS_BURST": "100000",
    "REGISTER_ADDRESS_BURST": "100000",
}
DRAIN_DELAY_SECONDS = 1.5
# The time until every replica refuses the tokens of a session that has ended, as promised, and for tests that run beside others.
REFUSED_WITHIN_SECONDS, REFUSED_AT_LAST_SECONDS = 2.0, 10.0


@pytest.fixture(scope="package")
async def _breakable() -> AsyncIterator[Stack]:
    config = StackConfig(auth_replicas=2, task_replicas=2, task_workers=2, environment=ENVIRONMENT, drain_delay_seconds=DRAIN_DELAY_SECONDS)
    async with Stack(config) as stack:
        yield stack


@pytest.fixture
async def breakable_replicas(breakable: Stack) -> AsyncIterator[tuple[grpc.aio.Channel, grpc.aio.Channel]]:
    """gRPC, directly to each of its two replicas of task_service."""
    addresses = [f"{HOST}:{breakable.state.processes[name].grpc_port}" for name in ("task-1", "task-2")]
    async with contextlib.AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in addresses]
        yield first, second


@pytest.fixture
async def breakable_account(breakable_rest: httpx.AsyncClient) -> Account:
    """A logged-in user of that system."""
    return await make_account(breakable_rest)


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Stack:
    """For tests that are marked `outage` or `alone` the system that they may break, for all others the system that they share with other files.

    A file that starts a system of its own replaces this fixture.
    """
    may_break = any(request.node.get_closest_marker(name) for name in ("outage", "alone"))
    stack: Stack = request.getfixturevalue("breakable" if may_break else "system")
    return stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through its gateway."""
    async with rest_of(stack) as client:
        yield client


@pytest.fixture
async def postgres(system: Stack) -> AsyncIterator[asyncpg.Pool]:
    """The system's database, as its superuser."""
    async with asyncpg.create_pool(system.state.database_url, min_size=0, max_size=4) as pool:
        yield pool


@pytest.fixture
def scene_of(rest: httpx.AsyncClient, postgres: asyncpg.Pool) -> SceneFactory:
    """Creates scenes."""
    return partial(make_scene, rest, postgres)


@pytest.fixture
async def ways(system: Stack, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel) -> AsyncIterator[dict[str, Way]]:
    """REST and gRPC through the gateway, and gRPC directly to each replica of task_service."""
    ports = [system.state.processes[name].grpc_port for name in ("task-1", "task-2")]
    async with grpc.aio.insecure_channel(f"{HOST}:{ports[0]}") as first, grpc.aio.insecure_channel(f"{HOST}:{ports[1]}") as second:
        yield {"rest": over_rest(rest), "gateway": over_grpc(gateway_channel), "first": over_grpc(first), "second": over_grpc(second)}
