"""Brings projects and tasks within the bounds of the API, and reports each change. Nothing is lost without a note.

The bounds are those of the protos. What they do not say, such as which rules have a meaning, the server checks when the task is created.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Final
from unicodedata import normalize
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from task_manager_client.due_values import Recurrence, Reminder
from task_manager_client.transfer import rules
from task_manager_client.transfer.records import ProjectRecord, TaskRecord
from task_manager_client.transfer.report import Report
from task_manager_client.values import NewTaskDetails

TITLE: Final = 200
DESCRIPTION: Final = 10_000
LABEL: Final = 50
LABELS: Final = 20
REMINDERS: Final = 5
BEFORE_DUE: Final = timedelta(days=366)
PROJECT_NAME: Final = 100
PROJECT_DESCRIPTION: Final = 2_000
UNTITLED: Final = "(no title)"
_CUT: Final = "…"


def fit_project(project: ProjectRecord, report: Report) -> None:
    """Brings a project within the bounds."""
    name = _clean(project.name)
    text = _clean(project.description)
    if len(name) > PROJECT_NAME:
        report.note(project.place, name, f"the name is longer than {PROJECT_NAME} characters: the whole is in the description")
        name, text = _cut(name, PROJECT_NAME), f"{name}\n\n{text}".rstrip()
    if len(text) > PROJECT_DESCRIPTION:
        report.note(project.place, name, f"the description is longer than {PROJECT_DESCRIPTION} characters: {_lost(text, PROJECT_DESCRIPTION)}")
        text = _cut(text, PROJECT_DESCRIPTION)
    project.name, project.description = name if name.strip() else UNTITLED, text


def fit_task(task: TaskRecord, report: Report) -> None:
    """Brings a task within the bounds."""
    fields = task.fields
    title, text = _clean(task.title), _clean(fields.get("description", ""))
    if not title.strip():
        report.note(task.place, UNTITLED, "it has no title")
        title = UNTITLED
    if len(title) > TITLE:
        short = _cut(title, TITLE)
        report.note(task.place, short, f"the title is longer than {TITLE} characters: the whole is in the description")
        title, text = short, f"{title}\n\n{text}".rstrip()
    if len(text) > DESCRIPTION:
        report.note(task.place, title, f"the description is longer than {DESCRIPTION} characters: {_lost(text, DESCRIPTION)}")
        text = _cut(text, DESCRIPTION)
    task.title = title
    if text or "description" in fields:
        fields["description"] = text
    if "labels" in fields:
        fields["labels"] = _labels(task, fields["labels"], report)
    if "reminders" in fields:
        fields["reminders"] = _reminders(task, fields["reminders"], report)
    _fit_due(task, fields, report)


def _fit_due(task: TaskRecord, fields: NewTaskDetails, report: Report) -> None:
    zone = fields.get("time_zone", "")
    if zone and not _is_zone(zone):
        report.note(task.place, task.title, f"there is no time zone {zone!r}: the task is in UTC")
        fields["time_zone"] = ""
    recurrence = fields.get("recurrence")
    if recurrence is None:
        return
    try:
        rule = rules.checked(recurrence.rrule)
    except rules.UnknownRule as error:
        report.note(task.place, task.title, f"the rule {recurrence.rrule} cannot be kept: {error}")
        fields["recurrence"] = None
        return
    if fields.get("due_date") is None and fields.get("due_on") is None:
        report.note(task.place, task.title, f"the rule {rule} cannot be kept: the task has no due date")
        fields["recurrence"] = None
    elif rule != recurrence.rrule:
        fields["recurrence"] = Recurrence(rule, recurrence.anchor)


def _labels(task: TaskRecord, labels: Sequence[str], report: Report) -> Sequence[str]:
    cleaned = dict.fromkeys(label for label in map(_clean, labels) if label.strip())
    kept = [label for label in cleaned if len(label) <= LABEL]
    for label in cleaned:
        if len(label) > LABEL:
            report.note(task.place, task.title, f"the label {label!r} is longer than {LABEL} characters: it is left out")
    if len(kept) > LABELS:
        report.note(task.place, task.title, f"it has more than {LABELS} labels: left out are {', '.join(kept[LABELS:])}")
    return kept[:LABELS]


def _reminders(task: TaskRecord, reminders: Sequence[Reminder], report: Report) -> Sequence[Reminder]:
    kept = []
    for reminder in reminders:
        if reminder.before_due is not None and not timedelta() <= reminder.before_due <= BEFORE_DUE:
            report.note(task.place, task.title, "a reminder is after the due date, or more than 366 days before it: it is left out")
        else:
            kept.append(reminder)
    if len(kept) > REMINDERS:
        report.note(task.place, task.title, f"it has more than {REMINDERS} reminders: {len(kept) - REMINDERS} are left out")
    return kept[:REMINDERS]


@lru_cache(maxsize=1024)
def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # Without the data of time zones nobody can tell.
        return not _has_zones()
    return True


def _has_zones() -> bool:
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return False
    return True


def _clean(text: str) -> str:
    """Returns a text as the server keeps it: in Unicode NFC, without NUL and lone halves of characters."""
    if text.isascii():
        return text.replace("\0", "")
    return normalize("NFC", text.replace("\0", "").encode("utf-8", "replace").decode())


def _cut(text: str, size: int) -> str:
    return text[: size - len(_CUT)] + _CUT


def _lost(text: str, size: int) -> str:
    return f"the last {len(text) - size + len(_CUT)} are left out"
