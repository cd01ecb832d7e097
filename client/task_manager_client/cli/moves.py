"""The command that moves tasks: mv."""

from collections.abc import Sequence
from typing import Annotated

import typer

from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import NONE, complete_task, find, find_place
from task_manager_client.cli.options import AsJson, Etag, Project, TaskIds, now, quoted
from task_manager_client.cli.output import print_json, raw_of, tell
from task_manager_client.cli.place import Place
from task_manager_client.client import Client
from task_manager_client.values import Task

_Parent = Annotated[
    str | None,
    typer.Option("--parent", help="Make it a subtask of this task: the end of its id; or none.", metavar="ID", autocompletion=complete_task),
]
_Before = Annotated[
    str | None, typer.Option("--before", "-b", help="Place it before this task, in its list.", metavar="ID", autocompletion=complete_task)
]
_After = Annotated[
    str | None, typer.Option("--after", "-a", help="Place it after this task, in its list.", metavar="ID", autocompletion=complete_task)
]


def mv(
    context: typer.Context,
    ids: TaskIds,
    project: Project = None,
    parent: _Parent = None,
    before: _Before = None,
    after: _After = None,
    etag: Etag = "",
    as_json: AsJson = False,
) -> None:
    """Move tasks, with their subtasks, to another place, parent or project. Without --before and --after they come last.

    For example: tm mv 1a2b3c --project Home

    Or: tm mv 1a2b3c --after 4d5e6f
    """
    place: Place = context.obj
    if etag and len(ids) > 1:
        raise UsageError("--etag belongs to one task: give one id")
    if before is not None and after is not None:
        raise UsageError("give --before or --after, not both")
    is_below = parent is not None and parent.lower() != NONE
    if is_below and project is not None:
        raise UsageError("a subtask is in the project of its parent: give --project or --parent, not both")
    sibling = before if before is not None else after
    with place.client() as client:
        found = find(client, [*ids, *([parent] if parent is not None and is_below else []), *([sibling] if sibling is not None else [])])
        sibling_id = found.pop().id if sibling is not None else ""
        parent_id = found.pop().id if is_below else None if parent is None else ""
        project_id = None if project is None else find_place(client, project)
        if sibling_id and parent_id is None and project_id is None:
            # Into the list in which the other task is.
            other = client.get_task(sibling_id)
            project_id, parent_id = other.project_id, other.parent_id
        task_ids = [task.id for task in found]
        moved = _move_each(client, task_ids, project_id, parent_id, sibling_id, is_after=after is not None, etag=quoted(etag))
    if as_json:
        print_json(raw_of(moved))
    else:
        for task in moved:
            tell("Moved", task, now())


def _move_each(
    client: Client, ids: Sequence[str], project_id: str | None, parent_id: str | None, sibling_id: str, *, is_after: bool, etag: str
) -> list[Task]:
    """Moves the tasks to one place, in their order."""
    moved: list[Task] = []
    for task_id in ids:
        before_id, after_id = ("", sibling_id) if is_after else (sibling_id, "")
        moved.append(client.move_task(task_id, project_id=project_id, parent_id=parent_id, before_id=before_id, after_id=after_id, etag=etag))
        if is_after:
            sibling_id = task_id
    return moved
