"""Converts messages of taskmanager.task.v1 to domain values and back. Must not access storage."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.resources import resource_etag, resource_id
from servicekit.rpc.retry import Etags
from servicekit.rpc.timestamps import from_timestamp
from task_service.due.dates import parse_day
from task_service.due.domain import Anchor
from task_service.due.rule_syntax import parse_rule, rule_text
from task_service.query.domain import Field, Status
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery
from task_service.query.order import parse_order
from task_service.tasks.domain import DEFAULT_PRIORITY, WRITABLE_FIELDS, Encoded, Recurrence, Reminder, Task, TaskFields, etag_of
from task_service.tasks.writes import Move, Update

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A lookup in this mapping costs a quarter of Status(number).
_STATUSES: Final = {task_pb2.Task.STATUS_UNSPECIFIED: Status.PENDING} | {status.value: status for status in Status}


def to_message(task: Task, new: Callable[[], task_pb2.Task] = task_pb2.Task) -> task_pb2.Task:
    """Returns the task as an API message. A time that is None is absent.

    `new` creates the empty message: the `add` of a repeated field creates it in the answer, which then need not copy it.
    """
    # Assignments cost two thirds of a constructor with keywords.
    message = new()
    user_id, task_id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, deleted_at, version, *rest = task
    project_id, parent_id, _, due_on, _, recurrence, previous_id, next_id, reminders = rest
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
        _set(message.due_at, due_date)
        if due_on is None:
            _set(message.due_date, due_date)
    if completed_at is not None:
        _set(message.completed_at, completed_at)
    if deleted_at is not None:
        _set(message.deleted_at, deleted_at)
    message.position = task.place
    # Present also if they are empty, as all other texts.
    message.due_on = "" if task.due_on is None else task.due_on.isoformat()
    message.time_zone = task.time_zone
    # Most tasks have nothing of the rest.
    if project_id or parent_id or recurrence or previous_id or next_id or reminders:
        _set_more(message, task)
    return message


def _set_more(message: task_pb2.Task, task: Task) -> None:
    """Sets the fields that few tasks have."""
    for name in ("project_id", "parent_id", "previous_id", "next_id"):
        if (value := getattr(task, name)) is not None:
            setattr(message, name, str(value))
    if task.recurrence is not None:
        message.recurrence.rrule = task.recurrence.rrule
        message.recurrence.anchor = task.recurrence.anchor  # type: ignore[assignment]  # both enums use the same numbers
    for reminder in task.reminders:
        if reminder.at is not None:
            _set(message.reminders.add().at, reminder.at)
        else:
            message.reminders.add().before_due.seconds = reminder.before_due or 0


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
        due_on=parse_day("task.due_on", message.due_on) if message.due_on else None,
        time_zone=message.time_zone,
        recurrence=_to_recurrence(message.recurrence) if message.HasField("recurrence") else None,
        reminders=tuple(_to_reminder(index, each) for index, each in enumerate(message.reminders)),
    )


def to_creation(message: task_pb2.Task) -> TaskFields:
    """Returns the fields of a new task, with its project and its parent. Updates and replacements ignore these two."""
    return replace(to_fields(message), project_id=_id_or_none(message.project_id), parent_id=_id_or_none(message.parent_id))


def _to_recurrence(message: task_pb2.Recurrence) -> Recurrence:
    return Recurrence(rule_text(parse_rule("task.recurrence.rrule", message.rrule)), Anchor(message.anchor or Anchor.DUE))


def _to_reminder(index: int, message: task_pb2.Reminder) -> Reminder:
    if message.HasField("at"):
        return Reminder(at=from_timestamp(f"task.reminders[{index}].at", message.at))
    return Reminder(before_due=message.before_due.seconds)


def _id_or_none(text: str) -> UUID | None:
    return UUID(text) if text else None


def to_move(request: task_service_pb2.MoveTaskRequest, etags: Etags) -> Move:
    """Returns the move that a MoveTask requests."""
    return Move(
        UUID(request.id),
        etags,
        moves_project=request.HasField("project_id"),
        project_id=_id_or_none(request.project_id),
        moves_parent=request.HasField("parent_id"),
        parent_id=_id_or_none(request.parent_id),
        before_id=_id_or_none(request.before_id),
        after_id=_id_or_none(request.after_id),
    )


def to_query(request: task_service_pb2.ListTasksRequest, user_id: UUID) -> ListQuery:
    """Returns the query of a ListTasks. Raises InvalidField."""
    within = {}
    if request.HasField("project_id"):
        within[Field.PROJECT_ID] = _id_or_none(request.project_id)
    if request.HasField("parent_id"):
        within[Field.PARENT_ID] = _id_or_none(request.parent_id)
    return ListQuery(
        user_id=user_id,
        status=Status(request.status) if request.status else None,
        priority=request.priority or None,
        order=parse_order(request.order_by),
        filter=parse_filter(request.filter),
        show_deleted=request.show_deleted,
        within=tuple(within.items()),
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
    return resource_id("task.id", message.id)


def etag(message: task_pb2.Task) -> str:
    """Returns the etag of a task message. Raises InvalidField if it is too long. Creations do not call this: they ignore the etag."""
    return resource_etag("task.etag", message.etag)


def _set(message: Timestamp, time: datetime) -> None:
    """Sets a field to a time. Assignments in place cost a third of a Timestamp that protobuf copies."""
    since = time - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1000
