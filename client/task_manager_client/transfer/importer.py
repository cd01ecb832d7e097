"""Creates the projects and tasks of a file.

Each call has an idempotency key that follows from the bytes of the file. If an import breaks, the same import of the same file therefore continues:
the server answers the calls that it has executed already as before, for 24 hours.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import chain
from typing import Any, Final, cast

from task_manager_client.client import Client
from task_manager_client.errors import DeadlineExceeded, InvalidField
from task_manager_client.project_values import Project
from task_manager_client.transfer import bounds, refusals
from task_manager_client.transfer.arrange import by_levels
from task_manager_client.transfer.records import Content, ProjectRecord, TaskRecord
from task_manager_client.transfer.report import Report
from task_manager_client.values import NewTask, Task, task_body

Progress = Callable[[int, int], None]

# The server's limit for a batch, and a size of which it takes 2 MiB a second: of larger ones it takes less (docs/limits.md).
BATCH_TASKS: Final = 1000
BATCH_BYTES: Final = 256 * 1024
# A batch that an overloaded server did not finish in time is sent again: it is executed once.
_SLOW_CALLS: Final = 5
# To move a task to the bin takes up to 1000 subtasks along.
_DELETIONS: Final = 100
# The server moves the tasks of a large project in several calls.
_CALLS: Final = 100
# No field says what took a task to the bin: these are how long the server can take for all tasks of a parent and of a project.
_WITH_PARENT: Final = timedelta(seconds=5)
_WITH_PROJECT: Final = timedelta(seconds=60)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Plan:
    """What an import is to create: projects, and tasks by levels."""

    projects: list[ProjectRecord]
    levels: list[list[TaskRecord]]

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return sum(map(len, self.levels))


@dataclass(slots=True)
class Imported:
    """How much an import created. earlier: how many of the tasks an earlier run of the same import had created."""

    projects: int = 0
    tasks: int = 0
    earlier: int = 0


def plan(content: Content, report: Report) -> Plan:
    """Returns what an import creates, within the bounds of the API. Makes no call."""
    for project in content.projects:
        bounds.fit_project(project, report)
    for task in content.tasks:
        bounds.fit_task(task, report)
    return Plan(content.projects, by_levels(content, report))


def key_of(data: bytes, *words: str) -> str:
    """Returns the beginning of the idempotency keys of an import: of the bytes of the file, and of all that decides what they mean."""
    digest = sha256(data)
    for word in words:
        digest.update(b"\0" + word.encode())
    return f"tm-import-{digest.hexdigest()[:40]}"


def run(client: Client, planned: Plan, key: str, report: Report, on_progress: Progress) -> Imported:
    """Creates what is planned, or what is missing of it. Raises TaskManagerError: then the same call continues."""
    return _Run(client, key, report, on_progress, planned.tasks).run(planned)


@dataclass(slots=True)
class _Run:
    client: Client
    key: str
    report: Report
    on_progress: Progress
    total: int
    # The ids that the server gave, by the keys of the file.
    projects: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    done: Imported = field(default_factory=Imported)
    # When the newest task was created that was there before: the tasks of an earlier run are not newer.
    newest: datetime = _EARLIEST

    def run(self, planned: Plan) -> Imported:
        page = self.client.list_tasks(page_size=1, show_deleted=True)
        self.newest = page.tasks[0].created_at if page.tasks else _EARLIEST
        self._create_projects(planned.projects)
        for number, level in enumerate(planned.levels):
            # One after the other: a new task comes last in its list, so this keeps the order of the file.
            for part, batch in enumerate(_batches(level, self._to_create)):
                self._create_tasks(batch, f"{self.key}-tasks-{number}-{part}")
        self._move_to_bin(planned)
        for number, project in enumerate(planned.projects):
            if project.deleted_at is not None:
                self._delete_project(self.projects[project.key], f"{self.key}-bin-project-{number}")
            elif project.is_archived:
                self.client.archive_project(self.projects[project.key], idempotency_key=f"{self.key}-archive-{number}")
        return self.done

    def _create_projects(self, records: Sequence[ProjectRecord]) -> None:
        existing: dict[str, Project] = {}
        if any(record.by_name for record in records):
            for project in self.client.iter_projects():
                existing.setdefault(project.name.casefold(), project)
        for number, record in enumerate(records):
            found = existing.get(record.name.casefold()) if record.by_name else None
            if found is None:
                found = self._create_project(record, f"{self.key}-project-{number}")
                self.done.projects += 1
            self.projects[record.key] = found.id

    def _create_project(self, record: ProjectRecord, key: str) -> Project:
        try:
            return self.client.create_project(record.name, description=record.description, color=record.color, idempotency_key=key)
        except InvalidField as error:
            refusals.fit_project(record, error, self.report)
        return self.client.create_project(record.name, description=record.description, color=record.color, idempotency_key=key)

    def _to_create(self, task: TaskRecord) -> NewTask:
        """Returns the request for a task. Its project and its parent have been created."""
        new = cast("NewTask", {"title": task.title, **task.fields})
        if task.parent:
            new["parent_id"] = self.tasks[task.parent]
        elif task.project:
            new["project_id"] = self.projects[task.project]
        return new

    def _create_tasks(self, batch: Sequence[TaskRecord], key: str) -> None:
        created = self._created(batch, key)
        for task, made in zip(batch, created, strict=True):
            self.tasks[task.key] = made.id
            self.done.earlier += made.created_at <= self.newest
        self.done.tasks += len(batch)
        self.on_progress(self.done.tasks, self.total)

    def _created(self, batch: Sequence[TaskRecord], key: str) -> Sequence[Task]:
        slow = 0
        while True:
            try:
                return self.client.batch_create_tasks([self._to_create(task) for task in batch], idempotency_key=key)
            except InvalidField as error:
                # A refused batch uses up no key.
                refusals.fit_tasks(batch, error, self.report)
            except DeadlineExceeded:
                slow += 1
                if slow == _SLOW_CALLS:
                    raise

    def _move_to_bin(self, planned: Plan) -> None:
        """Moves the tasks to the bin that were there. Those that went there with their parent or their project go with it again."""
        parents = {task.key: task.deleted_at for level in planned.levels for task in level}
        projects = {project.key: project.deleted_at for project in planned.projects}
        number = 0
        # From below: a task that was there before its parent has to be there before.
        for level in reversed(planned.levels):
            gone = [
                self.tasks[task.key]
                for task in level
                if task.deleted_at is not None
                and not _went_along(task.deleted_at, parents.get(task.parent), _WITH_PARENT)
                and not _went_along(task.deleted_at, projects.get(task.project), _WITH_PROJECT)
            ]
            for start in range(0, len(gone), _DELETIONS):
                self.client.batch_delete_tasks(gone[start : start + _DELETIONS], idempotency_key=f"{self.key}-bin-{number}")
                number += 1

    def _delete_project(self, project_id: str, key: str) -> None:
        """Moves a project to the bin: the call continues each time that its time was too short."""
        for _ in range(_CALLS - 1):
            try:
                return self.client.delete_project(project_id, force=True, idempotency_key=key)
            except DeadlineExceeded:
                continue
        return self.client.delete_project(project_id, force=True, idempotency_key=key)


def _went_along(deleted_at: datetime, other: datetime | None, within: timedelta) -> bool:
    return other is not None and abs(other - deleted_at) <= within


def _batches(level: Iterable[TaskRecord], request: Callable[[TaskRecord], Any]) -> Iterator[Sequence[TaskRecord]]:
    """Yields the tasks of a level in batches, those of a list one after the other. The levels above have been created by then."""
    lists: dict[tuple[str, str], list[TaskRecord]] = {}
    for task in level:
        lists.setdefault(_list(task), []).append(task)
    batch: list[TaskRecord] = []
    size = 0
    for task in chain.from_iterable(lists.values()):
        length = len(json.dumps({"task": task_body(request(task))}, ensure_ascii=False).encode())
        if batch and (len(batch) == BATCH_TASKS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += length
    if batch:
        yield batch


def _list(task: TaskRecord) -> tuple[str, str]:
    return (task.parent, "") if task.parent else ("", task.project)
