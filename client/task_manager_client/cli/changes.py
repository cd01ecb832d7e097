"""The commands that add and change tasks: add, edit, done, reopen, rm, undelete."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Final, TypeAlias, cast

import typer
from rich.progress import track

from task_manager_client.cli import when
from task_manager_client.cli.details import details
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import complete_task, find, find_place
from task_manager_client.cli.options import (
    EVERY_HELP,
    REMIND_HELP,
    AfterDone,
    AsJson,
    DeletedIds,
    Description,
    Due,
    Etag,
    Labels,
    Priority,
    Project,
    TaskId,
    TaskIds,
    now,
    quoted,
)
from task_manager_client.cli.output import errors, plain, print_json, raw_of, say, short_id, tell
from task_manager_client.cli.place import Place
from task_manager_client.cli.zone import local_zone
from task_manager_client.client import Client
from task_manager_client.errors import EtagMismatch, TaskNotFound
from task_manager_client.values import NewTaskDetails, Status, Task, TaskFields

# Small enough that the progress moves, large enough that a thousand tasks take ten calls.
_BATCH: Final = 100
# Another writer would have to change the task between each reading and writing.
_ATTEMPTS: Final = 5

_Title = Annotated[
    list[str], typer.Argument(help="The title; no quotes needed. `-` reads one title from each line of the standard input.", metavar="TITLE...")
]
_NewTitle = Annotated[str | None, typer.Option("--title", "-t", help="The new title.", metavar="TEXT")]
_Unlabel = Annotated[list[str] | None, typer.Option("--unlabel", "-u", help="A label to remove. Can be given more than once.", metavar="LABEL")]
_ClearableDue = Annotated[str | None, typer.Option("--due", "-d", help=f"When it is due: {when.EXAMPLES}; or none.", metavar="WHEN")]
_Every = Annotated[str | None, typer.Option("--every", "-e", help=f"{EVERY_HELP}.", metavar="RULE")]
_ClearableEvery = Annotated[str | None, typer.Option("--every", "-e", help=f"{EVERY_HELP}; or none.", metavar="RULE")]
_Remind = Annotated[list[str] | None, typer.Option("--remind", "-r", help=f"{REMIND_HELP}. Can be given up to 5 times.", metavar="WHEN")]
_ClearableRemind = Annotated[
    list[str] | None, typer.Option("--remind", "-r", help=f"{REMIND_HELP}; or none. Replaces the reminders that it has.", metavar="WHEN")
]
_Parent = Annotated[
    str | None, typer.Option("--parent", help="Make it a subtask of this task: the end of its id.", metavar="ID", autocompletion=complete_task)
]
_Start = Annotated[bool | None, typer.Option("--start/--stop", help="Mark it as in progress, or as not started.")]

_Change: TypeAlias = Callable[[Client, str, str], Task]


def add(
    context: typer.Context,
    title: _Title,
    description: Description = None,
    priority: Priority = None,
    due: Due = None,
    every: _Every = None,
    after_done: AfterDone = False,
    remind: _Remind = None,
    project: Project = None,
    parent: _Parent = None,
    label: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Add a task.

    For example: tm add Water the plants --due "tomorrow 9am" -p 4 -l home

    Or: tm add Pay rent --due 1st --every month --remind 1d --project Home
    """
    place: Place = context.obj
    found = details(description=description, priority=priority, due=due, every=every, after_done=after_done, remind=remind)
    if found.get("recurrence") and not (found.get("due_on") or found.get("due_date")):
        raise UsageError("a task that repeats needs a due date: give --due")
    if project is not None and parent is not None:
        raise UsageError("a subtask is in the project of its parent: give --project or --parent, not both")
    fields = cast("NewTaskDetails", found)
    if label:
        fields["labels"] = label
    with place.client() as client:
        if project is not None:
            fields["project_id"] = find_place(client, project)
        if parent is not None:
            fields["parent_id"] = find(client, [parent])[0].id
        if title == ["-"]:
            tasks = _add_lines(client, [line.strip() for line in sys.stdin if line.strip()], fields)
        else:
            tasks = [client.create_task(" ".join(title), **fields)]
    if as_json:
        print_json(raw_of(tasks) if title == ["-"] else tasks[0].raw)
    elif len(tasks) == 1:
        tell("Added", tasks[0], now())
    else:
        say(f"Added {len(tasks)} tasks.")


def edit(
    context: typer.Context,
    id: TaskId,  # noqa: A002 - the name in the help
    title: _NewTitle = None,
    description: Description = None,
    priority: Priority = None,
    due: _ClearableDue = None,
    every: _ClearableEvery = None,
    after_done: AfterDone = False,
    remind: _ClearableRemind = None,
    label: Labels = None,
    unlabel: _Unlabel = None,
    start: _Start = None,
    etag: Etag = "",
    as_json: AsJson = False,
) -> None:
    """Change a task: only what the options name. `tm mv` moves it to another project, parent or place."""
    place: Place = context.obj
    found = details(description=description, priority=priority, due=due, every=every, after_done=after_done, remind=remind)
    fields = cast("TaskFields", found)
    if title is not None:
        fields["title"] = title
    if start is not None:
        fields["status"] = Status.IN_PROGRESS if start else Status.PENDING
    if not (fields or label or unlabel):
        raise UsageError("there is nothing to change: give an option, for example --title TEXT")
    repeats_without_zone = fields.get("recurrence") is not None and "time_zone" not in fields
    with place.client() as client:
        ((task_id, _),) = find(client, [id])
        if label or unlabel or repeats_without_zone:
            task = _edit_read(client, task_id, fields, label or [], unlabel or [], quoted(etag))
        else:
            task = client.update_task(task_id, etag=quoted(etag), **fields)
    if as_json:
        print_json(task.raw)
    else:
        tell("Changed", task, now())


def done(context: typer.Context, ids: TaskIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Mark tasks as done. A task that repeats is followed by its next one."""
    _change_each(context.obj, ids, etag, "Done:", _set_status(Status.COMPLETED), as_json=as_json, tells_next=True)


def reopen(context: typer.Context, ids: TaskIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Mark tasks as not done."""
    _change_each(context.obj, ids, etag, "Reopened", _set_status(Status.PENDING), as_json=as_json)


def rm(context: typer.Context, ids: TaskIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Move tasks to the bin, with their subtasks. For 30 days, `tm undelete` brings them back."""
    place: Place = context.obj
    _require_one(ids, etag)
    with place.client() as client:
        tasks = find(client, ids)
        for task in tasks:
            client.delete_task(task.id, etag=quoted(etag))
            if not as_json:
                end = short_id(task.id)
                say(f"Deleted [magenta]{end}[/] {plain(task.title)}  [dim](back with: tm undelete {end})[/]")
    if as_json:
        print_json([{"id": task.id} for task in tasks])


def undelete(context: typer.Context, ids: DeletedIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Bring tasks back from the bin, which `tm ls --deleted` shows."""
    _change_each(context.obj, ids, etag, "Restored", _restore, as_json=as_json, deleted=True)


def _set_status(status: Status) -> _Change:
    return lambda client, task_id, etag: client.update_task(task_id, etag=etag, status=status)


def _restore(client: Client, task_id: str, etag: str) -> Task:
    return client.undelete_task(task_id, etag=etag)


def _change_each(
    place: Place, ids: Sequence[str], etag: str, verb: str, change: _Change, *, as_json: bool, deleted: bool = False, tells_next: bool = False
) -> None:
    _require_one(ids, etag)
    changed = []
    with place.client() as client:
        for task in find(client, ids, deleted=deleted):
            changed.append(change(client, task.id, quoted(etag)))
            if not as_json:
                tell(verb, changed[-1], now())
            if tells_next and not as_json:
                _tell_next(client, changed[-1])
    if as_json:
        print_json(raw_of(changed))


def _require_one(ids: Sequence[str], etag: str) -> None:
    if etag and len(ids) > 1:
        raise UsageError("--etag belongs to one task: give one id")


def _edit_read(client: Client, task_id: str, fields: TaskFields, add: Sequence[str], remove: Sequence[str], etag: str) -> Task:
    """Changes a task for which the change depends on what it is. This reads it first, and writes only if nobody else did meanwhile.

    The API replaces all labels at once. A task that now repeats, with a due time and no zone, gets the local zone, in which its rule then counts.
    """
    for attempt in range(_ATTEMPTS):
        task = client.get_task(task_id)
        changed: TaskFields = {**fields}
        if add or remove:
            changed["labels"] = [label for label in (*task.labels, *(new for new in add if new not in task.labels)) if label not in remove]
        if fields.get("recurrence") is not None and "time_zone" not in fields and task.due_on is None and not task.time_zone:
            changed["time_zone"] = local_zone()
        try:
            return client.update_task(task_id, etag=etag or task.etag, **changed)
        except EtagMismatch:
            if etag or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError  # the last attempt returns or raises


def _add_lines(client: Client, titles: Sequence[str], fields: NewTaskDetails) -> list[Task]:
    batches = [titles[start : start + _BATCH] for start in range(0, len(titles), _BATCH)]
    tasks: list[Task] = []
    for batch in track(batches, "Adding", console=errors(), disable=not errors().is_terminal, transient=True):
        tasks += client.batch_create_tasks([{"title": title, **fields} for title in batch])
    return tasks


def _tell_next(client: Client, task: Task) -> None:
    if task.next_id:
        # Somebody may have deleted it: the task was completed before.
        with suppress(TaskNotFound):
            tell("Next:", client.get_task(task.next_id), now())
