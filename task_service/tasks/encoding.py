"""Encodes a task as bytes for the cache: a JSON list with times in microseconds since 1970, as in page tokens.

If the form of the list changes, the number in the cache's keys must change too.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from task_service.query.domain import Status
from task_service.tasks.domain import Task

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(task: Task) -> bytes:
    """Returns the task as bytes, its ids first."""
    times = (task.due_date, task.created_at, task.updated_at, task.completed_at, task.deleted_at)
    values = (f"{task.user_id}{task.id}", task.title, task.description, task.status.value, task.priority, task.labels, task.version)
    return orjson.dumps((*values, *(_micros(time) for time in times)))


def decode(user_id: UUID, task_id: UUID, data: bytes) -> Task | None:
    """Decodes the bytes from `encode`. Returns None if they hold another task, which would be a fault of the cache."""
    ids, title, description, status, priority, labels, version, *times = orjson.loads(data)
    if ids != f"{user_id}{task_id}":
        return None
    due_date, created_at, updated_at, completed_at, deleted_at = map(_time, times)
    assert created_at is not None
    assert updated_at is not None
    return Task(
        user_id=user_id,
        id=task_id,
        title=title,
        description=description,
        status=Status(status),
        priority=priority,
        due_date=due_date,
        labels=tuple(labels),
        created_at=created_at,
        updated_at=updated_at,
        completed_at=completed_at,
        deleted_at=deleted_at,
        version=version,
    )


def to_micros(time: datetime) -> int:
    """Returns the microseconds since 1970, exactly for every datetime."""
    return (time - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Returns the time in UTC. Raises OverflowError if a datetime cannot hold it."""
    return EPOCH + timedelta(microseconds=micros)


def _micros(time: datetime | None) -> int | None:
    return None if time is None else to_micros(time)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
