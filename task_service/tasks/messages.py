"""Converts messages of taskmanager.task.v1 to domain values and back. Must not access storage."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import InvalidField
from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.retry import Etags
from servicekit.rpc.timestamps import from_timestamp
from task_service.query.domain import Status
from task_service.tasks.domain import DEFAULT_PRIORITY, WRITABLE_FIELDS, Encoded, Task, TaskFields, etag_of
from task_service.tasks.writes import Update

T = TypeVar("T")

MAX_ETAG_CHARACTERS: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A lookup in this mapping costs a quarter of Status(number).
_STATUSES: Final = {task_pb2.Task.STATUS_UNSPECIFIED: Status.PENDING} | {status.value: status for status in Status}
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def to_message(task: Task, new: Callable[[], task_pb2.Task] = task_pb2.Task) -> task_pb2.Task:
    """Returns the task as an API message. A time that is None is absent.

    `new` creates the empty message: the `add` of a repeated field creates it in the answer, which then need not copy it.
    """
    # Assignments cost two thirds of a constructor with keywords.
    message = new()
    user_id, task_id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, deleted_at, version = task
    message.id = str(task_id)
    message.user_id = str(user_id)
    message.title = title
    message.description = description
    message.status = status  # type: ignore[assignment]  # both enums use the same numbers
    message.priority = priority
    message.etag = etag_of(version)
    _set(message.created_at, created_at)
    _set(message.updated_at, updated_at)
    if labels:
        message.labels.extend(labels)
    if due_date is not None:
        _set(message.due_date, due_date)
    if completed_at is not None:
        _set(message.completed_at, completed_at)
    if deleted_at is not None:
        _set(message.deleted_at, deleted_at)
    return message


def encode(task: Task) -> Encoded:
    """Returns the task as the bytes of its API message."""
    return Encoded(to_message(task).SerializeToString())


def to_fields(message: task_pb2.Task) -> TaskFields:
    """Returns the fields of the message, which has passed its checks. An absent field has the default of a new task."""
    return TaskFields(
        title=message.title,
        description=message.description,
        status=_STATUSES[message.status],
        priority=message.priority or DEFAULT_PRIORITY,
        due_date=from_timestamp("task.due_date", message.due_date) if message.HasField("due_date") else None,
        labels=tuple(message.labels),
    )


def to_update(request: task_service_pb2.UpdateTaskRequest, etags: Etags) -> Update:
    """Returns the update that an UpdateTask requests. Raises InvalidField."""
    mask = fields_to_set(request.update_mask, request.task, WRITABLE_FIELDS)
    return Update(task_id(request.task), to_fields(request.task), mask, etags)


def to_replacement(request: task_service_pb2.ReplaceTaskRequest, etags: Etags) -> Update:
    """Returns the update that a ReplaceTask requests. Raises InvalidField."""
    return Update(task_id(request.task), to_fields(request.task), WRITABLE_FIELDS, etags)


def task_id(message: task_pb2.Task) -> UUID:
    """Returns the id of a task message. Raises InvalidField."""
    # Only the form that buf.validate accepts. UUID() also accepts braces, `urn:uuid:` and an id without hyphens.
    if not _UUID.fullmatch(message.id):
        raise InvalidField.of("task.id", "must be a valid UUID")
    return UUID(message.id)


def etag(message: task_pb2.Task) -> str:
    """Returns the etag of a task message. Raises InvalidField if it is too long. Creations do not call this: they ignore the etag."""
    if len(message.etag) > MAX_ETAG_CHARACTERS:
        raise InvalidField.of("task.etag", f"must be at most {MAX_ETAG_CHARACTERS} characters")
    return message.etag


def _set(message: Timestamp, time: datetime) -> None:
    """Sets a field to a time. Assignments in place cost a third of a Timestamp that protobuf copies."""
    since = time - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1000
