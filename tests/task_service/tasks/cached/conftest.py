"""Two replicas with a cache that is ON, and a repository that stops at the moments at which races happen."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as Client

from devstack.stack import Stack
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from task_service.cache.domain import State
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Operations, Written
from tests.task_service.conftest import FIELDS, Replica, find, insert, update

Hook = Callable[[], Awaitable[None]]


class Stopping(PostgresTasks):
    """The repository, with hooks at the moments at which races happen."""

    def __init__(self, tasks: PostgresTasks) -> None:
        super().__init__(tasks._database)
        self.after_read: Hook | None = None
        self.before_write: Hook | None = None
        self.after_commit: Hook | None = None
        self.reads = 0
        self.writes = 0

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        self.reads += 1
        task = await super().find(user_id, task_id)
        await _run(self.after_read)
        return task

    async def write(
        self,
        actor: Actor,
        operations: Operations,
        idempotency: Idempotency | None = None,
        *,
        state: State | None = None,
        fenced: Sequence[UUID] = (),
        on_failed: Callable[[], None] | None = None,
    ) -> Written:
        await _run(self.before_write)
        self.writes += 1
        written = await super().write(actor, operations, idempotency, state=state, fenced=fenced, on_failed=on_failed)
        await _run(self.after_commit)
        return written


async def _run(hook: Hook | None) -> None:
    if hook is not None:
        await hook()


@pytest.fixture
def below(tasks: PostgresTasks) -> Stopping:
    return Stopping(tasks)


@pytest.fixture
async def replica(below: Stopping, database: Database, redis: Redis) -> Replica:
    """The replica under test. The cache is ON."""
    replica = Replica(below, database, redis)
    await replica.switch_on()
    return replica


@pytest.fixture
async def other(replica: Replica, tasks: PostgresTasks, database: Database, system: Stack) -> AsyncIterator[Replica]:
    """Another replica, with its own connections."""
    redis = Redis(system.state.redis_url, CollectorRegistry())
    await redis.start()
    other = Replica(tasks, database, redis)
    await other.switch_on()
    yield other
    await redis.close()


@pytest.fixture
async def client(system: Stack) -> AsyncIterator[Client]:
    client = Client.from_url(system.state.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def task(tasks: PostgresTasks, actor: Actor) -> Task:
    return await insert(tasks, actor, FIELDS)


async def title_of(replica: Replica, task: Task) -> str:
    found = await find(replica.cache, task.user_id, task.id)
    assert found is not None
    return found.title


async def require_hit(replica: Replica, task: Task, title: str) -> None:
    hits = replica.reads("hit") or 0
    assert await title_of(replica, task) == title
    assert replica.reads("hit") == hits + 1, "not from the cache"


def key_of(replica: Replica, task: Task) -> str:
    assert replica.state.relied_on is not None
    return f"task:3:{replica.state.relied_on.generation}:{task.user_id}:{task.id}"


async def retitle(replica: Replica, actor: Actor, task: Task, title: str) -> None:
    assert await update(replica.cache, actor, task.id, TaskFields(title=title), ["title"]) is not None


async def require_fences(replica: Replica, number: int) -> None:
    assert replica.state.relied_on is not None
    assert await replica.values.keep(replica.state.relied_on) == number
