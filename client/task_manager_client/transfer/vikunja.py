"""Vikunja's export: a zip file with data.json, or that file alone. It has projects, each with its tasks."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from task_manager_client.due_values import Anchor, Recurrence, Reminder
from task_manager_client.json_fields import Json
from task_manager_client.transfer.html_text import plain_text
from task_manager_client.transfer.records import INBOX, Content, ProjectRecord, Source, TaskRecord
from task_manager_client.transfer.report import UnreadableFile
from task_manager_client.transfer.rules import every
from task_manager_client.values import NewTaskDetails

_DATA: Final = "data.json"
_ZIP: Final = b"PK"
# A damaged or hostile file could otherwise fill the memory.
_MAX_BYTES: Final = 1 << 30
# 0 is none, 1 low, 2 medium, 3 high, 4 urgent, 5 "do now".
_PRIORITIES: Final = {0: 3, 1: 2, 2: 3, 3: 4, 4: 5, 5: 5}
_DAY_SECONDS: Final = 86_400
_MONTHLY: Final = 1
_FROM_NOW: Final = (2, 3)
_LONGEST: Final = 999
_NOT_KEPT: Final = {"assignees": "assignees", "start_date": "its start", "end_date": "its end", "hex_color": "its color"}


def read(source: Source) -> Content:
    """Returns the projects and tasks of an export. Raises UnreadableFile."""
    content = Content()
    projects = list(_projects(_data(source), ""))
    names = {project.get("id"): str(project.get("title", "")) for project, _ in projects}
    for project, path in projects:
        parent = path or names.get(project.get("parent_project_id"), "")
        key = _add_project(project, parent, content, source)
        tasks = [task for task in project.get("tasks") or () if isinstance(task, dict)]
        for raw in sorted(tasks, key=_order):
            content.tasks.append(_task(raw, key, source))
        if project.get("buckets"):
            source.report.count("a project's buckets are left out")
    return content


def _data(source: Source) -> Any:
    data = source.data
    if data.startswith(_ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if archive.getinfo(_DATA).file_size > _MAX_BYTES:
                    raise UnreadableFile(f"{_DATA} in the zip file is larger than 1 GiB")
                data = archive.read(_DATA)
        except KeyError as error:
            raise UnreadableFile(f"the zip file has no {_DATA}: it is no export of Vikunja") from error
        except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, RuntimeError, NotImplementedError) as error:
            raise UnreadableFile(f"the zip file is damaged: {error}") from error
    try:
        return json.loads(data)
    except ValueError as error:
        raise UnreadableFile(f"the file is neither a zip file nor JSON: {error}") from error


def _projects(value: Any, path: str) -> Iterator[tuple[Json, str]]:
    """Yields the projects with the name of the one around them. Older versions have lists in namespaces."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise UnreadableFile("the file has no list of projects: it is no export of Vikunja")
    for project in value:
        if "lists" not in project:
            yield project, path
        for name in ("child_projects", "lists"):
            if project.get(name):
                yield from _projects(project[name], str(project.get("title", "")) if name == "child_projects" else "")


def _add_project(project: Json, parent: str, content: Content, source: Source) -> str:
    """Returns the key of the project."""
    name, place = str(project.get("title") or ""), f"project {project.get('id')}"
    if name.strip().casefold() == INBOX:
        return ""
    if parent:
        source.report.note(place, name, f"projects are in no other ones: its name is now {parent} / {name}")
        name = f"{parent} / {name}"
    color = str(project.get("hex_color") or "").removeprefix("#")
    record = ProjectRecord(f"{place}", name, place, plain_text(str(project.get("description") or "")), f"#{color}" if color else "")
    record.is_archived = bool(project.get("is_archived"))
    content.projects.append(record)
    return record.key


def _order(task: Json) -> tuple[float, float]:
    return float(task.get("position") or 0), float(task.get("index") or task.get("id") or 0)


def _task(raw: Json, project: str, source: Source) -> TaskRecord:
    task = TaskRecord(str(raw.get("id") or ""), str(raw.get("title") or ""), f"task {raw.get('id')}", project)
    fields = task.fields
    if text := _description(raw):
        fields["description"] = text
    if labels := [str(label.get("title") or "") for label in raw.get("labels") or ()]:
        fields["labels"] = labels
    fields["priority"] = _PRIORITIES.get(raw.get("priority") or 0, 3)
    fields["status"] = "COMPLETED" if raw.get("done") else "IN_PROGRESS" if raw.get("percent_done") else "PENDING"
    if (due := _time(raw.get("due_date"))) is not None:
        fields["due_date"] = due
    _read_repetition(raw, fields, task, source)
    if reminders := list(_reminders(raw)):
        fields["reminders"] = reminders
    _read_relations(raw, task, source)
    _report(raw, task, source)
    return task


def _description(raw: Json) -> str:
    parts = [plain_text(str(raw.get("description") or ""))]
    for comment in raw.get("comments") or ():
        author = comment.get("author") or {}
        name = author.get("name") or author.get("username") or ""
        parts.append(f"Comment{f' of {name}' if name else ''}: {plain_text(str(comment.get('comment') or ''))}")
    return "\n\n".join(part for part in parts if part)


def _time(text: Any) -> datetime | None:
    """Returns a time; None for none, which Vikunja writes as the first instant of the calendar."""
    if not isinstance(text, str) or not text or text.startswith("0001-01-01"):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _read_repetition(raw: Json, fields: NewTaskDetails, task: TaskRecord, source: Source) -> None:
    seconds, mode = int(raw.get("repeat_after") or 0), raw.get("repeat_mode") or 0
    if not seconds and mode != _MONTHLY:
        return
    anchor = Anchor.COMPLETION if mode in _FROM_NOW else Anchor.DUE
    days, rest = divmod(seconds, _DAY_SECONDS)
    if mode == _MONTHLY:
        rule = "FREQ=MONTHLY"
    elif rest or not days:
        source.report.note(task.place, task.title, f"it repeats every {seconds} seconds: only whole days can be kept")
        return
    else:
        rule = every(days // 7, "WEEKLY") if days % 7 == 0 and days // 7 <= _LONGEST else every(days, "DAILY")
    fields["recurrence"] = Recurrence(rule, anchor)
    if source.zone:
        fields["time_zone"] = source.zone


def _reminders(raw: Json) -> Iterator[Reminder]:
    for each in raw.get("reminders") or raw.get("reminder_dates") or ():
        reminder = each if isinstance(each, dict) else {"reminder": each}
        if reminder.get("relative_to") == "due_date":
            yield Reminder(before_due=timedelta(seconds=-int(reminder.get("relative_period") or 0)))
        elif (at := _time(reminder.get("reminder"))) is not None:
            yield Reminder(at=at)


def _read_relations(raw: Json, task: TaskRecord, source: Source) -> None:
    for kind, others in (raw.get("related_tasks") or {}).items():
        parents = [str(other.get("id") or "") for other in others or ()]
        if kind == "parenttask" and parents:
            task.parent = parents[0]
            if parents[1:]:
                source.report.note(task.place, task.title, f"it is a subtask of several tasks: now only of task {parents[0]}")
        elif kind != "subtask" and parents:
            source.report.note(task.place, task.title, f"the relation {kind} to task {', '.join(parents)} is left out")


def _report(raw: Json, task: TaskRecord, source: Source) -> None:
    for name, said in _NOT_KEPT.items():
        value = raw.get(name)
        if value and not (isinstance(value, str) and value.startswith("0001-01-01")):
            source.report.note(task.place, task.title, f"{said}: left out")
    for name in ("attachments", "is_favorite"):
        if raw.get(name):
            source.report.note(task.place, task.title, f"{name.removeprefix('is_')}: left out")
    if raw.get("done"):
        source.report.count("the time of completion is that of the import")
