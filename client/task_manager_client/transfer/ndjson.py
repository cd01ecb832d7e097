"""NDJSON: everything, as the API's JSON. Each line is a project or a task, with its `type`; the first line names the format."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any, BinaryIO, Final, TypeVar

from task_manager_client.due_values import Anchor, Recurrence, Reminder
from task_manager_client.json_fields import Json, time_of
from task_manager_client.project_values import Project
from task_manager_client.transfer.records import Content, ProjectRecord, Source, TaskRecord
from task_manager_client.transfer.report import Report, UnreadableFile
from task_manager_client.values import NewTaskDetails, Task

Value = TypeVar("Value")

FORMAT: Final = "task-manager"
VERSION: Final = 1
_PRIORITIES: Final = range(1, 6)
_STATUSES: Final = ("PENDING", "IN_PROGRESS", "COMPLETED")


def write(projects: Iterable[Project], tasks: Iterable[Task], file: BinaryIO, report: Report) -> None:  # noqa: ARG001 - nothing is left out
    """Writes all projects and tasks with all their fields, also those that only a newer client knows."""
    file.write(_line({"type": "export", "format": FORMAT, "version": VERSION}))
    file.writelines(_line({"type": "project", **project.raw}) for project in projects)
    file.writelines(_line({"type": "task", **task.raw}) for task in tasks)


def read(source: Source) -> Content:
    """Returns the projects and tasks in the order of their positions. Raises UnreadableFile."""
    projects: list[tuple[tuple[str, str], ProjectRecord]] = []
    tasks: list[tuple[tuple[str, str], TaskRecord]] = []
    for number, line in enumerate(source.text.split("\n"), 1):
        if not line.strip():
            continue
        raw = _parsed(line, number)
        order = (str(raw.get("position") or ""), str(raw.get("id") or ""))
        match raw.get("type"):
            case "export":
                _check(raw, number)
            case "project":
                projects.append((order, _project(raw, number)))
            case "task":
                tasks.append((order, _task(raw, f"line {number}", source.report)))
            case other:
                raise UnreadableFile(f"line {number} is neither a task nor a project: its type is {other!r}")
    # Without positions the order of the file counts: sorting keeps it.
    by_position = [entry[0][0] for entry in (*projects, *tasks)]
    if all(by_position):
        projects.sort(key=lambda entry: entry[0])
        tasks.sort(key=lambda entry: entry[0])
    return Content([project for _, project in projects], [task for _, task in tasks])


def _line(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parsed(line: str, number: int) -> dict[str, Any]:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise UnreadableFile(f"line {number} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise UnreadableFile(f"line {number} is not a JSON object")
    return raw


def _check(raw: Json, number: int) -> None:
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise UnreadableFile(f"line {number} names another format than {FORMAT} version {VERSION}: a newer client may read it")


def _project(raw: Json, number: int) -> ProjectRecord:
    return ProjectRecord(
        key=_text(raw, "id"),
        name=_text(raw, "name"),
        place=f"line {number}",
        description=_text(raw, "description"),
        color=_text(raw, "color"),
        is_archived=bool(raw.get("archived_at")),
        deleted_at=_deleted_at(raw),
    )


def _task(raw: Json, place: str, report: Report) -> TaskRecord:
    task = TaskRecord(_text(raw, "id"), _text(raw, "title"), place, _text(raw, "project_id"), _text(raw, "parent_id"), _deleted_at(raw))
    fields = task.fields
    if text := _text(raw, "description"):
        fields["description"] = text
    if raw.get("labels"):
        fields["labels"] = _valid(raw, "labels", _texts, task, report) or []
    if raw.get("status"):
        fields["status"] = _valid(raw, "status", _status, task, report) or "PENDING"
    if raw.get("priority"):
        fields["priority"] = _valid(raw, "priority", _priority, task, report) or 0
    if zone := _text(raw, "time_zone"):
        fields["time_zone"] = zone
    _read_due(raw, fields, task, report)
    _report_links(raw, task, report)
    return task


def _read_due(raw: Json, fields: NewTaskDetails, task: TaskRecord, report: Report) -> None:
    if raw.get("due_on"):
        fields["due_on"] = _valid(raw, "due_on", date.fromisoformat, task, report)
    elif raw.get("due_date"):
        fields["due_date"] = _valid(raw, "due_date", time_of, task, report)
    if raw.get("recurrence"):
        fields["recurrence"] = _valid(raw, "recurrence", _recurrence, task, report)
    if raw.get("reminders"):
        fields["reminders"] = _valid(raw, "reminders", _reminders, task, report) or []


def _report_links(raw: Json, task: TaskRecord, report: Report) -> None:
    """What no request can set."""
    if raw.get("completed_at"):
        report.count("the time of completion is that of the import")
    if raw.get("next_id"):
        report.count("a completed task that repeats is not linked to the task after it")
    if raw.get("previous_id") and task.fields.get("recurrence") and "COUNT=" in str(raw["recurrence"]):
        report.note(task.place, task.title, "its rule counts the tasks from this one on: tasks before it no longer count")


def _valid(raw: Json, name: str, parse: Callable[[Any], Value], task: TaskRecord, report: Report) -> Value | None:
    """Returns a field's value, or None with a note if it is none."""
    try:
        return parse(raw[name])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        report.note(task.place, task.title, f"{name} has no value that the API knows: it is left out")
        return None


def _deleted_at(raw: Json) -> datetime | None:
    text = _text(raw, "deleted_at")
    try:
        return time_of(text) if text else None
    except ValueError:
        return datetime.now(UTC)


def _text(raw: Json, name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError
    return value


def _status(value: Any) -> str:
    if value not in _STATUSES:
        raise ValueError
    return str(value)


def _priority(value: Any) -> int:
    if value not in _PRIORITIES:
        raise ValueError
    return int(value)


def _recurrence(value: Any) -> Recurrence:
    recurrence = Recurrence.from_json(value)
    if recurrence.anchor is Anchor.UNKNOWN:
        raise ValueError
    return recurrence


def _reminders(value: Any) -> list[Reminder]:
    reminders = [Reminder.from_json(each) for each in value]
    if any((reminder.at is None) == (reminder.before_due is None) for reminder in reminders):
        raise ValueError
    return reminders
