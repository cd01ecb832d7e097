"""What an import does when the server refuses a field: it leaves the field out, and reports it.

The server knows all bounds, this client only the simple ones.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, cast

from task_manager_client.errors import InvalidField
from task_manager_client.transfer.bounds import UNTITLED
from task_manager_client.transfer.records import ProjectRecord, TaskRecord
from task_manager_client.transfer.report import Report

_TASK_FIELD: Final = re.compile(r"requests\[(\d+)\]\.task\.(\w+)(?:\[(\d+)\])?")
_PROJECT_FIELDS: Final = ("description", "color")


def fit_tasks(batch: Sequence[TaskRecord], error: InvalidField, report: Report) -> None:
    """Leaves out the refused fields of the tasks of a batch. Raises the error if there is nothing to leave out."""
    changed = False
    for path, description in sorted(error.violations, key=_order):
        found = _TASK_FIELD.match(path)
        if found is None or int(found[1]) >= len(batch):
            continue
        changed = _leave_out(batch[int(found[1])], found[2], found[3], description, report) or changed
    if not changed:
        raise error


def fit_project(project: ProjectRecord, error: InvalidField, report: Report) -> None:
    """Leaves out the refused fields of a project. Raises the error if there is nothing to leave out."""
    names = [path.rpartition(".")[2] for path, _ in error.violations]
    for path, description in error.violations:
        name = path.rpartition(".")[2]
        if name in _PROJECT_FIELDS:
            report.note(project.place, project.name, f"{name} is left out: {description}")
            setattr(project, name, "")
        elif name == "name" and project.name != UNTITLED:
            report.note(project.place, project.name, f"the name is left out: {description}")
            project.name = UNTITLED
    if not set(names) & {*_PROJECT_FIELDS, "name"}:
        raise error


def _order(violation: tuple[str, str]) -> tuple[int, int]:
    """The tasks in their order, and of a list the last item first: so the others keep their indexes while it is removed."""
    found = _TASK_FIELD.match(violation[0])
    return (int(found[1]), -int(found[3] or 0)) if found else (0, 0)


def _leave_out(task: TaskRecord, name: str, index: str | None, description: str, report: Report) -> bool:
    """Returns whether the task has changed."""
    fields = cast("dict[str, Any]", task.fields)
    if name == "title" and task.title != UNTITLED:
        report.note(task.place, task.title, f"the title is left out: {description}")
        task.title = UNTITLED
        return True
    if fields.get(name) is None:
        return False
    report.note(task.place, task.title, f"{name} is left out: {description}")
    if index is None or not isinstance(fields[name], list) or int(index) >= len(fields[name]):
        del fields[name]
    else:
        del fields[name][int(index)]
    if name in ("due_on", "due_date"):
        fields.pop("recurrence", None)
    return True
