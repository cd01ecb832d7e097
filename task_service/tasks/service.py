"""The use cases of tasks. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what the use cases need."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from servicekit.errors import InvalidField
from servicekit.rpc.paging import Key
from servicekit.rpc.retry import Idempotency
from task_service.query.list_query import ListQuery, Position
from task_service.tasks.domain import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Actor, Encoded, Listed, Place, Task, TaskFields
from task_service.tasks.errors import BasisChanged, TaskNotFound
from task_service.tasks.pages import fitting, from_token, position_of, to_token
from task_service.tasks.series import independent, needs_task, planned, stored, unplanned
from task_service.tasks.writes import Creation, Deletion, Move, Operations, Undeletion, Update, Written


class TaskRepository(Protocol):
    """Stores tasks. A write and its rows in the change log commit together or not at all. All methods raise DependencyUnavailable."""

    async def find(self, user_id: UUID, task_id: UUID) -> Task | Encoded | None:
        """Returns the task, or None if the user has no task with that id. The answer is never older than an acknowledged write."""

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """Returns the user's tasks with these ids, by id. Ids without a task are missing in the result."""

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """Returns at most `limit` tasks of the query after `after`, without the first `skip`, in the query's order and with ties in the order of ids.

        The place in the user's change log and, if `with_total`, the total are from the same snapshot. The total of all tasks, or
        of those of some statuses, is known. Any other total counts every matching task: its cost grows with their number.
        """

    async def write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None = None) -> Written:
        """Executes all of the operations, in order, or none. Raises WriteRefused; BasisChanged if an update was not planned for the task as it is.

        If the idempotency key was used for the same request in the last 24 hours, changes nothing and returns the answer of that request.
        """


class Tokens(Protocol):
    """Creates and reads tokens that hold a position: see servicekit.rpc.paging.PlaceTokens."""

    def seal(self, position: Sequence[Key], query: Sequence[Key]) -> str:
        """Returns a token for the position, bound to the query."""

    def open(self, token: str, query: Sequence[Key]) -> Sequence[Key]:
        """Returns the position in a token. Raises InvalidPageToken, or InvalidResumeToken."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of tasks. The page token is empty on the last page. `place` and `total_size` are those of Listed."""

    tasks: Sequence[Task]
    next_page_token: str
    place: Place
    total_size: int | None = None


class TaskService:
    """Every method acts for one user and sees only that user's tasks."""

    def __init__(self, repository: TaskRepository, page_tokens: Tokens, new_id: Callable[[], UUID], announce: Callable[[UUID], None]) -> None:
        """`announce` notifies the streams of a user that the user's tasks have changed."""
        self._repository = repository
        self._page_tokens = page_tokens
        self._new_id = new_id
        self._announce = announce

    async def get_task(self, user_id: UUID, task_id: UUID) -> Task | Encoded:
        """Returns the task. Raises TaskNotFound."""
        task = await self._repository.find(user_id, task_id)
        if task is None:
            raise TaskNotFound
        return task

    async def batch_get_tasks(self, user_id: UUID, task_ids: Sequence[UUID]) -> Sequence[Task]:
        """Returns the tasks in the order of the ids. Raises TaskNotFound for the first id without a task."""
        found = await self._repository.find_all(user_id, task_ids)
        for index, task_id in enumerate(task_ids):
            if task_id not in found:
                raise TaskNotFound(index)
        return [found[task_id] for task_id in task_ids]

    async def list_tasks(self, query: ListQuery, *, page_size: int, page_token: str, skip: int, with_total: bool = False) -> Page:
        """Returns a page. A `page_size` of 0 means DEFAULT_PAGE_SIZE; one above MAX_PAGE_SIZE means MAX_PAGE_SIZE. Raises InvalidPageToken."""
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = from_token(self._page_tokens.open(page_token, query.identity()), query.order) if page_token else None
        # Reads one task more than the page has, to know whether another page follows.
        listed = await self._repository.list(query, after, skip, size + 1, with_total=with_total)
        tasks = fitting(listed.tasks[:size], lambda task: task)
        complete = len(tasks) == len(listed.tasks)
        token = "" if complete else self._page_tokens.seal(to_token(position_of(tasks[-1], query.order)), query.identity())
        return Page(tasks, token, listed.place, listed.total_size)

    async def create_tasks(self, actor: Actor, tasks: Sequence[TaskFields], idempotency: Idempotency | None) -> Written:
        """Creates tasks. Like every write, it does all or nothing, and raises WriteRefused."""
        return await self._write(actor, [Creation(self._new_id(), stored(fields)) for fields in tasks], idempotency)

    async def update_tasks(
        self, actor: Actor, updates: Sequence[Update], idempotency: Idempotency | None, path: Callable[[int], str] = lambda _: "task"
    ) -> Written:
        """Sets the fields in each mask and no others. An update that completes a recurring task creates the next one.

        `path` returns the field of the request that has the task of an update. Raises InvalidField in addition.
        """
        if not any(map(needs_task, updates)):
            with contextlib.suppress(BasisChanged):
                return await self._write(actor, [independent(update) for update in updates], idempotency)
        task_ids = list({update.id: None for update in updates})
        while True:
            tasks = await self._repository.find_all(actor.user_id, task_ids)
            try:
                plans = planned(updates, tasks, datetime.now(UTC), self._new_id, path)
            except InvalidField:
                if idempotency is not None:
                    # A repetition gets the first answer, whatever the tasks are now.
                    with contextlib.suppress(BasisChanged):
                        return await self._write(actor, [unplanned(update) for update in updates], idempotency)
                raise
            with contextlib.suppress(BasisChanged):
                return await self._write(actor, plans, idempotency)

    async def move_task(self, actor: Actor, move: Move, idempotency: Idempotency | None) -> Written:
        """Moves a task with its subtasks to another place, parent or project."""
        return await self._write(actor, [move], idempotency)

    async def delete_tasks(self, actor: Actor, deletions: Sequence[Deletion], idempotency: Idempotency | None) -> Written:
        """Moves tasks to the bin, with their subtasks."""
        return await self._write(actor, deletions, idempotency)

    async def undelete_task(self, actor: Actor, undeletion: Undeletion, idempotency: Idempotency | None) -> Written:
        """Restores a task from the bin, with the subtasks that it took along."""
        return await self._write(actor, [undeletion], idempotency)

    async def _write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None) -> Written:
        written = await self._repository.write(actor, operations, idempotency)
        if not written.replayed:
            self._announce(actor.user_id)
        return written
