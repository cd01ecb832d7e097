"""One running system behind PgBouncer in transaction mode, for each way to use it."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from devstack import pgbouncer
from devstack.config import StackConfig
from devstack.roles import MIGRATOR
from devstack.stack import Stack
from servicekit.stores.postgres import Database, DatabaseOptions
from servicekit.stores.session import Pooler
from tests.conftest import ENVIRONMENT
from tests.servicekit.stores.databases import started, through
from tests.support.databases import login
from tests.support.tools import missing, required

CONNECTIONS = 12


@pytest.fixture(scope="package", params=[Pooler.PGBOUNCER, Pooler.PGBOUNCER_PREPARED])
def pooler(request: pytest.FixtureRequest) -> Pooler:
    """DATABASE_POOLER of the services."""
    required("pgbouncer", "it is the Debian package pgbouncer")
    pooler: Pooler = request.param
    if pooler is Pooler.PGBOUNCER_PREPARED and not pgbouncer.knows_prepared_statements():
        missing("pgbouncer>=1.21", "Ubuntu 24.04 and Debian 13 have it, Debian 12 has 1.18, which knows no prepared statements in transaction mode")
    return pooler


@pytest.fixture(scope="package")
async def _breakable(pooler: Pooler) -> AsyncIterator[Stack]:
    environment = {**ENVIRONMENT, "DATABASE_POOLER": pooler}
    async with Stack(StackConfig(pgbouncer=True, task_replicas=2, environment=environment)) as stack:
        yield stack


@pytest.fixture
def pooled_url(breakable: Stack) -> str:
    """The URL with which task_service logs in to PgBouncer."""
    return through(login(breakable.state, "task_service"), _port(breakable))


@pytest.fixture
async def database(pooled_url: str, pooler: Pooler) -> AsyncIterator[Database]:
    """A pool with more connections than PgBouncer has sessions."""
    async with started(Database(DatabaseOptions(pooled_url, "test", CONNECTIONS, 100, 10.0, pooler=pooler), CollectorRegistry())) as database:
        yield database


@pytest.fixture
def pooled_migrator_url(breakable: Stack) -> str:
    """The URL with which the migrations log in to PgBouncer."""
    return through(login(breakable.state, MIGRATOR), _port(breakable))


def _port(stack: Stack) -> int:
    port = stack.state.processes["pgbouncer"].port
    assert port is not None
    return port
