"""What `tm` prints: tables and texts for people, coloured on a terminal, and JSON for programs."""

import functools
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from task_manager_client.cli.when import shown
from task_manager_client.values import Change, ChangeKind, Json, Status, Task

_SHORT_ID: Final = 6
# Without a terminal, nothing is cut or wrapped for its width.
_PIPE_COLUMNS: Final = 10_000
_ZERO_WIDTH_JOINER: Final = "\u200d"

_MARKS: Final = {Status.PENDING: ("○", ""), Status.IN_PROGRESS: ("◐", "cyan"), Status.COMPLETED: ("✓", "green"), Status.UNKNOWN: ("?", "")}
_NAMES: Final = {Status.PENDING: "to do", Status.IN_PROGRESS: "in progress", Status.COMPLETED: "done"}
_PRIORITIES: Final = {5: "bold red", 4: "yellow", 3: "", 2: "dim", 1: "dim"}
_KINDS: Final = {
    ChangeKind.CREATED: ("created", "green"),
    ChangeKind.UPDATED: ("changed", "cyan"),
    ChangeKind.DELETED: ("deleted", "red"),
    ChangeKind.RESTORED: ("restored", "yellow"),
}
_SOON: Final = timedelta(days=1)


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
    """Returns the end of a task's id, which is random, unlike its beginning."""
    return task_id[-_SHORT_ID:]


def task_table(tasks: Sequence[Task], now: datetime) -> Table:
    """Returns a list of tasks."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("ID", style="magenta", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("P", no_wrap=True)
    table.add_column("DUE", no_wrap=True)
    table.add_column("TITLE", overflow="fold", ratio=1)
    if any(task.labels for task in tasks):
        table.add_column("LABELS", style="blue", overflow="fold")
    for task in tasks:
        mark, mark_style = _MARKS[task.status]
        is_over = task.status is Status.COMPLETED or task.deleted_at is not None
        title = Text(printable(task.title), style="dim" if is_over else _PRIORITIES.get(task.priority, ""))
        cells = [Text(short_id(task.id)), Text(mark, mark_style), _priority(task), _due(task, now), title, _labels(task)]
        table.add_row(*cells[: len(table.columns)])
    return table


def task_card(task: Task, now: datetime) -> Table:
    """Returns everything about one task."""
    mark, style = _MARKS[task.status]
    rows: list[tuple[str, Text]] = [
        ("title", Text(printable(task.title), "bold")),
        ("status", Text(f"{mark} {_NAMES.get(task.status, task.raw['status'])}", style)),
        ("priority", _priority(task)),
        ("due", _due(task, now)),
        ("labels", _labels(task)),
        ("created", Text(shown(task.created_at, now))),
        ("changed", Text(shown(task.updated_at, now))),
    ]
    rows += [("done", Text(shown(task.completed_at, now)))] if task.completed_at else []
    rows += [("deleted", Text(shown(task.deleted_at, now), "red"))] if task.deleted_at else []
    rows += [("etag", Text(task.etag)), ("id", Text(task.id))]
    card = Table.grid(padding=(0, 2, 0, 0))
    card.add_column(style="dim", no_wrap=True)
    card.add_column(overflow="fold")
    for name, value in rows:
        if value.plain:
            card.add_row(name, value)
    return card


def print_list(tasks: Sequence[Task], now: datetime, *, as_json: bool) -> None:
    """Prints a list of tasks; as JSON, an array."""
    if as_json:
        print_json(raw_of(tasks))
    elif tasks:
        output().print(task_table(tasks, now))


def print_task(task: Task, now: datetime) -> None:
    """Prints everything about a task."""
    output().print(task_card(task, now))
    if task.description:
        output().print()
        output().print(Text(printable(task.description)))


def change_line(change: Change, at: datetime) -> Text:
    """Returns a change as one line."""
    verb, style = _KINDS.get(change.kind, (str(change.raw["kind"]).lower(), ""))
    line = Text.assemble((f"{at:%H:%M:%S}", "dim"), "  ", (f"{verb:9}", style))
    if (task := change.task) is not None:
        mark, mark_style = _MARKS[task.status]
        line.append_text(Text.assemble((short_id(task.id), "magenta"), "  ", (mark, mark_style), f" {printable(task.title)}"))
    return line


def raw_of(values: Iterable[Task]) -> list[Json]:
    """Returns the tasks as the server sent them."""
    return [value.raw for value in values]


def _priority(task: Task) -> Text:
    return Text(str(task.priority), _PRIORITIES.get(task.priority, ""))


def _due(task: Task, now: datetime) -> Text:
    if task.due_date is None:
        return Text("")
    if task.status is Status.COMPLETED or task.deleted_at is not None:
        style = "dim"
    elif task.due_date < now:
        style = "bold red"
    else:
        style = "yellow" if task.due_date - now < _SOON else ""
    return Text(shown(task.due_date, now), style)


def _labels(task: Task) -> Text:
    return Text(" ".join(printable(label) for label in task.labels), "blue")
