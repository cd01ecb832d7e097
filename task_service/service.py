"""The use cases of tasks. Imports neither grpc, protobuf, asyncpg nor redis: what it needs of them is a Protocol here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from servicekit.paging import Key
from task_service.domain import DEFAULT_PAGE_SIZE, MAX_PAGE_BYTES, MAX_PAGE_SIZE, WRITABLE_FIELDS, Actor, Listed, Task, TaskFields
from task_service.errors import TaskNotFound
from task_service.filtering import ListQuery, Position, from_token, position_of, to_token


class TaskRepository(Protocol):
    """Where tasks are kept. Every write and its row in the change log commit together or not at all. All raise DependencyUnavailable."""

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        """The task, or None if the user has none with that id. Never older than an acknowledged write."""

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """At most `limit` tasks of the query, in its order, ties by id, from `skip` behind `after`.

        Of the same moment are the number of the user's last change and, if wanted, the total, which takes time in proportion to what it counts.
        """

    async def insert(self, actor: Actor, task_id: UUID, fields: TaskFields) -> Task:
        """The new task."""

    async def update(self, actor: Actor, task_id: UUID, fields: TaskFields, mask: Sequence[str]) -> Task | None:
        """The task after the fields named in `mask` were set, or None if there is none."""

    async def delete(self, actor: Actor, task_id: UUID) -> Task | None:
        """The task as deleted, or None if there is none."""


class PageTokens(Protocol):
    """Makes and reads page tokens: see servicekit.paging.PageTokens."""

    def seal(self, position: Sequence[Key], query: Sequence[Key]) -> str:
        """A token."""

    def open(self, token: str, query: Sequence[Key]) -> Sequence[Key]:
        """What a token was made of. Raises InvalidPageToken."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of tasks. The token is empty on the last. `last_seq` and `total_size` are those of Listed."""

    tasks: Sequence[Task]
    next_page_token: str
    last_seq: int
    total_size: int | None = None


class TaskService:
    """Every method acts for one user and sees only that user's tasks."""

    def __init__(self, repository: TaskRepository, page_tokens: PageTokens, new_id: Callable[[], UUID]) -> None:
        self._repository = repository
        self._page_tokens = page_tokens
        self._new_id = new_id

    async def create_task(self, actor: Actor, fields: TaskFields) -> Task:
        """Makes a task."""
        return await self._repository.insert(actor, self._new_id(), fields)

    async def get_task(self, user_id: UUID, task_id: UUID) -> Task:
        """Raises TaskNotFound."""
        return _found(await self._repository.find(user_id, task_id))

    async def list_tasks(self, query: ListQuery, *, page_size: int, page_token: str, skip: int, with_total: bool = False) -> Page:
        """A page; `page_size` 0 is the default one, and too large a one counts as the largest. Raises InvalidPageToken."""
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = from_token(self._page_tokens.open(page_token, query.identity()), query.order) if page_token else None
        # One more than the page has, to see whether another follows.
        listed = await self._repository.list(query, after, skip, size + 1, with_total=with_total)
        tasks = _fitting(listed.tasks[:size])
        complete = len(tasks) == len(listed.tasks)
        token = "" if complete else self._page_tokens.seal(to_token(position_of(tasks[-1], query.order)), query.identity())
        return Page(tasks, token, listed.last_seq, listed.total_size)

    async def update_task(self, actor: Actor, task_id: UUID, fields: TaskFields, mask: Sequence[str]) -> Task:
        """Sets the fields in `mask` and no others. Raises TaskNotFound."""
        return _found(await self._repository.update(actor, task_id, fields, mask))

    async def replace_task(self, actor: Actor, task_id: UUID, fields: TaskFields) -> Task:
        """Sets all fields. Raises TaskNotFound."""
        return await self.update_task(actor, task_id, fields, WRITABLE_FIELDS)

    async def delete_task(self, actor: Actor, task_id: UUID) -> None:
        """Raises TaskNotFound."""
        _found(await self._repository.delete(actor, task_id))


def _found(task: Task | None) -> Task:
    if task is None:
        raise TaskNotFound
    return task


def _fitting(tasks: Sequence[Task]) -> Sequence[Task]:
    """As many of the first tasks as fit on a page, and at least one."""
    size = 0
    for count, task in enumerate(tasks):
        size += task.text_bytes
        if size > MAX_PAGE_BYTES and count > 0:
            return tasks[:count]
    return tasks
