"""The commands that show tasks: ls, today, overdue, show, watch."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Final

import typer

from task_manager_client.cli import card, when
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import DELETED, OPEN, find, find_place, project_names
from task_manager_client.cli.options import AsJson, Project, TaskId, due, now
from task_manager_client.cli.output import arranged, change_line, errors, output, plain, print_json, raw_of, task_table, working
from task_manager_client.cli.place import Place
from task_manager_client.values import Status

# As many as people read. Programs get all.
_LIMIT: Final = 50
# An index serves this order, so that it costs the same for any number of tasks.
_ORDER: Final = "priority desc, due_date"
_ORDER_IN_PROJECT: Final = "position"

_All = Annotated[bool, typer.Option("--all", "-a", help="Also the tasks that are done.")]
_Status = Annotated[Status | None, typer.Option("--status", "-s", case_sensitive=False, help="Only tasks with this status.")]
_Priority = Annotated[int, typer.Option("--priority", "-p", min=1, max=5, help="Only tasks with at least this priority.", show_default=False)]
_Label = Annotated[list[str] | None, typer.Option("--label", "-l", help="Only tasks with this label. Can be given more than once.", metavar="LABEL")]
_Due = Annotated[str, typer.Option("--due", "-d", help=f"Only tasks that are due by then: {when.EXAMPLES}.", metavar="WHEN")]
_Filter = Annotated[
    str, typer.Option("--filter", "-f", help="An expression of the API, for example: title:report OR labels:work", metavar="EXPRESSION")
]
_OrderBy = Annotated[
    str,
    typer.Option(
        "--order-by",
        "-o",
        help="position, due_date, priority, title, created_at, updated_at; each with desc. [default: priority desc, due_date; in a project position]",
        metavar="FIELDS",
    ),
]
_Deleted = Annotated[bool, typer.Option("--deleted", help="Only the tasks in the bin.")]
_Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=0, help="Show at most this many; 0 shows all. [default: 50; with --json all]", metavar="N")
]
_History = Annotated[bool, typer.Option("--history", "-H", help="Also its changes, newest first: what, when, by whom.")]
_Since = Annotated[str, typer.Option("--since", help="Show also the changes after this resume_token, which --json prints.", metavar="TOKEN")]


def ls(
    context: typer.Context,
    all_tasks: _All = False,
    status: _Status = None,
    priority: _Priority = 1,
    label: _Label = None,
    due: _Due = "",
    project: Project = None,
    filter: _Filter = "",  # noqa: A002 - the API's name
    order_by: _OrderBy = "",
    deleted: _Deleted = False,
    limit: _Limit = None,
    as_json: AsJson = False,
) -> None:
    """List tasks: those that are not done, the most important first; those of a project in their order, with their subtasks."""
    conditions = list(_conditions(status, priority, label or [], due, deleted=deleted, all_tasks=all_tasks))
    conditions[:0] = [f"({filter})"] if filter else []
    limit = (0 if as_json else _LIMIT) if limit is None else limit
    order_by = order_by or (_ORDER if project is None else _ORDER_IN_PROJECT)
    empty = "No tasks." if conditions[1:] or project else "Nothing to do. Add a task with: tm add TITLE"
    _list(context.obj, conditions, order_by, project, limit=limit, deleted=deleted, empty=empty, as_json=as_json)


def today(context: typer.Context, project: Project = None, as_json: AsJson = False) -> None:
    """List what is due by the end of today, the overdue first."""
    conditions = [OPEN, f'due_date <= "{_utc(when.end_of(now().date()))}"']
    _list(context.obj, conditions, "due_date", project, empty="Nothing is due today.", as_json=as_json)


def overdue(context: typer.Context, project: Project = None, as_json: AsJson = False) -> None:
    """List what should be done already, the oldest first."""
    _list(context.obj, [OPEN, f'due_date <= "{_utc(now())}"'], "due_date", project, empty="Nothing is overdue.", as_json=as_json)


def show(context: typer.Context, id: TaskId, history: _History = False, as_json: AsJson = False) -> None:  # noqa: A002 - the name in the help
    """Show everything about a task, with its subtasks."""
    place: Place = context.obj
    with place.client() as client, working("Reading the task"):
        ((task_id, _),) = find(client, [id])
        task = client.get_task(task_id)
        children = card.subtasks_of(client, task)
        changes = list(islice(client.iter_task_changes(task_id), None if as_json else _LIMIT)) if history else []
        project = client.get_project(task.project_id).name if task.project_id and not as_json else ""
    if as_json:
        print_json(card.as_json(task, children, changes if history else None))
    else:
        card.print_task(task, project, children, changes, now())


def watch(context: typer.Context, since: _Since = "", as_json: AsJson = False) -> None:
    """Show changes of tasks and projects, and reminders, as they happen, until Ctrl-C.

    The stream survives lost connections and restarts of the server.
    """
    place: Place = context.obj
    with place.client() as client, suppress(KeyboardInterrupt):
        if not as_json and output().is_terminal:
            errors().print(f"[dim]Watching the tasks of {plain(client.get_me().email)}. Ctrl-C ends it.[/]", highlight=False)
        for change in client.watch(since, checkpoints=as_json, show_projects=True):
            if as_json:
                print_json(change.raw)
            else:
                output().print(change_line(change, now()), overflow="ellipsis", no_wrap=True)


def _list(
    place: Place, conditions: Sequence[str], order_by: str, project: str | None, *, empty: str, as_json: bool, limit: int = 0, deleted: bool = False
) -> None:
    """Prints the tasks that meet all conditions. `limit` is their greatest number, 0 for all. `empty` says that there are none."""
    with place.client() as client, working("Reading your tasks"):
        project_id = None if project is None else find_place(client, project)
        tasks = client.iter_tasks(filter=" AND ".join(conditions), order_by=order_by, show_deleted=deleted, project_id=project_id)
        shown = list(islice(tasks, limit or None))
        more = next(tasks, None) is not None
        names = {} if as_json or project_id is not None else project_names(client, shown)
    if as_json:
        print_json(raw_of(shown))
        return
    if shown:
        in_order = list(arranged(shown)) if order_by == _ORDER_IN_PROJECT else [(0, task) for task in shown]
        output().print(task_table(in_order, now(), names))
    if output().is_terminal and (more or not shown):
        errors().print(f"[dim]Only the first {limit}. All of them: tm ls --limit 0[/]" if more else f"[dim]{empty}[/]", highlight=False)


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
        yield f'due_date <= "{_utc(_end_of(due))}"'


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _end_of(text: str) -> datetime:
    """Returns the time that `--due` names, or the end of the day. Raises UsageError."""
    try:
        return when.end_of(due(text))
    except OverflowError as error:
        raise UsageError(f"{text!r} is the last day of the calendar") from error


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
