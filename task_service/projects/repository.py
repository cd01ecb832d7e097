"""Projects in PostgreSQL: one statement for each method."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from servicekit.errors import TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.cache.domain import State
from task_service.projects.domain import MAX_PROJECTS, Project
from task_service.projects.errors import ProjectChanged, ProjectNotDeleted, ProjectNotEmpty, ProjectSiblingNotFound, TooManyProjects
from task_service.projects.order import ProjectField, ProjectQuery
from task_service.projects.places import ProjectPlace
from task_service.projects.rows import to_operation
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
from task_service.query.condition_sql import folded
from task_service.tasks.domain import Actor, etag_of
from task_service.tasks.errors import CacheStateChanged, IdempotencyKeyReused, NotFenced, ProjectNotFound

# The maximum number of tasks that one write of a project changes. It takes PostgreSQL about 0.1 s.
MAX_TASKS: Final = 500
# The kinds of writes: see task.write_project.
KINDS: Final = {ProjectCreation: 1, ProjectUpdate: 2, Archiving: 2, ProjectDeletion: 3, ProjectUndeletion: 4, ProjectMove: 10}
# The error codes of task.write_project.
REFUSED: Final[Mapping[str, Callable[[], Exception]]] = {
    # An access token can outlive a deleted account by minutes.
    "TM001": TokenInvalid,
    "TM005": IdempotencyKeyReused,
    "TM007": CacheStateChanged,
    "TM011": ProjectNotFound,
    "TM017": ProjectSiblingNotFound,
    "TM021": partial(TooManyProjects, MAX_PROJECTS),
    "TM022": ProjectNotEmpty,
    "TM023": ProjectNotDeleted,
}
CHANGED: Final = "TM003"

COLUMN_NAMES: Final = Project._fields
COLUMNS: Final = ", ".join(COLUMN_NAMES)
# SQL is assembled only from constants; values are always parameters.
FIND: Final = f"SELECT {COLUMNS} FROM task.projects WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL"  # noqa: S608
WRITE: Final = f"""
SELECT o_replayed, o_missing, o_more, {", ".join(f"(o_project).{name}" for name in COLUMN_NAMES)}
  FROM task.write_project($1, $2, $3, task.author_named($1, $4, $5, $6, $7), $8, $9, $10, $11, $12, $13)
"""  # noqa: S608
# The next tasks of a cascade, by the type of its operation.
NEXT_TASKS: Final[Mapping[type[Cascade], str]] = {
    ProjectDeletion: "SELECT task.next_to_bin($1, $2, $3) AS ids",
    ProjectUndeletion: "SELECT task.next_to_restore($1, $2, $3) AS ids",
}
# By field: the SQL of the sort key, and that of its value after which a page begins. Names are sorted as titles of tasks: by the code points of the
# folded name.
_NAME: Final = f'{folded("{}")} COLLATE "C"'
_KEYS: Final[Mapping[ProjectField, tuple[str, str]]] = {
    ProjectField.POSITION: ("position", "$3::text"),
    ProjectField.NAME: (_NAME.format("name"), _NAME.format("$3::text")),
    ProjectField.CREATED_AT: ("created_at", "$3::timestamptz"),
    ProjectField.UPDATED_AT: ("updated_at", "$3::timestamptz"),
}


class PostgresProjects:
    """Projects, and the writes that the cache must know of: see task_service.projects.cache.FencedProjects. Each method is one round trip."""

    def __init__(self, database: Database, max_tasks: int = MAX_TASKS) -> None:
        """`max_tasks`: how many tasks one write changes at most."""
        self._database = database
        self._max_tasks = max_tasks

    async def find(self, user_id: UUID, project_id: UUID) -> Project | None:
        """See ProjectRepository.find."""
        row = await self._database.fetchrow(FIND, user_id, project_id)
        return None if row is None else Project._make(row)

    async def list(self, query: ProjectQuery, after: ProjectPlace | None, limit: int) -> Sequence[Project]:
        """See ProjectRepository.list."""
        place = () if after is None else (after.value, after.id)
        statement = _list_statement(query.order.field, query.order.descending, query.show_archived, query.show_deleted, after is not None)
        return [Project._make(row) for row in await self._database.fetch(statement, query.user_id, limit, *place)]

    async def list_next_tasks(self, user_id: UUID, cascade: Cascade) -> Sequence[UUID]:
        """See FencedProjects.list_next_tasks."""
        row = await self._database.fetchrow(NEXT_TASKS[type(cascade)], user_id, cascade.id, self._max_tasks)
        assert row is not None
        ids: Sequence[UUID] = row["ids"]
        return ids

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
        """See FencedProjects.write."""
        key, request_hash = (idempotency.key, idempotency.request_hash) if idempotency else (None, None)
        values = orjson.dumps(to_operation(operation)).decode()
        expected = (None, None) if state is None else (state.generation, state.fenced)
        args = (actor.user_id, KINDS[type(operation)], values, actor.session_id, actor.request_id, actor.by_api_token, actor.name, key, request_hash)
        try:
            (row,) = await self._database.fetch(WRITE, *args, *expected, fenced, self._max_tasks, on_failed=on_failed)
        except asyncpg.PostgresError as error:
            raise _refusal(error.sqlstate or "", str(error)) or error from error
        replayed, missing, more, *columns = row
        if missing is not None:
            if on_failed is not None:
                on_failed()
            raise NotFenced(missing)
        return ProjectWritten(None if columns[0] is None else Project._make(columns), replayed, more)


@lru_cache(len(ProjectField) * 16)
def _list_statement(
    field: ProjectField,
    descending: bool,  # noqa: FBT001 - lru_cache is cheaper for positions
    show_archived: bool,  # noqa: FBT001
    show_deleted: bool,  # noqa: FBT001
    continued: bool,  # noqa: FBT001
) -> str:
    """Returns the statement of a list: its parameters are the user, the limit, and the value and the id after which it begins."""
    key, value = _KEYS[field]
    direction, sign = ("DESC", "<") if descending else ("ASC", ">")
    terms = ["user_id = $1"]
    if not show_archived:
        terms.append("archived_at IS NULL")
    if not show_deleted:
        terms.append("deleted_at IS NULL")
    if continued:
        terms.append(f"({key}, id) {sign} ({value}, $4)")
    return f"SELECT {COLUMNS} FROM task.projects WHERE {' AND '.join(terms)} ORDER BY {key} {direction}, id {direction} LIMIT $2"  # noqa: S608


def _refusal(code: str, message: str) -> Exception | None:
    """Returns the domain error for an error of task.write_project, or None if it has another code."""
    if code == CHANGED:
        return ProjectChanged(etag_of(int(message.partition(" ")[2])))
    refused = REFUSED.get(code)
    return None if refused is None else refused()
