"""Reads the projects and tasks of an account for an export."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from task_manager_client.client import Client
from task_manager_client.project_values import Project
from task_manager_client.transfer.formats import NDJSON, WRITERS
from task_manager_client.transfer.report import Report
from task_manager_client.values import Task

Progress = Callable[[int, int], None]
# A call of the progress for so many tasks.
_STEP: Final = 100


@dataclass(slots=True)
class Exported:
    """How much an export wrote."""

    projects: int = 0
    tasks: int = 0


def export(client: Client, name: str, file: BinaryIO, report: Report, on_progress: Progress, *, filter_text: str = "") -> Exported:
    """Writes the projects and tasks in a format; with a filter, the matching tasks outside the bin and their projects. Raises TaskManagerError.

    NDJSON also has what is in the bin and what is archived, in no order: each has its position. The other formats have the tasks outside the bin in
    their order, each before its subtasks.
    """
    everything = name == NDJSON and not filter_text
    projects = list(client.iter_projects(show_archived=True, show_deleted=everything))
    done = Exported()
    tasks = _counted(_tasks(client, filter_text, everything=everything), done, _total(client, filter_text, everything=everything), on_progress)
    if name != NDJSON:
        tasks = _in_order(list(tasks), projects)
    elif filter_text:
        found = list(tasks)
        used = {task.project_id for task in found}
        tasks, projects = iter(found), [project for project in projects if project.id in used]
    WRITERS[name](projects, tasks, file, report)
    done.projects = len(projects)
    return done


def _tasks(client: Client, filter_text: str, *, everything: bool) -> Iterator[Task]:
    # Newest first, so that a task of the meantime does not move the pages. A task that is moved to the bin meanwhile comes once.
    return client.iter_tasks(filter=filter_text, show_deleted=everything)


def _total(client: Client, filter_text: str, *, everything: bool) -> int:
    page = client.list_tasks(filter=filter_text, show_deleted=everything, include_total_size=True, page_size=1)
    return page.total_size or 0


def _counted(tasks: Iterable[Task], done: Exported, total: int, on_progress: Progress) -> Iterator[Task]:
    for task in tasks:
        done.tasks += 1
        if done.tasks % _STEP == 0:
            on_progress(done.tasks, total)
        yield task
    on_progress(done.tasks, total)


def _in_order(tasks: list[Task], projects: list[Project]) -> Iterator[Task]:
    """Yields the tasks as `tm ls` shows them: by projects and positions, each before its subtasks."""
    ranks = {project.id: rank for rank, project in enumerate(projects, 1)}
    ids = {task.id for task in tasks}
    below: dict[str, list[Task]] = {}
    for task in tasks:
        below.setdefault(task.parent_id if task.parent_id in ids else "", []).append(task)
    for children in below.values():
        children.sort(key=lambda task: (ranks.get(task.project_id, 0), task.position, task.id), reverse=True)
    waiting = below.pop("", [])
    while waiting:
        task = waiting.pop()
        yield task
        waiting += below.pop(task.id, ())
