"""One running system for the whole run: real Postgres, Valkey, Envoy, one auth and two task replicas, on free ports."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import grpc.aio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from devstack.config import StackConfig
from devstack.data_dir import DataDir
from devstack.stack import Stack
from servicekit.stores.postgres import Database, DatabaseOptions
from tests.support import canary, systems
from tests.support.accounts import Account, make_account
from tests.support.databases import cloned, make_template

AccountFactory: TypeAlias = Callable[[], Awaitable[Account]]

# The cheapest that bcrypt has: the cost is a setting, and tests of other things need not pay it.
# And all attempts, of which thousands are meant to fail, come from one address.
ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "INFO", "LOGIN_ADDRESS_BURST": "100000", "LOGIN_ADDRESS_INTERVAL_SECONDS": "0.001"}


@pytest.fixture(scope="session")
def secrets() -> canary.Secrets:
    """What must appear nowhere: all that goes over REST, and what tests add to it."""
    return canary.Secrets()


@pytest.fixture(scope="session", autouse=True)
def _systems_are_noted() -> Iterator[None]:
    """For the report of a failed test."""
    with pytest.MonkeyPatch.context() as patch:
        systems.note(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _secrets_stay_out_of_logs(secrets: canary.Secrets) -> Iterator[None]:
    """Also out of those of systems that a test breaks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.AsyncClient, "send", canary.overheard(httpx.AsyncClient.send, secrets))
        patch.setattr(DataDir, "close", canary.searched(DataDir.close, secrets))
        yield


@pytest.fixture(scope="session")
async def system(secrets: canary.Secrets) -> AsyncIterator[Stack]:
    """The running system. Tests that break it have one of their own. At the end no secret of the whole run may be kept anywhere."""
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT)) as stack:
        yield stack
        await canary.check(stack, secrets)


@pytest.fixture(scope="session")
async def rest(system: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through the gateway."""
    async with httpx.AsyncClient(base_url=system.state.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
async def gateway_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, through the gateway."""
    async with grpc.aio.insecure_channel(system.state.url.removeprefix("http://")) as channel:
        yield channel


@pytest.fixture(scope="session")
async def auth_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, straight to auth_service."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{system.state.processes['auth-1'].grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="session")
async def task_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, straight to the first replica of task_service."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{system.state.processes['task-1'].grpc_port}") as channel:
        yield channel


@pytest.fixture
def new_account(rest: httpx.AsyncClient) -> AccountFactory:
    """Makes users who are logged in."""
    return lambda: make_account(rest)


@pytest.fixture
async def account(new_account: AccountFactory) -> Account:
    """A user who is logged in."""
    return await new_account()


@pytest.fixture(scope="session")
async def _template(system: Stack) -> str:
    return await make_template(system.state.database_url)


@pytest.fixture(scope="module")
async def database_url(system: Stack, _template: str) -> AsyncIterator[str]:
    """A migrated database of the module's own."""
    async with cloned(system.state.database_url, _template) as url:
        yield url


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    """The pool of it."""
    options = DatabaseOptions(url=database_url, application_name="tests", pool_max_size=20, statement_cache_size=100, timeout_seconds=5)
    database = Database(options, CollectorRegistry())
    await database.start()
    yield database
    await database.close()
