"""The use cases of projects. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what the use cases need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar
from uuid import UUID

from servicekit.rpc.retry import Idempotency
from task_service.projects.domain import Project, ProjectFields
from task_service.projects.order import ProjectQuery
from task_service.projects.places import ProjectPlace, from_token, place_after, to_token
from task_service.projects.writes import (
    Archiving,
    Cascade,
    ProjectCreation,
    ProjectDeletion,
    ProjectMove,
    ProjectOperation,
    ProjectUndeletion,
    ProjectUpdate,
    ProjectWritten,
)
from task_service.tasks.domain import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Actor
from task_service.tasks.errors import ProjectNotFound
from task_service.tasks.service import Tokens

C = TypeVar("C", ProjectDeletion, ProjectUndeletion)


class ProjectRepository(Protocol):
    """Stores projects. A write and its rows in the change log commit together or not at all. All methods raise DependencyUnavailable."""

    async def find(self, user_id: UUID, project_id: UUID) -> Project | None:
        """Returns the project, or None if the user has no project with that id outside the bin."""

    async def list(self, query: ProjectQuery, after: ProjectPlace | None, limit: int) -> Sequence[Project]:
        """Returns at most `limit` projects of the query after `after`, in the query's order."""

    async def write(self, actor: Actor, operation: ProjectOperation, idempotency: Idempotency | None = None) -> ProjectWritten:
        """Executes the operation, or a part of it: see ProjectWritten.more. Raises WriteRefused.

        If the idempotency key was used for the same request in the last 24 hours, changes nothing and returns the answer of that request. The answer
        is kept when nothing of the operation is left.
        """


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """A page of projects. The page token is empty on the last page."""

    projects: Sequence[Project]
    next_page_token: str


class ProjectService:
    """Every method acts for one user and sees only that user's projects."""

    def __init__(self, repository: ProjectRepository, page_tokens: Tokens, new_id: Callable[[], UUID], announce: Callable[[UUID], None]) -> None:
        """`announce` notifies the streams of a user that the user's tasks or projects have changed."""
        self._repository = repository
        self._page_tokens = page_tokens
        self._new_id = new_id
        self._announce = announce

    async def get_project(self, user_id: UUID, project_id: UUID) -> Project:
        """Returns the project. Raises ProjectNotFound."""
        project = await self._repository.find(user_id, project_id)
        if project is None:
            raise ProjectNotFound
        return project

    async def list_projects(self, query: ProjectQuery, *, page_size: int, page_token: str) -> ProjectPage:
        """Returns a page. A `page_size` of 0 means DEFAULT_PAGE_SIZE; one above MAX_PAGE_SIZE means MAX_PAGE_SIZE. Raises InvalidPageToken."""
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = from_token(self._page_tokens.open(page_token, query.identity()), query.order) if page_token else None
        # Reads one project more than the page has, to know whether another page follows.
        found = await self._repository.list(query, after, size + 1)
        if len(found) <= size:
            return ProjectPage(found, "")
        place = place_after(found[size - 1], query.order)
        return ProjectPage(found[:size], self._page_tokens.seal(to_token(place), query.identity()))

    async def create_project(self, actor: Actor, fields: ProjectFields, idempotency: Idempotency | None) -> ProjectWritten:
        """Creates a project. Like every write, it raises WriteRefused."""
        return await self._write(actor, ProjectCreation(self._new_id(), fields), idempotency)

    async def update_project(self, actor: Actor, update: ProjectUpdate, idempotency: Idempotency | None) -> ProjectWritten:
        """Sets the fields in the mask and no others."""
        return await self._write(actor, update, idempotency)

    async def archive_project(self, actor: Actor, archiving: Archiving, idempotency: Idempotency | None) -> ProjectWritten:
        """Archives a project, or ends that."""
        return await self._write(actor, archiving, idempotency)

    async def move_project(self, actor: Actor, move: ProjectMove, idempotency: Idempotency | None) -> ProjectWritten:
        """Moves a project to another place."""
        return await self._write(actor, move, idempotency)

    async def delete_project(self, actor: Actor, deletion: ProjectDeletion, idempotency: Idempotency | None) -> ProjectWritten:
        """Moves a project to the bin; with `force`, its tasks first."""
        return await self._cascade(actor, deletion, idempotency)

    async def undelete_project(self, actor: Actor, undeletion: ProjectUndeletion, idempotency: Idempotency | None) -> ProjectWritten:
        """Restores a project from the bin, and then the tasks that it took along."""
        # The project gets another etag when it comes out of the bin, so the writes after that require none.
        return await self._cascade(actor, undeletion, idempotency, lambda begun: replace(begun, etags=None))

    async def _cascade(
        self, actor: Actor, cascade: C, idempotency: Idempotency | None, begun: Callable[[C], C] = lambda cascade: cascade
    ) -> ProjectWritten:
        """Writes until nothing is left. Each write is a transaction of its own, so the call can end in between. A repetition continues."""
        written = await self._write(actor, cascade, idempotency)
        while written.more:
            written = await self._write(actor, begun(replace(cascade, continues=True)), idempotency)
        return written

    async def _write(self, actor: Actor, operation: ProjectOperation | Cascade, idempotency: Idempotency | None) -> ProjectWritten:
        written = await self._repository.write(actor, operation, idempotency)
        if not written.replayed:
            self._announce(actor.user_id)
        return written
