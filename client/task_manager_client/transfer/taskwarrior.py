"""Taskwarrior's JSON, as `task export` prints it: https://taskwarrior.org/docs/design/task.html. One task a line, or one array."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any, Final

from task_manager_client.due_values import Recurrence
from task_manager_client.json_fields import Json
from task_manager_client.transfer.records import Content, Source, TaskRecord
from task_manager_client.transfer.report import UnreadableFile
from task_manager_client.transfer.rules import every
from task_manager_client.transfer.sheet import set_due

_PRIORITIES: Final = {"H": 5, "M": 4, "L": 2, "": 3}
_TIME: Final = "%Y%m%dT%H%M%SZ"
_UNITS: Final = {"d": ("DAILY", 1), "w": ("WEEKLY", 1), "m": ("MONTHLY", 1), "q": ("MONTHLY", 3), "y": ("YEARLY", 1)}
_NAMES: Final = {
    **dict.fromkeys(("daily", "day"), "1d"),
    **dict.fromkeys(("weekly", "week", "sennight"), "1w"),
    **dict.fromkeys(("biweekly", "fortnight"), "2w"),
    **dict.fromkeys(("monthly", "month"), "1m"),
    **dict.fromkeys(("bimonthly",), "2m"),
    **dict.fromkeys(("quarterly",), "1q"),
    **dict.fromkeys(("semiannual",), "6m"),
    **dict.fromkeys(("annual", "yearly", "year"), "1y"),
    **dict.fromkeys(("biannual", "biyearly"), "2y"),
}
_DURATION: Final = re.compile(r"p?(\d+)\s*(?:(d)(?:ays?)?|(w)(?:ks?|eeks?)?|(m)(?:o|os|nths?|ths?|onths?)?|(q)(?:trs?|uarters?)?|(y)(?:rs?|ears?)?)")
# What Taskwarrior derives, and what this module reads or the server sets.
_READ: Final = frozenset(
    (
        *("id", "uuid", "description", "status", "entry", "modified", "end", "start", "due", "project", "priority", "tags", "annotations"),
        *("recur", "parent", "mask", "imask", "rtype", "last", "template", "urgency"),
    )
)


def read(source: Source) -> Content:
    """Returns the tasks, except the deleted ones. Raises UnreadableFile."""
    content = Content()
    entries = list(_entries(source.text))
    newest = _newest(entries)
    for place, raw in entries:
        uuid, status = str(raw.get("uuid") or ""), raw.get("status")
        if status == "deleted":
            source.report.count("a deleted task is left out")
        elif status == "recurring" and uuid in newest:
            # The template of tasks that are in the file.
            continue
        else:
            parent = str(raw.get("parent") or "")
            repeats = newest.get(parent) == uuid if parent else status != "completed"
            content.tasks.append(_task(place, raw, content, source, repeats=repeats))
    return content


def _entries(text: str) -> list[tuple[str, Json]]:
    """Returns the tasks with their places. Taskwarrior writes each on a line of its own, also in an array."""
    try:
        return list(_lines(text))
    except ValueError as error:
        if not text.lstrip().startswith("["):
            raise UnreadableFile(str(error)) from error
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise UnreadableFile(f"the file is not JSON: {error}") from error
    return [(f"task {number}", _object(task, f"task {number}")) for number, task in enumerate(tasks, 1)]


def _lines(text: str) -> Iterator[tuple[str, Json]]:
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip().removeprefix("[").rstrip(",").removesuffix("]").strip().rstrip(",")
        if not bare:
            continue
        try:
            value = json.loads(bare)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        yield f"line {number}", _object(value, f"line {number}")


def _object(value: Any, place: str) -> Json:
    if not isinstance(value, dict) or not isinstance(value.get("description"), str):
        raise UnreadableFile(f"{place} is no task of Taskwarrior: it has no description")
    return value


def _newest(entries: list[tuple[str, Json]]) -> dict[str, str]:
    """Returns for each template the newest of its tasks that is open: the one that goes on repeating."""
    newest: dict[str, tuple[float, str]] = {}
    for _, raw in entries:
        parent = str(raw.get("parent") or "")
        if parent and raw.get("status") in ("pending", "waiting"):
            found = float(raw.get("imask") or 0), str(raw.get("uuid") or "")
            newest[parent] = max(newest.get(parent, found), found)
    return {parent: uuid for parent, (_, uuid) in newest.items()}


def _task(place: str, raw: Json, content: Content, source: Source, *, repeats: bool) -> TaskRecord:
    title, note = raw["description"], source.report.note
    task = TaskRecord(str(raw.get("uuid") or ""), title, place, content.named_project(str(raw.get("project") or ""), place))
    fields = task.fields
    _read_content(raw, task, source)
    fields["status"] = "COMPLETED" if raw.get("status") == "completed" else "IN_PROGRESS" if raw.get("start") else "PENDING"
    if due := raw.get("due"):
        try:
            set_due(fields, _due(due, source), source.zone)
        except (ValueError, TypeError):
            note(place, title, f"{due!r} is not a time of Taskwarrior: the due date is left out")
    if repeats and (recur := str(raw.get("recur") or "")):
        _read_recurrence(recur, task, source)
    if fields["status"] == "COMPLETED":
        source.report.count("the time of completion is that of the import")
    for name in sorted(set(raw) - _READ):
        note(place, title, f"{name} is left out: {raw[name]}")
    return task


def _read_content(raw: Json, task: TaskRecord, source: Source) -> None:
    fields = task.fields
    notes = [str(each.get("description") or "") for each in raw.get("annotations") or ()]
    if notes:
        fields["description"] = "\n".join(notes)
    if tags := raw.get("tags"):
        fields["labels"] = [str(tag) for tag in (tags if isinstance(tags, list) else str(tags).split(","))]
    priority = str(raw.get("priority") or "")
    fields["priority"] = _PRIORITIES.get(priority, 3)
    if priority not in _PRIORITIES:
        source.report.note(task.place, task.title, f"there is no priority {priority!r}: it has the priority 3")


def _due(text: str, source: Source) -> date:
    """Returns a time. Midnight in the local time zone is the day: `due:2026-12-24` means that day to Taskwarrior."""
    at = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    local = at.astimezone(source.local)
    return local.date() if local.time() == time() else at


def _read_recurrence(recur: str, task: TaskRecord, source: Source) -> None:
    said = recur.strip().lower()
    rule = every(1, "WEEKLY", "MO,TU,WE,TH,FR") if said == "weekdays" else _rule(_NAMES.get(said, said))
    if not rule:
        source.report.note(task.place, task.title, f"it repeats {recur!r}: that cannot be kept")
        return
    task.fields["recurrence"] = Recurrence(rule)
    if source.zone:
        task.fields["time_zone"] = source.zone


def _rule(text: str) -> str:
    found = _DURATION.fullmatch(text)
    if found is None:
        return ""
    (unit,) = [each for each in found.groups()[1:] if each]
    frequency, times = _UNITS[unit]
    return every(int(found[1]) * times, frequency)
