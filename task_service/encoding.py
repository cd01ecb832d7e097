"""A task as bytes for the cache: a JSON list. Changing its form needs another number in the cache's keys."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from task_service.domain import Status, Task

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode(task: Task) -> bytes:
    """The task without its ids, which the key has. Times in microseconds since 1970."""
    times = (task.due_date, task.created_at, task.updated_at, task.completed_at, task.deleted_at)
    values = (task.title, task.description, task.status.value, task.priority, task.labels, task.version)
    return orjson.dumps((*values, *(_micros(time) for time in times)))


def decode(user_id: UUID, task_id: UUID, data: bytes) -> Task:
    """The task that `encode` made bytes of."""
    title, description, status, priority, labels, version, *times = orjson.loads(data)
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


def _micros(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
