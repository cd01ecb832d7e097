"""Fixtures with the task service's storage, on a database for each test module and the running Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from taskmanager.task.v1 import task_pb2
from uuid_utils.compat import uuid7

from devstack.stack import Stack
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from task_service.cache.domain import WAIT_SECONDS, Mode
from task_service.cache.repository import PostgresCacheState
from task_service.cache.service import CacheState
from task_service.cache.values import CachedValues
from task_service.due.domain import Anchor
from task_service.query.domain import Status
from task_service.tasks.cache import CachedTasks, FencedTasks
from task_service.tasks.domain import Actor, Encoded, Recurrence, Reminder, Task, TaskFields, version_of
from task_service.tasks.errors import TaskNotFound
from task_service.tasks.messages import encode
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskRepository
from task_service.tasks.writes import Creation, Deletion, Update

WITHIN_SECONDS = 20.0


class Clock:
    """A monotonic clock that only tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Replica:
    """The cache of one replica, with its own knowledge of the cache's state."""

    def __init__(self, tasks: FencedTasks, database: Database, redis: Redis, clock: Callable[[], float] | None = None) -> None:
        """`clock`: time.monotonic, or None for a Clock, with which the replica's knowledge never gets old by itself."""
        self.clock = Clock() if clock is None else clock
        self.redis = redis
        self.figures = CollectorRegistry()
        self.values = CachedValues(redis, 60)
        self.state = CacheState(PostgresCacheState(database), self.values, uuid4, self.figures, self.clock)
        self.cache = CachedTasks(tasks, self.state, self.values, encode, self.figures)

    async def switch_on(self) -> None:
        """Makes rounds until the cache is ON."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                await self.state.round()
                if (known := self.state.relied_on) is not None and known.mode is Mode.ON:
                    return
                if isinstance(self.clock, Clock):
                    self.clock.seconds += WAIT_SECONDS
                # Other transactions of the same PostgreSQL have to end.
                await asyncio.sleep(0.02)

    def reads(self, outcome: str) -> float | None:
        """How many reads had this outcome."""
        return self.figures.get_sample_value("task_cache_reads_total", {"outcome": outcome})


@pytest.fixture
async def redis(system: Stack, patient: None) -> AsyncIterator[Redis]:
    redis = Redis(system.state.redis_url, CollectorRegistry())
    await redis.start()
    yield redis
    await redis.close()


@pytest.fixture
def tasks(database: Database) -> PostgresTasks:
    return PostgresTasks(database)


@pytest.fixture
async def cached(tasks: PostgresTasks, database: Database, redis: Redis) -> CachedTasks:
    """A cache that is ON."""
    replica = Replica(tasks, database, redis)
    await replica.switch_on()
    return replica.cache


async def find(repository: TaskRepository, user_id: UUID, task_id: UUID) -> Task | None:
    """Returns what the repository finds, decoded."""
    found = await repository.find(user_id, task_id)
    return found if found is None or isinstance(found, Task) else decode(found)


def decode(encoded: Encoded) -> Task:
    """Returns the task in an answer."""
    message = task_pb2.Task.FromString(encoded)
    version = version_of(message.etag)
    assert version is not None
    due_at, created_at, updated_at, completed_at, deleted_at = (
        getattr(message, name).ToDatetime(tzinfo=UTC) if message.HasField(name) else None
        for name in ("due_at", "created_at", "updated_at", "completed_at", "deleted_at")
    )
    assert message.HasField("due_date") == (due_at is not None and not message.due_on)
    project_id, parent_id, previous_id, next_id = (
        UUID(value) if (value := getattr(message, name)) else None for name in ("project_id", "parent_id", "previous_id", "next_id")
    )
    return Task(
        user_id=UUID(message.user_id),
        id=UUID(message.id),
        title=message.title,
        description=message.description,
        status=Status(message.status),
        priority=message.priority,
        due_date=due_at,
        labels=tuple(message.labels),
        created_at=created_at,
        updated_at=updated_at,
        completed_at=completed_at,
        deleted_at=deleted_at,
        version=version,
        project_id=project_id,
        parent_id=parent_id,
        position=message.position,
        due_on=date.fromisoformat(message.due_on) if message.due_on else None,
        time_zone=message.time_zone,
        recurrence=Recurrence(message.recurrence.rrule, Anchor(message.recurrence.anchor)) if message.HasField("recurrence") else None,
        previous_id=previous_id,
        next_id=next_id,
        reminders=tuple(
            Reminder(at=each.at.ToDatetime(tzinfo=UTC)) if each.HasField("at") else Reminder(before_due=each.before_due.seconds)
            for each in message.reminders
        ),
    )


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
