"""The tests of this folder need a Citus cluster: only `make test-citus` collects them."""

import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from devstack.config import StackConfig
from devstack.stack import Stack

collect_ignore_glob = [] if "CITUS" in os.environ else ["test_*.py"]

# Below its default to save time.
DATABASE_TIMEOUT_SECONDS = 2
ENVIRONMENT = {"BCRYPT_COST": "4", "DATABASE_TIMEOUT_SECONDS": str(DATABASE_TIMEOUT_SECONDS), "LOGIN_ADDRESS_BURST": "100000"}


@pytest.fixture(scope="package")
async def _breakable() -> AsyncIterator[Stack]:
    """A running system whose PostgreSQL is a Citus cluster."""
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
async def coordinator(breakable: Stack) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to the coordinator, as the superuser."""
    connection = await asyncpg.connect(breakable.state.database_url)
    yield connection
    await connection.close()
