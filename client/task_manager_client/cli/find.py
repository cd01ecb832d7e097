"""Finds tasks and webhooks by the end of their id, projects also by their name, and completes them in the shell."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple
from unicodedata import normalize
from uuid import UUID

import typer

from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.output import printable, short_id, working
from task_manager_client.cli.place import Place
from task_manager_client.client import Client
from task_manager_client.errors import NotFound, TaskManagerError
from task_manager_client.project_values import Project
from task_manager_client.values import Task

OPEN: Final = "status != COMPLETED"
DELETED: Final = "deleted_at:*"
# The random part of an id has 12 characters.
_END: Final = re.compile(r"[0-9a-f]{4,12}")
_COMPLETIONS: Final = 50
# What `--project` and `--parent` take for no project and no parent.
NONE: Final = "none"
INBOX: Final = frozenset({"inbox", NONE})
# Shells complete such a name without quotes.
_PLAIN_NAME: Final = re.compile(r"[\w-]+")


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


def find_project(client: Client, text: str, *, deleted: bool = False) -> str:
    """Returns the id of the project that a text means: its name, in upper or lower case, the end of its id, or its id. Raises UsageError, NotFound.

    If several projects have the name, those that are not archived count.
    """
    if _is_id(text):
        return text.lower()
    projects = [project for project in client.iter_projects(show_archived=True, show_deleted=deleted) if (project.deleted_at is not None) is deleted]
    found = _same_name(projects, text)
    if not found and _END.fullmatch(text.lower()):
        found = [project for project in projects if project.id.endswith(text.lower())]
    found = [project for project in found if project.archived_at is None] or found
    if not found:
        raise NotFound(f"there is no project {'in the bin ' if deleted else ''}named {text!r}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} projects are named {text!r}; give the end of an id: {', '.join(short_id(project.id) for project in found)}")
    return found[0].id


def find_place(client: Client, text: str) -> str:
    """Returns the id of the project in which a task is to be, "" for the inbox. Raises as find_project."""
    return "" if text.lower() in INBOX else find_project(client, text)


def project_names(client: Client, tasks: Iterable[Task]) -> Mapping[str, str]:
    """Returns the names of the projects that the tasks are in, by their ids. Without such a task it makes no call."""
    if not any(task.project_id for task in tasks):
        return {}
    return {project.id: project.name for project in client.iter_projects(show_archived=True)}


def find_webhook(client: Client, text: str) -> str:
    """Returns the id of the webhook that a text means: the end of its id, or its id. Raises UsageError, NotFound."""
    if _is_id(text):
        return text.lower()
    if not _END.fullmatch(text.lower()):
        raise UsageError(f"{text!r} is not the end of an id: it has 4 to 12 of the characters 0-9 and a-f")
    found = [webhook for webhook in client.list_webhooks() if webhook.id.endswith(text.lower())]
    if not found:
        raise NotFound(f"there is no webhook whose id ends in {text}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} webhooks have an id that ends in {text}: {', '.join(webhook.id for webhook in found)}")
    return found[0].id


def complete_project(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yields the names of projects, or the ends of their ids if the names would need quotes, for the shell's completion."""
    with suppress(TaskManagerError), _place(context).client() as client:
        for project in islice(client.iter_projects(), _COMPLETIONS):
            is_plain = _PLAIN_NAME.fullmatch(project.name)
            value, text = (project.name, project.description) if is_plain else (short_id(project.id), project.name)
            if value.lower().startswith(incomplete.lower()):
                yield value, printable(text)


def complete_webhook(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yields the ids of webhooks, each with its URL, for the shell's completion."""
    with suppress(TaskManagerError), _place(context).client() as client:
        for webhook in client.list_webhooks():
            if short_id(webhook.id).startswith(incomplete.lower()):
                yield short_id(webhook.id), printable(webhook.url)


def complete_task(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yields the ids of open tasks, each with its title, for the shell's completion."""
    return _completions(context, incomplete, OPEN, deleted=False)


def complete_deleted(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yields the ids of tasks in the bin, each with its title, for the shell's completion."""
    return _completions(context, incomplete, DELETED, deleted=True)


def _completions(context: typer.Context, incomplete: str, expression: str, *, deleted: bool) -> Iterator[tuple[str, str]]:
    # The shell shows nothing instead of an error.
    with suppress(TaskManagerError), _place(context).client() as client:
        for task in islice(client.iter_tasks(filter=expression, order_by="created_at desc", show_deleted=deleted), _COMPLETIONS):
            if short_id(task.id).startswith(incomplete.lower()):
                yield short_id(task.id), printable(task.title)


def _place(context: typer.Context) -> Place:
    place = Place()
    place.profile_name = context.find_root().params.get("profile") or place.profile_name
    return place


def _same_name(projects: Sequence[Project], text: str) -> list[Project]:
    name = normalize("NFC", text).casefold()
    return [project for project in projects if project.name.casefold() == name]


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
