"""Todoist's CSV, of one project: https://todoist.com/help/articles/import-or-export-a-project-as-a-csv-file-in-todoist-YC8YvN."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from task_manager_client.transfer.records import Content, Source, TaskRecord
from task_manager_client.transfer.sheet import rows
from task_manager_client.transfer.todoist_dates import UnclearDate, read_date

# Todoist's p1 is the highest and p4 the lowest.
_PRIORITIES: Final = {"1": 5, "2": 4, "3": 3, "4": 2}
_LABEL: Final = re.compile(r"(?:^|(?<=\s))@(\S+)")
# The export writes the number of the project behind its name.
_NUMBER: Final = re.compile(r"\s*\[\w+\]$")
_FILE: Final = "[[file"
_NOT_KEPT: Final = ("responsible", "duration", "deadline")


@dataclass(slots=True)
class _State:
    """What the rows so far mean for the next one: the section, and the last task of each indent."""

    project: str
    section: str = ""
    above: list[TaskRecord] = field(default_factory=list)


def read(source: Source) -> Content:
    """Returns the tasks of a project, whose name is that of the file. Raises UnreadableFile."""
    content = Content()
    state = _State(content.named_project(_NUMBER.sub("", PurePath(source.name).stem), "the file's name"))
    for place, row in rows(source, "type", {}):
        content_text = row.get("content", "").strip()
        match row["type"].strip().lower():
            case "task":
                content.tasks.append(_task(place, row, content_text, state, source))
            case "section":
                state.section, state.above = content_text, []
            case "note":
                _add_comment(place, content_text, state, source)
            case "meta" | "":
                # How Todoist shows the project.
                pass
            case other:
                source.report.note(place, content_text, f"a row of the type {other!r} is left out")
    return content


def _task(place: str, row: Mapping[str, str], text: str, state: _State, source: Source) -> TaskRecord:
    title = " ".join(_LABEL.sub(" ", text).split())
    task = TaskRecord(place, title or text, place, state.project)
    indent = row.get("indent", "").strip()
    level = int(indent) - 1 if indent.isdecimal() and int(indent) > 0 else 0
    del state.above[level:]
    if state.above and level:
        task.parent = state.above[-1].key
    state.above.append(task)
    fields = task.fields
    if description := row.get("description", ""):
        fields["description"] = description
    labels = _LABEL.findall(text) if title else []
    if state.section and not task.parent:
        labels.append(state.section)
    if labels:
        fields["labels"] = labels
    _read_details(row, task, source)
    return task


def _read_details(row: Mapping[str, str], task: TaskRecord, source: Source) -> None:
    fields, place, title = task.fields, task.place, task.title
    if priority := row.get("priority", "").strip():
        if priority in _PRIORITIES:
            fields["priority"] = _PRIORITIES[priority]
        else:
            source.report.note(place, title, f"there is no priority {priority!r} in Todoist: it has the priority 3")
    if text := row.get("date", "").strip():
        try:
            read_date(text, row.get("timezone", "").strip(), fields, source)
        except UnclearDate:
            language = row.get("date_lang", "").strip() or "en"
            source.report.note(place, title, f"the date {text!r} ({language}) is none that tm understands: it is left out")
    for name in _NOT_KEPT:
        if value := row.get(name, "").strip():
            source.report.note(place, title, f"{name} is left out: {value}")


def _add_comment(place: str, text: str, state: _State, source: Source) -> None:
    if not state.above:
        source.report.note(place, text, "a comment on the project is left out")
        return
    task = state.above[-1]
    if _FILE in text:
        source.report.note(place, task.title, "a file of a comment is left out")
        text = text.partition(_FILE)[0].strip()
    if text:
        before = task.fields.get("description", "")
        task.fields["description"] = f"{before}\n\nComment: {text}".lstrip()
