"""Converts tasks and operations from and to the forms that they have in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from task_service.due.domain import Anchor, Series
from task_service.query.domain import Status
from task_service.query.list_statement import COLUMN_NAMES
from task_service.tasks.domain import Recurrence, Reminder, Task, TaskFields, position_of, seq_of, version_of
from task_service.tasks.writes import Creation, Move, Operation, Operations, Update

# The columns whose values differ from those of a Task. The others are the same, in the same order.
STATUS: Final = COLUMN_NAMES.index("status")
LABELS: Final = COLUMN_NAMES.index("labels")
TIME_ZONE: Final = COLUMN_NAMES.index("time_zone")
RECURRENCE: Final = COLUMN_NAMES.index("recurrence")
REMINDERS: Final = COLUMN_NAMES.index("reminders")
# Of the columns that were added after 0001_tasks.sql and are not nullable: what a task of before has in them. The snapshots in the change log and the
# answers under idempotency keys are kept as they were written, without columns that were added since. A nullable column needs no entry: it is null.
ADDED_COLUMNS: Final[Mapping[str, object]] = {}
# A lookup in this mapping costs a third of Status(number).
_STATUSES: Final = {status.value: status for status in Status}


def to_task(row: Any) -> Task:
    """Returns the task in a row that begins with COLUMNS."""
    values = list(row[: len(COLUMN_NAMES)])
    values[STATUS] = _STATUSES[values[STATUS]]
    values[LABELS] = tuple(values[LABELS])
    values[TIME_ZONE] = values[TIME_ZONE] or ""
    if values[RECURRENCE] is not None:
        values[RECURRENCE] = _to_recurrence(orjson.loads(values[RECURRENCE]))
    values[REMINDERS] = () if values[REMINDERS] is None else tuple(map(_to_reminder, orjson.loads(values[REMINDERS])))
    return Task._make(values)


def of_snapshot(row: Any) -> Task:
    """Returns the task in a row that begins with COLUMNS and was made from a snapshot, of whatever version."""
    if not ADDED_COLUMNS:
        return to_task(row)
    values = list(row[: len(COLUMN_NAMES)])
    for name, value in ADDED_COLUMNS.items():
        index = COLUMN_NAMES.index(name)
        values[index] = value if values[index] is None else values[index]
    return to_task(values)


def to_operation(n: int, operation: Operation) -> Mapping[str, Any]:
    """Returns the operation in the form that task.write takes."""
    values: dict[str, Any] = {"n": n, "id": str(operation.id)}
    if not isinstance(operation, Creation) and operation.etags is not None:
        values["versions"] = [version for version in map(version_of, operation.etags) if version is not None]
    match operation:
        case Creation(fields=fields):
            values |= _of_fields(fields)
            if fields.project_id is not None:
                values["project_id"] = str(fields.project_id)
            if fields.parent_id is not None:
                values["parent_id"] = str(fields.parent_id)
        case Update(fields=fields, mask=mask, basis=basis, next=following):
            values |= _of_fields(fields) | {"mask": mask}
            if basis is not None:
                values["basis"] = basis
            if following is not None:
                values["next"] = {"id": str(following.id), "due_date": following.fields.due_date, **_of_schedule(following.fields)}
        case Move():
            values |= {"moves_project": operation.moves_project, "moves_parent": operation.moves_parent}
            ids = {name: getattr(operation, name) for name in ("project_id", "parent_id", "before_id", "after_id")}
            # Ids from asyncpg are of a class that orjson does not know.
            values |= {name: str(value) for name, value in ids.items() if value is not None}
    return values


def created(operations: Operations, first: Task) -> Sequence[Task]:
    """Returns the created tasks: the requested fields, with the times and the version of the first task. This is cheaper than to read all back.

    None of them has a parent, because then task.write returns them all.
    """
    now, seq = first.created_at, seq_of(first.place)
    tasks = []
    for n, operation in enumerate(operations):
        assert isinstance(operation, Creation)
        fields = operation.fields
        told = (fields.title, fields.description, fields.status, fields.priority, fields.due_date, fields.labels)
        completed_at = now if fields.status is Status.COMPLETED else None
        task = Task(first.user_id, operation.id, *told, now, now, completed_at, None, first.version, fields.project_id, None, position_of(seq + n))
        if fields.due_on or fields.time_zone or fields.recurrence or fields.reminders:
            task = task._replace(due_on=fields.due_on, time_zone=fields.time_zone, recurrence=fields.recurrence, reminders=fields.reminders)
        tasks.append(task)
    return tasks


def _of_fields(fields: TaskFields) -> dict[str, Any]:
    values: dict[str, Any] = {"title": fields.title, "description": fields.description, "status": fields.status, "priority": fields.priority}
    values |= {"due_date": fields.due_date, "labels": fields.labels}
    # What most tasks do not have is left out, so that PostgreSQL need not parse it.
    return values | _of_schedule(fields) if fields.due_on or fields.time_zone or fields.recurrence or fields.reminders else values


def _of_schedule(fields: TaskFields) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if fields.due_on is not None:
        values["due_on"] = fields.due_on
    if fields.time_zone:
        values["time_zone"] = fields.time_zone
    if fields.recurrence is not None:
        values["recurrence"] = _of_recurrence(fields.recurrence)
    if fields.reminders:
        values["reminders"] = [{"before_due": each.before_due} if each.at is None else {"at": each.at} for each in fields.reminders]
    return values


def _of_recurrence(recurrence: Recurrence) -> dict[str, Any]:
    assert recurrence.series is not None
    start, number = recurrence.series.start, recurrence.series.number
    return {"rrule": recurrence.rrule, "anchor": recurrence.anchor, "start": start.isoformat(), "number": number}


def _to_recurrence(values: Mapping[str, Any]) -> Recurrence:
    series = Series(datetime.fromisoformat(values["start"]), values["number"])
    return Recurrence(values["rrule"], Anchor(values["anchor"]), series)


def _to_reminder(values: Mapping[str, Any]) -> Reminder:
    at = values.get("at")
    return Reminder(None if at is None else datetime.fromisoformat(at), values.get("before_due"))
