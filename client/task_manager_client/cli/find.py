"""Finds tasks by the end of their id, and completes such ids in the shell."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import typer

from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.output import printable, short_id, working
from task_manager_client.cli.place import Place
from task_manager_client.client import Client
from task_manager_client.errors import NotFound, TaskManagerError
from task_manager_client.values import Task

OPEN: Final = "status != COMPLETED"
DELETED: Final = "deleted_at:*"
# The random part of an id has 12 characters.
_END: Final = re.compile(r"[0-9a-f]{4,12}")
_COMPLETIONS: Final = 50


class Found(NamedTuple):
    """A task that a text means. The title is empty if the text is a whole id, for which nothing was read."""

    id: str
    title: str


def find(client: Client, texts: Sequence[str], *, deleted: bool = False) -> list[Found]:
    """Returns the tasks that the texts mean, among those in the bin or outside it. Raises UsageError, NotFound.

    A text that is a whole id costs nothing. For the end of an id the client reads all tasks once.
    """
    ends = {text.lower() for text in texts if not _is_id(text)}
    for end in ends:
        if not _END.fullmatch(end):
            raise UsageError(f"{end!r} is not the end of an id: it has 4 to 12 of the characters 0-9 and a-f")
    matches: dict[str, list[Task]] = {end: [] for end in ends}
    with working("Looking through your tasks"):
        for task in _tasks(client, deleted=deleted) if ends else ():
            for end in ends:
                if task.id.endswith(end):
                    matches[end].append(task)
    return [Found(text.lower(), "") if _is_id(text) else _only(text, matches[text.lower()], deleted=deleted) for text in texts]


def complete_task(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yields the ids of open tasks, each with its title, for the shell's completion."""
    return _completions(context, incomplete, OPEN, deleted=False)


def complete_deleted(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yields the ids of tasks in the bin, each with its title, for the shell's completion."""
    return _completions(context, incomplete, DELETED, deleted=True)


def _completions(context: typer.Context, incomplete: str, expression: str, *, deleted: bool) -> Iterator[tuple[str, str]]:
    place = Place()
    place.profile_name = context.find_root().params.get("profile") or place.profile_name
    # The shell shows nothing instead of an error.
    with suppress(TaskManagerError), place.client() as client:
        for task in islice(client.iter_tasks(filter=expression, order_by="created_at desc", show_deleted=deleted), _COMPLETIONS):
            if short_id(task.id).startswith(incomplete.lower()):
                yield short_id(task.id), printable(task.title)


def _tasks(client: Client, *, deleted: bool) -> Iterator[Task]:
    return client.iter_tasks(filter=DELETED, show_deleted=True) if deleted else client.iter_tasks()


def _only(text: str, found: Sequence[Task], *, deleted: bool) -> Found:
    if not found:
        raise NotFound(f"there is no task {'in the bin ' if deleted else ''}whose id ends in {text}")
    if len(found) > 1:
        several = "; ".join(f"{task.id} ({task.title})" for task in found)
        raise UsageError(f"{len(found)} tasks have an id that ends in {text}: {several}")
    return Found(found[0].id, found[0].title)


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
