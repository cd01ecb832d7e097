"""What `tm` prints: tables and texts for people, coloured on a terminal, and JSON for programs."""

import functools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from task_manager_client.cli.when import end_of, shown
from task_manager_client.json_fields import Json
from task_manager_client.project_values import Project
from task_manager_client.values import Change, ChangeKind, Status, Task

_SHORT_ID: Final = 6
# Without a terminal, nothing is cut or wrapped for its width.
_PIPE_COLUMNS: Final = 10_000
_ZERO_WIDTH_JOINER: Final = "\u200d"

_MARKS: Final = {Status.PENDING: ("○", ""), Status.IN_PROGRESS: ("◐", "cyan"), Status.COMPLETED: ("✓", "green"), Status.UNKNOWN: ("?", "")}
_PRIORITIES: Final = {5: "bold red", 4: "yellow", 3: "", 2: "dim", 1: "dim"}
_KINDS: Final = {
    ChangeKind.CREATED: ("created", "green"),
    ChangeKind.UPDATED: ("changed", "cyan"),
    ChangeKind.DELETED: ("deleted", "red"),
    ChangeKind.RESTORED: ("restored", "yellow"),
    ChangeKind.REMINDER: ("reminder", "bold magenta"),
}
_SOON: Final = timedelta(days=1)
_INDENT: Final = "  "
_REPEATS: Final = " ↻"


@functools.cache
def output() -> Console:
    """Returns the standard output."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


@functools.cache
def errors() -> Console:
    """Returns the standard error output."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_COLUMNS)


def working(text: str) -> AbstractContextManager[object]:
    """Shows on a terminal, as long as the context lasts, what the command is doing."""
    return errors().status(text) if errors().is_terminal else nullcontext()


def print_json(value: Any) -> None:
    """Prints a value as JSON, on one line if it goes to a program."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None), flush=True)  # noqa: T201 - the command's output


def say(markup: str) -> None:
    """Prints a line for people. Use `plain` for the parts that come from elsewhere."""
    output().print(markup, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Returns a text from elsewhere as markup that prints as it is, and cannot control the terminal."""
    return escape(printable(text))


def printable(text: str) -> str:
    """Returns a text whose control characters are replaced, so that it cannot control the terminal."""
    return "".join(character if character.isprintable() or character in f"\n\t{_ZERO_WIDTH_JOINER}" else "�" for character in text)


def short_id(task_id: str) -> str:
    """Returns the end of an id, which is random, unlike its beginning."""
    return task_id[-_SHORT_ID:]


def task_table(tasks: Sequence[tuple[int, Task]], now: datetime, projects: Mapping[str, str]) -> Table:
    """Returns a list of tasks, each with the number of levels by which its title is indented. `projects` has the names of projects to show."""
    table = _table()
    table.add_column("ID", style="magenta", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("P", no_wrap=True)
    table.add_column("DUE", no_wrap=True)
    table.add_column("TITLE", overflow="fold", ratio=1)
    if projects:
        table.add_column("PROJECT", style="cyan", overflow="fold")
    has_labels = any(task.labels for _, task in tasks)
    if has_labels:
        table.add_column("LABELS", style="blue", overflow="fold")
    for level, task in tasks:
        title = Text(_INDENT * level + printable(task.title), "dim" if is_over(task) else _PRIORITIES.get(task.priority, ""))
        cells = [Text(short_id(task.id)), mark(task), priority(task), due(task, now), title]
        cells += [Text(printable(projects.get(task.project_id, "")))] if projects else []
        cells += [labels(task)] if has_labels else []
        table.add_row(*cells)
    return table


def project_table(projects: Sequence[Project]) -> Table:
    """Returns a list of projects."""
    table = _table()
    table.add_column("ID", style="magenta", no_wrap=True)
    table.add_column("NAME", overflow="fold")
    for name, style in (("STATE", "yellow"), ("DESCRIPTION", "dim")):
        table.add_column(name, style=style, overflow="fold")
    for project in projects:
        state = "deleted" if project.deleted_at else "archived" if project.archived_at else ""
        shown_name = Text.assemble(("● ", project.color or "dim"), printable(project.name))
        table.add_row(Text(short_id(project.id)), shown_name, Text(state), Text(printable(project.description.partition("\n")[0])))
    return table


def arranged(tasks: Sequence[Task]) -> Iterator[tuple[int, Task]]:
    """Yields the tasks, each after its parent and with its level. A task whose parent is not among them is at the top."""
    ids = {task.id for task in tasks}
    below: dict[str, list[Task]] = {}
    for task in tasks:
        below.setdefault(task.parent_id if task.parent_id in ids else "", []).append(task)
    waiting = [(0, task) for task in reversed(below.get("", ()))]
    while waiting:
        level, task = waiting.pop()
        yield level, task
        waiting += [(level + 1, child) for child in reversed(below.get(task.id, ()))]


def change_line(change: Change, now: datetime) -> Text:
    """Returns a change that happens now as one line."""
    line = Text.assemble((f"{now:%H:%M:%S}", "dim"), "  ", kind(change.kind, change.raw["kind"]))
    if (task := change.task) is not None:
        line.append_text(Text.assemble((short_id(task.id), "magenta"), "  ", mark(task), f" {printable(task.title)}"))
        if change.kind is ChangeKind.REMINDER and (at := task.due_on or task.due_date):
            line.append(f"  due {shown(at, now)}", "dim")
    if (project := change.project) is not None:
        line.append_text(Text.assemble((short_id(project.id), "magenta"), "  ", ("●", project.color or "dim"), f" {printable(project.name)}"))
        line.append("  (project)", "dim")
    return line


def tell(verb: str, task: Task, now: datetime) -> None:
    """Prints what was done to a task."""
    due = task.due_on or task.due_date
    say(f"{verb} [magenta]{short_id(task.id)}[/] {plain(task.title)}" + (f"  [dim]due {shown(due, now)}[/]" if due else ""))


def raw_of(values: Iterable[Task]) -> list[Json]:
    """Returns the tasks as the server sent them."""
    return [value.raw for value in values]


def kind(kind: ChangeKind, name: str) -> Text:
    """Returns what happened, in a column. `name` is the API's name of the kind."""
    verb, style = _KINDS.get(kind, (name.lower(), ""))
    return Text(f"{verb:9}", style)


def is_over(task: Task) -> bool:
    """Returns whether nobody has to do the task any more."""
    return task.status is Status.COMPLETED or task.deleted_at is not None


def mark(task: Task) -> Text:
    """Returns the status as one character."""
    return Text(*_MARKS[task.status])


def priority(task: Task) -> Text:
    """Returns the priority."""
    return Text(str(task.priority), _PRIORITIES.get(task.priority, ""))


def due(task: Task, now: datetime) -> Text:
    """Returns when the task is due, and whether it repeats."""
    at = task.due_on or task.due_date
    if at is None:
        return Text("")
    end = task.due_at or end_of(at)
    if is_over(task):
        style = "dim"
    elif end < now:
        style = "bold red"
    else:
        style = "yellow" if end - now < _SOON else ""
    return Text(shown(at, now) + (_REPEATS if task.recurrence else ""), style)


def labels(task: Task) -> Text:
    """Returns the labels."""
    return Text(" ".join(printable(label) for label in task.labels), "blue")


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
