"""Converts messages of taskmanager.task.v1 to domain values and back. Must not access storage."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import InvalidField, Violation
from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.retry import Etags
from servicekit.rpc.timestamps import from_timestamp, to_timestamp
from task_service.query.domain import Status
from task_service.tasks.domain import DEFAULT_PRIORITY, WRITABLE_FIELDS, Encoded, Task, TaskFields
from task_service.tasks.writes import Update

T = TypeVar("T")

MISSING_TITLE: Final = "must have 1 to 200 characters"
MAX_ETAG_CHARACTERS: Final = 64
# A lookup in this mapping costs a quarter of Status(number).
_STATUSES: Final = {task_pb2.Task.STATUS_UNSPECIFIED: Status.PENDING} | {status.value: status for status in Status}
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def to_message(task: Task) -> task_pb2.Task:
    """Returns the task as an API message. A time that is None is absent."""
    return task_pb2.Task(
        id=str(task.id),
        user_id=str(task.user_id),
        title=task.title,
        description=task.description,
        status=task.status,  # type: ignore[arg-type]  # both enums use the same numbers
        priority=task.priority,
        labels=task.labels,
        etag=task.etag,
        created_at=_timestamp(task.created_at),
        updated_at=_timestamp(task.updated_at),
        due_date=_timestamp(task.due_date),
        completed_at=_timestamp(task.completed_at),
        deleted_at=_timestamp(task.deleted_at),
    )


def encode(task: Task) -> Encoded:
    """Returns the task as the bytes of its API message."""
    return Encoded(to_message(task).SerializeToString())


def to_fields(message: task_pb2.Task, mask: Sequence[str] = WRITABLE_FIELDS) -> TaskFields:
    """Returns the fields of the message. An absent field has the default of a new task.

    Raises InvalidField if `mask` has the title and the title is empty, or if the due date is not valid.
    """
    if "title" in mask and not message.title:
        raise InvalidField.of("task.title", MISSING_TITLE)
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
    return Update(task_id(request.task), to_fields(request.task, mask), mask, etags)


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


def each(requests: Sequence[Any], read: Callable[[Any], T]) -> Sequence[T]:
    """Reads each request of a batch with the function of the single RPC. Raises InvalidField with the index in the field's path."""
    values = []
    for index, request in enumerate(requests):
        try:
            values.append(read(request))
        except InvalidField as error:
            raise InvalidField(*(Violation(f"requests[{index}].{v.field}", v.description) for v in error.violations)) from error
    return values


def _timestamp(time: datetime | None) -> Timestamp | None:
    return None if time is None else to_timestamp(time)
