"""Domain values from messages and messages from domain values: taskmanager.task.v1. Knows protobuf, and nothing of storage."""

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
from task_service.tasks.domain import DEFAULT_PRIORITY, WRITABLE_FIELDS, Task, TaskFields
from task_service.tasks.writes import Update

T = TypeVar("T")

MISSING_TITLE: Final = "must have 1 to 200 characters"
MAX_ETAG_CHARACTERS: Final = 64
# A quarter of what Status(number) costs.
_STATUSES: Final = {task_pb2.Task.STATUS_UNSPECIFIED: Status.PENDING} | {status.value: status for status in Status}
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def to_message(task: Task) -> task_pb2.Task:
    """The task as the API shows it. Times that are not are absent."""
    return task_pb2.Task(
        id=str(task.id),
        user_id=str(task.user_id),
        title=task.title,
        description=task.description,
        status=task.status,  # type: ignore[arg-type]  # the numbers are the same ones
        priority=task.priority,
        labels=task.labels,
        etag=task.etag,
        created_at=_timestamp(task.created_at),
        updated_at=_timestamp(task.updated_at),
        due_date=_timestamp(task.due_date),
        completed_at=_timestamp(task.completed_at),
        deleted_at=_timestamp(task.deleted_at),
    )


def to_fields(message: task_pb2.Task, mask: Sequence[str] = WRITABLE_FIELDS) -> TaskFields:
    """What the message says of the fields in `mask`; what is absent is as in a new task. Raises InvalidField."""
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
    """What an UpdateTask asks for. Raises InvalidField."""
    mask = fields_to_set(request.update_mask, request.task, WRITABLE_FIELDS)
    return Update(task_id(request.task), to_fields(request.task, mask), mask, etags)


def to_replacement(request: task_service_pb2.ReplaceTaskRequest, etags: Etags) -> Update:
    """What a ReplaceTask asks for. Raises InvalidField."""
    return Update(task_id(request.task), to_fields(request.task), WRITABLE_FIELDS, etags)


def task_id(message: task_pb2.Task) -> UUID:
    """The id in a task. Raises InvalidField."""
    # In the one form that buf.validate takes as well; UUID() takes braces, `urn:uuid:` and no hyphens besides.
    if not _UUID.fullmatch(message.id):
        raise InvalidField.of("task.id", "must be a valid UUID")
    return UUID(message.id)


def etag(message: task_pb2.Task) -> str:
    """The etag in a task, where it counts: in what is new it is ignored, whatever it is. Raises InvalidField."""
    if len(message.etag) > MAX_ETAG_CHARACTERS:
        raise InvalidField.of("task.etag", f"must be at most {MAX_ETAG_CHARACTERS} characters")
    return message.etag


def each(requests: Sequence[Any], read: Callable[[Any], T]) -> Sequence[T]:
    """What each request of a batch asks for, read as its single RPC does. Raises InvalidField with the index in the field's path."""
    values = []
    for index, request in enumerate(requests):
        try:
            values.append(read(request))
        except InvalidField as error:
            raise InvalidField(*(Violation(f"requests[{index}].{v.field}", v.description) for v in error.violations)) from error
    return values


def _timestamp(time: datetime | None) -> Timestamp | None:
    return None if time is None else to_timestamp(time)
