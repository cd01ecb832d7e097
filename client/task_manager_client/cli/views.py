"""The commands that show tasks: ls, show, watch."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Final

import typer

from task_manager_client.cli import when
from task_manager_client.cli.find import DELETED, OPEN, find
from task_manager_client.cli.options import AsJson, TaskId, due_time
from task_manager_client.cli.output import change_line, errors, output, plain, print_json, print_list, print_task, working
from task_manager_client.cli.place import Place
from task_manager_client.values import Status

# As many as people read. Programs get all.
_LIMIT: Final = 50
# An index serves this order, so that it costs the same for any number of tasks.
_ORDER: Final = "priority desc, due_date"

_All = Annotated[bool, typer.Option("--all", "-a", help="Also the tasks that are done.")]
_Status = Annotated[Status | None, typer.Option("--status", "-s", case_sensitive=False, help="Only tasks with this status.")]
_Priority = Annotated[int, typer.Option("--priority", "-p", min=1, max=5, help="Only tasks with at least this priority.", show_default=False)]
_Label = Annotated[list[str] | None, typer.Option("--label", "-l", help="Only tasks with this label. Can be given more than once.", metavar="LABEL")]
_Due = Annotated[str, typer.Option("--due", "-d", help=f"Only tasks that are due by then: {when.EXAMPLES}.", metavar="WHEN")]
_Filter = Annotated[
    str, typer.Option("--filter", "-f", help="An expression of the API, for example: title:report OR labels:work", metavar="EXPRESSION")
]
_OrderBy = Annotated[
    str, typer.Option("--order-by", "-o", help="created_at, updated_at, due_date, priority, title; each with desc.", metavar="FIELDS")
]
_Deleted = Annotated[bool, typer.Option("--deleted", help="Only the tasks in the bin.")]
_Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=0, help="Show at most this many; 0 shows all. [default: 50; with --json all]", metavar="N")
]
_Since = Annotated[str, typer.Option("--since", help="Show also the changes after this resume_token, which --json prints.", metavar="TOKEN")]


def ls(
    context: typer.Context,
    all_tasks: _All = False,
    status: _Status = None,
    priority: _Priority = 1,
    label: _Label = None,
    due: _Due = "",
    filter: _Filter = "",  # noqa: A002 - the API's name
    order_by: _OrderBy = _ORDER,
    deleted: _Deleted = False,
    limit: _Limit = None,
    as_json: AsJson = False,
) -> None:
    """List tasks: those that are not done, the most important first."""
    place: Place = context.obj
    conditions = list(_conditions(status, priority, label or [], due, deleted=deleted, all_tasks=all_tasks))
    expression = " AND ".join([*([f"({filter})"] if filter else []), *conditions])
    limit = (0 if as_json else _LIMIT) if limit is None else limit
    with place.client() as client, working("Reading your tasks"):
        tasks = client.iter_tasks(filter=expression, order_by=order_by, show_deleted=deleted)
        shown = list(islice(tasks, limit or None))
        more = next(tasks, None) is not None
    print_list(shown, _now(), as_json=as_json)
    if as_json or not output().is_terminal:
        return
    if more:
        errors().print(f"[dim]Only the first {limit}. All of them: tm ls --limit 0[/]", highlight=False)
    elif not shown:
        errors().print("[dim]No tasks.[/]" if conditions[1:] or filter else "[dim]Nothing to do. Add a task with: tm add TITLE[/]", highlight=False)


def show(context: typer.Context, id: TaskId, as_json: AsJson = False) -> None:  # noqa: A002 - the name in the help
    """Show everything about a task."""
    place: Place = context.obj
    with place.client() as client:
        ((task_id, _),) = find(client, [id])
        task = client.get_task(task_id)
    if as_json:
        print_json(task.raw)
    else:
        print_task(task, _now())


def watch(context: typer.Context, since: _Since = "", as_json: AsJson = False) -> None:
    """Show changes as they happen, until Ctrl-C. The stream survives lost connections and restarts of the server."""
    place: Place = context.obj
    with place.client() as client, suppress(KeyboardInterrupt):
        if not as_json and output().is_terminal:
            errors().print(f"[dim]Watching the tasks of {plain(client.get_me().email)}. Ctrl-C ends it.[/]", highlight=False)
        for change in client.watch(since, checkpoints=as_json):
            if as_json:
                print_json(change.raw)
            else:
                output().print(change_line(change, _now()), overflow="ellipsis", no_wrap=True)


def _conditions(status: Status | None, priority: int, labels: list[str], due: str, *, deleted: bool, all_tasks: bool) -> Iterator[str]:
    """Yields the conditions of the API's filter; the first is the one without options."""
    if status is not None:
        yield f"status = {status}"
    elif deleted:
        yield DELETED
    elif not all_tasks:
        yield OPEN
    if status is not None and deleted:
        yield DELETED
    if priority > 1:
        yield f"priority >= {priority}"
    for label in labels:
        yield "labels:" + _text(label)
    if due:
        yield f'due_date <= "{due_time(due).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"'


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _now() -> datetime:
    return datetime.now().astimezone()
