"""The commands that add and change tasks: add, edit, done, reopen, rm, undelete."""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Final, TypeAlias, cast

import typer
from rich.progress import track

from task_manager_client.cli import when
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import find
from task_manager_client.cli.options import AsJson, DeletedIds, Description, Due, Etag, Labels, Priority, TaskId, TaskIds, due_time
from task_manager_client.cli.output import errors, plain, print_json, raw_of, say, short_id
from task_manager_client.cli.place import Place
from task_manager_client.client import Client
from task_manager_client.errors import EtagMismatch
from task_manager_client.values import Status, Task, TaskDetails, TaskFields

# Small enough that the progress moves, large enough that a thousand tasks take ten calls.
_BATCH: Final = 100
# Another writer would have to change the task between each reading and writing.
_LABEL_ATTEMPTS: Final = 5

_Title = Annotated[
    list[str], typer.Argument(help="The title; no quotes needed. `-` reads one title from each line of the standard input.", metavar="TITLE...")
]
_NewTitle = Annotated[str | None, typer.Option("--title", "-t", help="The new title.", metavar="TEXT")]
_Unlabel = Annotated[list[str] | None, typer.Option("--unlabel", "-u", help="A label to remove. Can be given more than once.", metavar="LABEL")]
_ClearableDue = Annotated[str | None, typer.Option("--due", "-d", help=f"When it is due: {when.EXAMPLES}; or none.", metavar="WHEN")]
_Start = Annotated[bool | None, typer.Option("--start/--stop", help="Mark it as in progress, or as not started.")]

_Change: TypeAlias = Callable[[Client, str, str], Task]


def add(
    context: typer.Context,
    title: _Title,
    description: Description = None,
    priority: Priority = None,
    due: Due = None,
    label: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Add a task.

    For example: tm add Water the plants --due "tomorrow 9am" -p 4 -l home
    """
    place: Place = context.obj
    details = _details(description, priority, due, label)
    with place.client() as client:
        if title == ["-"]:
            tasks = _add_lines(client, [line.strip() for line in sys.stdin if line.strip()], details)
        else:
            tasks = [client.create_task(" ".join(title), **details)]
    if as_json:
        print_json(raw_of(tasks) if title == ["-"] else tasks[0].raw)
    elif len(tasks) == 1:
        _tell("Added", tasks[0])
    else:
        say(f"Added {len(tasks)} tasks.")


def edit(
    context: typer.Context,
    id: TaskId,  # noqa: A002 - the name in the help
    title: _NewTitle = None,
    description: Description = None,
    priority: Priority = None,
    due: _ClearableDue = None,
    label: Labels = None,
    unlabel: _Unlabel = None,
    start: _Start = None,
    etag: Etag = "",
    as_json: AsJson = False,
) -> None:
    """Change a task: only what the options name."""
    place: Place = context.obj
    fields = cast("TaskFields", _details(description, priority, due, None))
    if title is not None:
        fields["title"] = title
    if start is not None:
        fields["status"] = Status.IN_PROGRESS if start else Status.PENDING
    if not (fields or label or unlabel):
        raise UsageError("there is nothing to change: give an option, for example --title TEXT")
    with place.client() as client:
        ((task_id, _),) = find(client, [id])
        if label or unlabel:
            task = _edit_labels(client, task_id, fields, label or [], unlabel or [], quoted(etag))
        else:
            task = client.update_task(task_id, etag=quoted(etag), **fields)
    if as_json:
        print_json(task.raw)
    else:
        _tell("Changed", task)


def done(context: typer.Context, ids: TaskIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Mark tasks as done."""
    _change_each(context.obj, ids, etag, "Done:", _set_status(Status.COMPLETED), as_json=as_json)


def reopen(context: typer.Context, ids: TaskIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Mark tasks as not done."""
    _change_each(context.obj, ids, etag, "Reopened", _set_status(Status.PENDING), as_json=as_json)


def rm(context: typer.Context, ids: TaskIds, etag: Etag = "", as_json: AsJson = False) -> None:
    """Move tasks to the bin. For 30 days, `tm undelete` brings them back."""
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


def quoted(etag: str) -> str:
    """Returns an etag in double quotes, which shells tend to remove; "" for none."""
    return f'"{etag}"' if etag and not etag.startswith('"') else etag


def _set_status(status: Status) -> _Change:
    return lambda client, task_id, etag: client.update_task(task_id, etag=etag, status=status)


def _restore(client: Client, task_id: str, etag: str) -> Task:
    return client.undelete_task(task_id, etag=etag)


def _change_each(place: Place, ids: Sequence[str], etag: str, verb: str, change: _Change, *, as_json: bool, deleted: bool = False) -> None:
    _require_one(ids, etag)
    changed = []
    with place.client() as client:
        for task in find(client, ids, deleted=deleted):
            changed.append(change(client, task.id, quoted(etag)))
            if not as_json:
                _tell(verb, changed[-1])
    if as_json:
        print_json(raw_of(changed))


def _require_one(ids: Sequence[str], etag: str) -> None:
    if etag and len(ids) > 1:
        raise UsageError("--etag belongs to one task: give one id")


def _details(description: str | None, priority: int | None, due: str | None, labels: Sequence[str] | None) -> TaskDetails:
    """Returns the fields that the options name. `none` as the due time clears it. Raises UsageError."""
    details: TaskDetails = {}
    if description is not None:
        details["description"] = description
    if priority is not None:
        details["priority"] = priority
    if due is not None:
        details["due_date"] = None if due.strip().lower() == "none" else due_time(due)
    if labels:
        details["labels"] = list(labels)
    return details


def _edit_labels(client: Client, task_id: str, fields: TaskFields, add: Sequence[str], remove: Sequence[str], etag: str) -> Task:
    """Changes a task and its labels. The API replaces all labels at once, so this reads them first and writes only if nobody else did meanwhile."""
    for attempt in range(_LABEL_ATTEMPTS):
        task = client.get_task(task_id)
        kept = [label for label in (*task.labels, *(new for new in add if new not in task.labels)) if label not in remove]
        changed: TaskFields = {**fields, "labels": kept}
        try:
            return client.update_task(task_id, etag=etag or task.etag, **changed)
        except EtagMismatch:
            if etag or attempt == _LABEL_ATTEMPTS - 1:
                raise
    raise AssertionError  # the last attempt returns or raises


def _add_lines(client: Client, titles: Sequence[str], details: TaskDetails) -> list[Task]:
    batches = [titles[start : start + _BATCH] for start in range(0, len(titles), _BATCH)]
    tasks: list[Task] = []
    for batch in track(batches, "Adding", console=errors(), disable=not errors().is_terminal, transient=True):
        tasks += client.batch_create_tasks([{"title": title, **details} for title in batch])
    return tasks


def _tell(verb: str, task: Task) -> None:
    now = datetime.now().astimezone()
    due = f"  [dim]due {when.shown(task.due_date, now)}[/]" if task.due_date else ""
    say(f"{verb} [magenta]{short_id(task.id)}[/] {plain(task.title)}{due}")
