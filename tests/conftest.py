"""One running system for each worker of the test run: real PostgreSQL, Valkey and Envoy, two replicas of each service, on free ports."""

import functools
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import grpc.aio
import httpx
import hypothesis
import pytest
from prometheus_client import CollectorRegistry

from devstack.config import StackConfig
from devstack.data_dir import DataDir
from devstack.stack import Stack
from servicekit.stores import redis
from servicekit.stores.postgres import Database, DatabaseOptions
from tests.support import canary, systems, tiers
from tests.support.accounts import Account, make_account
from tests.support.clients import channel_of, rest_of
from tests.support.databases import cloned, make_template
from tests.support.outage import restored

AccountFactory: TypeAlias = Callable[[], Awaitable[Account]]

# BCRYPT_COST is bcrypt's minimum, because most tests do not depend on the cost. The address limit is high, because all login attempts of the tests,
# including thousands of failed ones, come from one address.
ENVIRONMENT = {
    "BCRYPT_COST": "4",
    "LOG_LEVEL": "INFO",
    "LOGIN_ADDRESS_BURST": "100000",
    "LOGIN_ADDRESS_INTERVAL_SECONDS": "0.001",
    "API_TOKEN_ADDRESS_BURST": "100000",
    "API_TOKEN_ADDRESS_INTERVAL_SECONDS": "0.001",
    "REGISTER_ADDRESS_BURST": "100000",
    "REGISTER_ADDRESS_INTERVAL_SECONDS": "0.001",
}

# A slow machine fails no example, and the examples of a test share its fixtures.
SUPPRESSED = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=SUPPRESSED)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Requires the reasons of marks, adds those that follow from others, and has the longest files begin first."""
    tiers.require_reasons(items)
    tiers.outages_are_slow(items)
    tiers.longest_first(items)


def pytest_collection_finish() -> None:
    """Excludes the collected tests and the imported modules from garbage collections, which otherwise would visit them again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def secrets() -> canary.Secrets:
    """The secrets that must not leak: all secrets that the tests send and receive over REST, and those that tests add."""
    return canary.Secrets()


@pytest.fixture(scope="session", autouse=True)
def _authorities_are_read_once() -> Iterator[None]:
    """Creates one TLS context for all httpx clients. Each would read all certificate authorities, which takes longer than several calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def _systems_are_noted() -> Iterator[None]:
    """Records the running systems, so that the report of a failed test can name them."""
    with pytest.MonkeyPatch.context() as patch:
        systems.note(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _secrets_stay_out_of_logs(secrets: canary.Secrets) -> Iterator[None]:
    """Collects the secrets of all REST calls and searches the logs of every system when it closes, also of systems that tests break."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.AsyncClient, "send", canary.overheard(httpx.AsyncClient.send, secrets))
        patch.setattr(DataDir, "close", canary.searched(DataDir.close, secrets))
        yield


@pytest.fixture(scope="session")
async def system(secrets: canary.Secrets) -> AsyncIterator[Stack]:
    """The running system. Tests that break a system use another one. At the end a check fails if any secret of the run has leaked."""
    async with Stack(StackConfig(auth_replicas=2, task_replicas=2, environment=ENVIRONMENT)) as stack:
        yield stack
        await canary.check(stack, secrets)


@pytest.fixture(scope="session")
async def rest(system: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through the gateway."""
    async with rest_of(system) as client:
        yield client


@pytest.fixture(scope="session")
async def gateway_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, through the gateway."""
    async with channel_of(system) as channel:
        yield channel


@pytest.fixture(scope="session")
async def auth_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, directly to auth_service."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{system.state.processes['auth-1'].grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="session")
async def task_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, directly to the first replica of task_service."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{system.state.processes['task-1'].grpc_port}") as channel:
        yield channel


@pytest.fixture
async def breakable(_breakable: Stack) -> AsyncIterator[Stack]:
    """A running system that the test may break. The conftest.py of a folder with such tests starts it: its fixture `_breakable`."""
    async with restored(_breakable):
        yield _breakable


@pytest.fixture
async def breakable_rest(breakable: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through its gateway."""
    async with rest_of(breakable) as client:
        yield client


@pytest.fixture
async def breakable_gateway(breakable: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, through its gateway."""
    async with channel_of(breakable) as channel:
        yield channel


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Redis clients in this process wait for an answer longer than in the product.

    For tests in which Redis runs: with the product's time-out a busy machine looks like a Redis that is down.
    """
    monkeypatch.setattr(redis, "TIMEOUT_SECONDS", 5.0)


@pytest.fixture
def new_account(rest: httpx.AsyncClient) -> AccountFactory:
    """Creates logged-in users."""
    return lambda: make_account(rest)


@pytest.fixture
async def account(new_account: AccountFactory) -> Account:
    """A logged-in user."""
    return await new_account()


@pytest.fixture(scope="session")
async def _template(system: Stack) -> str:
    return await make_template(system.state.database_url)


@pytest.fixture(scope="module")
async def database_url(system: Stack, _template: str) -> AsyncIterator[str]:
    """A migrated database for this module only."""
    async with cloned(system.state.database_url, _template) as url:
        yield url


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    """A connection pool of the module's database."""
    options = DatabaseOptions(url=database_url, application_name="tests", pool_max_size=20, statement_cache_size=100, timeout_seconds=5)
    database = Database(options, CollectorRegistry())
    await database.start()
    yield database
    await database.close()
