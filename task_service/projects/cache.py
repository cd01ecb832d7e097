"""Fences the tasks that a project takes to the bin or out of it, before they change: see docs/adr/0017-cache-protocol.md. Projects are not cached."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from servicekit.rpc.retry import Idempotency
from task_service.cache.domain import State
from task_service.projects.domain import Project
from task_service.projects.order import ProjectQuery
from task_service.projects.places import ProjectPlace
from task_service.projects.writes import Cascade, ProjectDeletion, ProjectOperation, ProjectUndeletion, ProjectWritten
from task_service.tasks.domain import Actor
from task_service.tasks.errors import NotFenced

R = TypeVar("R")


class FencedProjects(Protocol):
    """The repository below the cache: a ProjectRepository whose writes compare the state of the cache."""

    async def find(self, user_id: UUID, project_id: UUID) -> Project | None:
        """See ProjectRepository.find."""

    async def list(self, query: ProjectQuery, after: ProjectPlace | None, limit: int) -> Sequence[Project]:
        """See ProjectRepository.list."""

    async def list_next_tasks(self, user_id: UUID, cascade: Cascade) -> Sequence[UUID]:
        """Returns the tasks that the write of the cascade would change now."""

    async def write(
        self,
        actor: Actor,
        operation: ProjectOperation,
        idempotency: Idempotency | None = None,
        *,
        state: State | None = None,
        fenced: Sequence[UUID] | None = None,
        on_failed: Callable[[], None] | None = None,
    ) -> ProjectWritten:
        """See ProjectRepository.write, and FencedTasks.write for the parameters. `fenced` None: no cache has these tasks."""


class Fences(Protocol):
    """The cache of tasks: see CachedTasks.write_fenced."""

    async def write_fenced(
        self, user_id: UUID, task_ids: Sequence[UUID], write: Callable[[State | None, Sequence[UUID], Callable[[], None]], Awaitable[R]]
    ) -> R:
        """Fences the tasks, and those that the write names in NotFenced, and executes the write."""


class CachedProjects:
    """A ProjectRepository over another one."""

    def __init__(self, repository: FencedProjects, fences: Fences) -> None:
        self._repository = repository
        self._fences = fences

    async def find(self, user_id: UUID, project_id: UUID) -> Project | None:
        """See ProjectRepository.find."""
        return await self._repository.find(user_id, project_id)

    async def list(self, query: ProjectQuery, after: ProjectPlace | None, limit: int) -> Sequence[Project]:
        """See ProjectRepository.list."""
        return await self._repository.list(query, after, limit)

    async def write(self, actor: Actor, operation: ProjectOperation, idempotency: Idempotency | None = None) -> ProjectWritten:
        """See ProjectRepository.write."""
        if not isinstance(operation, ProjectDeletion | ProjectUndeletion):
            return await self._repository.write(actor, operation, idempotency)
        task_ids = await self._repository.list_next_tasks(actor.user_id, operation)
        if not task_ids:
            try:
                return await self._repository.write(actor, operation, idempotency, fenced=())
            except NotFenced as error:
                # Another call has added tasks meanwhile.
                task_ids = list(error.task_ids)

        async def write(state: State | None, fenced: Sequence[UUID], on_failed: Callable[[], None]) -> ProjectWritten:
            return await self._repository.write(actor, operation, idempotency, state=state, fenced=fenced, on_failed=on_failed)

        return await self._fences.write_fenced(actor.user_id, task_ids, write)
