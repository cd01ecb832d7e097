"""The tests of this folder need a Citus cluster: only `make test-citus` collects them."""

import os
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.support.clients import rest_of
from tests.support.outage import restored

collect_ignore_glob = [] if "CITUS" in os.environ else ["test_*.py"]

# Below its default to save time.
DATABASE_TIMEOUT_SECONDS = 2
ENVIRONMENT = {"BCRYPT_COST": "4", "DATABASE_TIMEOUT_SECONDS": str(DATABASE_TIMEOUT_SECONDS), "LOGIN_ADDRESS_BURST": "100000"}


@pytest.fixture(scope="package")
async def _cluster() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
async def cluster(_cluster: Stack) -> AsyncIterator[Stack]:
    """A running system whose PostgreSQL is a Citus cluster, which the test may break."""
    async with restored(_cluster):
        yield _cluster


@pytest.fixture
async def client(cluster: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through its gateway."""
    async with rest_of(cluster) as client:
        yield client


@pytest.fixture
async def coordinator(cluster: Stack) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to the coordinator, as the superuser."""
    connection = await asyncpg.connect(cluster.state.database_url)
    yield connection
    await connection.close()
