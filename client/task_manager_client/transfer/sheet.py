"""CSV: one row for each task that is not in the bin, for spreadsheets. The first row names the columns, of which only `title` must be there.

A cell with several values, such as labels, is a row of CSV itself. Programs for spreadsheets execute cells that begin with certain characters, so
these have an apostrophe before them, which the import removes.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import BinaryIO, Final

from task_manager_client.due_values import Anchor, Recurrence, Reminder
from task_manager_client.json_fields import sent_duration, sent_time
from task_manager_client.project_values import Project
from task_manager_client.transfer.records import Content, Source, TaskRecord
from task_manager_client.transfer.report import Report, UnreadableFile
from task_manager_client.values import NewTaskDetails, Task

COLUMNS: Final = (
    *("id", "parent_id", "project", "title", "description", "status", "priority", "due", "time_zone", "recurrence", "repeats_from"),
    *("reminders", "labels", "created_at", "updated_at", "completed_at"),
)
_OTHER_NAMES: Final = {
    "due_date": "due",
    "due_on": "due",
    "rrule": "recurrence",
    "parent": "parent_id",
    "tags": "labels",
    "name": "title",
    "notes": "description",
}
_OUTPUT_ONLY: Final = frozenset({"created_at", "updated_at", "completed_at"})
_EXECUTED: Final = tuple("=+-@\t\r'")
_DELIMITERS: Final = ",;\t"
_STATUSES: Final = ("PENDING", "IN_PROGRESS", "COMPLETED")
_PRIORITIES: Final = ("1", "2", "3", "4", "5")


def write(projects: Iterable[Project], tasks: Iterable[Task], file: BinaryIO, report: Report) -> None:
    """Writes the tasks, with the names of their projects."""
    names = {project.id: project.name for project in projects}
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        for task in tasks:
            if task.project_id and task.project_id not in names:
                report.note(task.id, task.title, "its project was deleted meanwhile: it is in the inbox")
            writer.writerow({name: _guarded(value) for name, value in _row(task, names).items()})
    finally:
        text.detach()


def read(source: Source) -> Content:
    """Returns the tasks of the rows, and their projects. Raises UnreadableFile."""
    content = Content()
    for place, row in rows(source, "title", _OTHER_NAMES):
        cells = {name: _unguarded(value) for name, value in row.items()}
        task = TaskRecord(cells.get("id", ""), cells.get("title", ""), place, parent=cells.get("parent_id", ""))
        task.project = content.named_project(cells.get("project", ""), place)
        _read_details(cells, task, source)
        content.tasks.append(task)
    return content


def rows(source: Source, required: str, other_names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows that are not empty, each with its place and its cells by the column's name in small letters. Raises UnreadableFile."""
    text = source.text
    header_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                if header is None:
                    header = _header(row, line, required, other_names)
                else:
                    yield f"line {line}", dict(zip(header, row, strict=False))
                    if any(cell.strip() for cell in row[len(header) :]):
                        source.report.count("cells behind the last column are left out")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UnreadableFile(f"line {line} is not CSV: {error}") from error
    if header is None:
        raise UnreadableFile(f"line 1 must name the columns, and the file is empty: {required} must be one of them")


def _header(row: Sequence[str], line: int, required: str, other_names: Mapping[str, str]) -> list[str]:
    names = [cell.strip().lower() for cell in row]
    names = [other_names.get(name, name) for name in names]
    if required not in names:
        raise UnreadableFile(f"line {line} must name the columns, and {required} must be one of them")
    return names


def _row(task: Task, names: Mapping[str, str]) -> Mapping[str, str]:
    due = task.due_on.isoformat() if task.due_on else sent_time(task.due_date) if task.due_date else ""
    return {
        "id": task.id,
        "parent_id": task.parent_id,
        "project": names.get(task.project_id, ""),
        "title": task.title,
        "description": task.description,
        "status": task.status.value,
        "priority": str(task.priority),
        "due": due,
        "time_zone": task.time_zone,
        "recurrence": task.recurrence.rrule if task.recurrence else "",
        "repeats_from": task.recurrence.anchor.value if task.recurrence else "",
        "reminders": _joined([_reminder_text(reminder) for reminder in task.reminders]),
        "labels": _joined(task.labels),
        "created_at": sent_time(task.created_at),
        "updated_at": sent_time(task.updated_at),
        "completed_at": sent_time(task.completed_at) if task.completed_at else "",
    }


def _reminder_text(reminder: Reminder) -> str:
    return sent_time(reminder.at) if reminder.at is not None else sent_duration(reminder.before_due or timedelta())


def _read_details(cells: Mapping[str, str], task: TaskRecord, source: Source) -> None:
    fields, note = task.fields, source.report.note
    if text := cells.get("description"):
        fields["description"] = text
    if labels := _split(cells.get("labels", "")):
        fields["labels"] = labels
    if status := cells.get("status", "").strip().upper().replace(" ", "_").replace("-", "_"):
        if status in _STATUSES:
            fields["status"] = status
        else:
            note(task.place, task.title, f"there is no status {cells['status']!r}: it is pending")
    if priority := cells.get("priority", "").strip():
        if priority in _PRIORITIES:
            fields["priority"] = int(priority)
        else:
            note(task.place, task.title, f"there is no priority {priority!r}: it has the priority 3")
    _read_due(cells, fields, task, source)
    for name in cells:
        if name and name not in COLUMNS and cells[name]:
            source.report.count(f"the column {name} is left out")
    if cells.get("completed_at"):
        source.report.count("the time of completion is that of the import")


def _read_due(cells: Mapping[str, str], fields: NewTaskDetails, task: TaskRecord, source: Source) -> None:
    if zone := cells.get("time_zone", "").strip():
        fields["time_zone"] = zone
    due = cells.get("due", "").strip()
    try:
        at = day_or_time(due, source) if due else None
    except ValueError:
        source.report.note(task.place, task.title, f"{due!r} is not a due date such as 2026-12-24 or 2026-12-24T09:00:00Z: it is left out")
        at = None
    # An empty cell of the column means UTC.
    set_due(fields, at, "" if "time_zone" in cells else source.zone)
    if rule := cells.get("recurrence", "").strip():
        from_completion = cells.get("repeats_from", "").strip().upper() == Anchor.COMPLETION
        try:
            fields["recurrence"] = Recurrence(source.rule(rule), Anchor.COMPLETION if from_completion else Anchor.DUE)
        except ValueError as error:
            source.report.note(task.place, task.title, f"it does not repeat: {error}")
    if reminders := list(_reminders(cells.get("reminders", ""), task, source)):
        fields["reminders"] = reminders


def _reminders(cell: str, task: TaskRecord, source: Source) -> Iterator[Reminder]:
    for text in _split(cell):
        try:
            yield _reminder(text, source)
        except (ValueError, OverflowError):
            source.report.note(task.place, task.title, f"{text!r} is not a reminder such as 3600s or 2026-12-24T09:00:00Z: it is left out")


def day_or_time(text: str, source: Source) -> date:
    """Returns the day, or the aware time, of a text of ISO 8601. A time without a zone is in the local one. Raises ValueError."""
    if len(text) <= len("2026-12-24"):
        return date.fromisoformat(text)
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=source.local)).astimezone(UTC)


def set_due(fields: NewTaskDetails, at: date | None, zone: str) -> None:
    """Sets the due date, a day or a time. A day ends in the zone, if the task has no other one."""
    if isinstance(at, datetime):
        fields["due_date"] = at
    elif at is not None:
        fields["due_on"] = at
        if zone:
            fields.setdefault("time_zone", zone)


def _reminder(text: str, source: Source) -> Reminder:
    if text.endswith("s"):
        return Reminder(before_due=timedelta(seconds=int(text.removesuffix("s"))))
    at = day_or_time(text, source)
    return Reminder(at=at if isinstance(at, datetime) else datetime.combine(at, time(), source.local))


def _joined(values: Sequence[str]) -> str:
    if not values:
        return ""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def _split(text: str) -> list[str]:
    return [value.strip() for row in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True) for value in row if value.strip()]


def _guarded(value: str) -> str:
    return f"'{value}" if value.startswith(_EXECUTED) else value


def _unguarded(value: str) -> str:
    return value[1:] if value.startswith("'") and value[1:].startswith(_EXECUTED) else value
