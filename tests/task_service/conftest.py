"""Fixtures with the task service's storage, on a database for each test module and the running Valkey."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from uuid_utils.compat import uuid7

from devstack.stack import Stack
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.errors import TaskNotFound
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskRepository
from task_service.tasks.writes import Creation, Deletion, Update


@pytest.fixture
async def redis(system: Stack, patient: None) -> AsyncIterator[Redis]:
    redis = Redis(system.state.redis_url, CollectorRegistry())
    yield redis
    await redis.close()


@pytest.fixture
def tasks(database: Database) -> PostgresTasks:
    return PostgresTasks(database)


@pytest.fixture
def cached(tasks: PostgresTasks, redis: Redis) -> CachedTasks:
    return CachedTasks(tasks, redis, CollectorRegistry(), value_seconds=60, write_timeout_seconds=5)


@pytest.fixture
def actor() -> Actor:
    """A user that no other test uses."""
    return Actor(uuid4(), uuid4(), "request-1")


def new_id() -> UUID:
    return uuid7()


async def insert(repository: TaskRepository, actor: Actor, fields: TaskFields) -> Task:
    """Creates a task and returns it."""
    written = await repository.write(actor, [Creation(new_id(), fields)])
    return written.tasks[0]


async def update(repository: TaskRepository, actor: Actor, task_id: UUID, fields: TaskFields, mask: Sequence[str]) -> Task | None:
    """Updates a task and returns it, or None if it does not exist."""
    with contextlib.suppress(TaskNotFound):
        return (await repository.write(actor, [Update(task_id, fields, mask)])).tasks[0]
    return None


async def delete(repository: TaskRepository, actor: Actor, task_id: UUID) -> bool:
    """Deletes a task. Returns whether it existed."""
    with contextlib.suppress(TaskNotFound):
        await repository.write(actor, [Deletion(task_id)])
        return True
    return False


FIELDS = TaskFields(title="Write the plan", description="All of it", priority=2, due_date=datetime(2026, 12, 1, 10, tzinfo=UTC), labels=("a", "b"))
