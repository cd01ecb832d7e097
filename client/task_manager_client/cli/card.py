"""What `tm show` prints: everything about one task, its subtasks as a tree, and its history."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from task_manager_client.cli import every, remind
from task_manager_client.cli.output import due, kind, labels, mark, output, printable, priority, short_id
from task_manager_client.cli.when import shown
from task_manager_client.client import Client
from task_manager_client.due_values import Anchor
from task_manager_client.values import Actor, Status, Task, TaskChange

# A filter has at most 2 000 characters; an id with its comparison has 52.
_PARENTS: Final = 30
_NAMES: Final = {Status.PENDING: "to do", Status.IN_PROGRESS: "in progress", Status.COMPLETED: "done"}
# They change with every other field.
_UNTOLD: Final = frozenset({"updated_at", "etag"})

Children = Mapping[str, Sequence[Task]]


def subtasks_of(client: Client, task: Task) -> Children:
    """Returns the subtasks at all levels, by the id of their parent, in their order: one call for each level with up to 30 parents."""
    children: dict[str, list[Task]] = {}
    level = list(client.iter_tasks(parent_id=task.id, order_by="position"))
    while level:
        for child in level:
            children.setdefault(child.parent_id, []).append(child)
        ids = [child.id for child in level]
        # A task that moves meanwhile may appear at two levels.
        parents = [each for each in ids if each not in children]
        level = list(chain.from_iterable(_below(client, parents[start : start + _PARENTS]) for start in range(0, len(parents), _PARENTS)))
    return children


def _below(client: Client, parents: Sequence[str]) -> Iterator[Task]:
    return client.iter_tasks(filter=" OR ".join(f"parent_id = {parent}" for parent in parents), order_by="position")


def as_json(task: Task, children: Children, history: Sequence[TaskChange] | None) -> dict[str, Any]:
    """Returns the task with its subtasks, and their subtasks, in `subtasks`, and with its history, if there is one, in `history`."""
    nested = {**task.raw, "subtasks": [as_json(child, children, None) for child in children.get(task.id, ())]}
    return nested if history is None else {**nested, "history": [change.raw for change in history]}


def print_task(task: Task, project: str, children: Children, history: Sequence[TaskChange], now: datetime) -> None:
    """Prints everything about a task. `project` is the name of its project."""
    output().print(_card(task, project, now))
    if task.description:
        output().print()
        output().print(Text(printable(task.description)))
    if children:
        tree = Tree(Text("subtasks", "dim"), guide_style="dim")
        _grow(tree, task, children, now)
        output().print()
        output().print(tree)
    if history:
        output().print()
        output().print(_history(history, now))


def _card(task: Task, project: str, now: datetime) -> Table:
    card = Table.grid(padding=(0, 2, 0, 0))
    card.add_column(style="dim", no_wrap=True)
    card.add_column(overflow="fold")
    for name, value in _rows(task, project, now):
        if value.plain:
            card.add_row(name, value)
    return card


def _rows(task: Task, project: str, now: datetime) -> Iterator[tuple[str, Text]]:
    yield "title", Text(printable(task.title), "bold")
    yield "status", Text.assemble(mark(task), " ", (_NAMES.get(task.status) or str(task.raw["status"]), mark(task).style))
    yield "priority", priority(task)
    yield "project", Text(printable(project), "cyan")
    yield "parent", Text(short_id(task.parent_id), "magenta")
    yield "due", due(task, now)
    yield "zone", Text(printable(task.time_zone if task.due_on or task.recurrence else ""))
    if task.recurrence is not None:
        after = ", counted from the day on which it is done" if task.recurrence.anchor is Anchor.COMPLETION else ""
        yield "repeats", Text(printable(every.described(task.recurrence.rrule) + after))
    yield "reminds", Text(", ".join(remind.shown(reminder, now) for reminder in task.reminders))
    yield "labels", labels(task)
    yield "created", Text(shown(task.created_at, now))
    yield "changed", Text(shown(task.updated_at, now))
    yield "done", Text(shown(task.completed_at, now) if task.completed_at else "")
    yield "deleted", Text(shown(task.deleted_at, now) if task.deleted_at else "", "red")
    yield "previous", Text(short_id(task.previous_id), "magenta")
    yield "next", Text(short_id(task.next_id), "magenta")
    yield "etag", Text(task.etag)
    yield "id", Text(task.id)


def _grow(tree: Tree, task: Task, children: Children, now: datetime) -> None:
    for child in children.get(task.id, ()):
        line = Text.assemble((short_id(child.id), "magenta"), " ", mark(child), f" {printable(child.title)}")
        if (when := due(child, now)).plain:
            line.append_text(Text.assemble("  due ", when))
        _grow(tree.add(line), child, children, now)


def _history(history: Sequence[TaskChange], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("WHEN", "WHAT", "FIELDS", "BY"):
        table.add_column(name, overflow="fold")
    for change in history:
        fields = ", ".join(name for name in change.changed_fields if name not in _UNTOLD)
        at = Text(shown(change.at, now), "dim")
        table.add_row(at, kind(change.kind, change.raw["kind"]), Text(printable(fields)), Text(printable(_by(change.actor)), "dim"))
    return table


def _by(actor: Actor) -> str:
    if actor.session_id:
        return f"session {short_id(actor.session_id)}"
    if actor.api_token_id:
        return f"token {actor.name or short_id(actor.api_token_id)}"
    return "the system"
