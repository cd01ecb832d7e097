"""Tasks in PostgreSQL: one statement for each method. list_statement builds the statement of a list."""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from servicekit.errors import TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Removal
from servicekit.turns import Turns
from task_service.cache.domain import State
from task_service.query.list_query import ListQuery, Position
from task_service.query.list_statement import COLUMN_NAMES, is_expensive, list_statement
from task_service.tasks.domain import MAX_ANSWER_BYTES, Actor, Listed, Place, Task, etag_of
from task_service.tasks.errors import (
    AnswerTooLarge,
    BasisChanged,
    CacheStateChanged,
    EtagMismatch,
    IdempotencyKeyReused,
    NotFenced,
    OperationRefused,
    ParentCycle,
    ParentDeleted,
    ParentNotFound,
    ProjectArchived,
    ProjectDeleted,
    ProjectNotFound,
    SiblingNotFound,
    TaskNotDeleted,
    TaskNotFound,
    TooDeep,
    TooManyDescendants,
    TooManySubtasks,
)
from task_service.tasks.joined import JoinedWrites
from task_service.tasks.rows import created, of_snapshot, to_operation, to_task
from task_service.tasks.writes import Creation, Deletion, Move, Operations, Undeletion, Update, Written

COLUMNS: Final = ", ".join(COLUMN_NAMES)
# The maximum number of expensive lists of one user that run at the same time in this process. The others wait. So one user does not use the whole
# pool, nor all processors of PostgreSQL.
EXPENSIVE_LISTS: Final = 2
# The expensive lists of all users together use one in so many connections of the pool, so that many users do not use the whole pool either.
EXPENSIVE_SHARE: Final = 2
# The kinds of writes: see task.execute.
KINDS: Final = {Creation: 1, Update: 2, Deletion: 3, Undeletion: 4, Move: 10}
# The error codes of task.write: see migrations/0004_writes.sql, 0005_cache_state.sql and 0013_projects.sql.
REFUSED_WITHOUT_INDEX: Final[Mapping[str, Callable[[], Exception]]] = {
    # An access token can outlive a deleted account by minutes.
    "TM001": TokenInvalid,
    "TM005": IdempotencyKeyReused,
    "TM007": CacheStateChanged,
    "TM009": BasisChanged,
    # The plan of the update finds the same, and names the field.
    "TM020": BasisChanged,
}
NOT_FENCED: Final = "TM008"
REFUSED: Final[Mapping[str, type[OperationRefused]]] = {
    "TM002": TaskNotFound,
    "TM003": EtagMismatch,
    "TM004": TaskNotDeleted,
    "TM006": AnswerTooLarge,
    "TM010": ParentNotFound,
    "TM011": ProjectNotFound,
    "TM012": ProjectArchived,
    "TM013": TooDeep,
    "TM014": TooManySubtasks,
    "TM015": TooManyDescendants,
    "TM016": ParentCycle,
    "TM017": SiblingNotFound,
    "TM018": ParentDeleted,
    "TM019": ProjectDeleted,
}

# SQL is assembled only from constants; values are always parameters.
FIND: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL"  # noqa: S608
FIND_ALL: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = ANY ($2) AND deleted_at IS NULL"  # noqa: S608
# Selects each column of the returned task by its name.
WRITE: Final = f"""
SELECT o_replayed, o_missing, {", ".join(f"(o_task).{name}" for name in COLUMN_NAMES)}
  FROM task.write($1, $2, $3, task.author_named($1, $4, $5, $6, $7), $8, $9, $10, $11, $12, $13)
"""  # noqa: S608
WRITE_ALL: Final = f"""
SELECT o_write, o_error, o_message, o_replayed, {", ".join(f"(o_task).{name}" for name in COLUMN_NAMES)} FROM task.write_all($1, $2, $3)
"""  # noqa: S608
SWEEP: Final = "SELECT task.sweep($1, $2, $3)"


def removals(*, bin_days: int, change_days: int) -> Sequence[Removal]:
    """Returns the cleanup, which deletes tasks that were in the bin for `bin_days`, and changes older than `change_days`.

    It also deletes idempotency keys older than a day. Only one replica deletes at a time: another one that tries meanwhile deletes nothing.
    """
    return [Removal(SWEEP, (timedelta(days=bin_days), timedelta(days=change_days)))]


class PostgresTasks:
    """A TaskRepository (see task_service.tasks.service). Each method is one round trip; writes of one user share one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expensive = Turns(EXPENSIVE_LISTS, max(1, database.connections // EXPENSIVE_SHARE))
        self._joined = JoinedWrites(self._write_one, self._write_all, database.timeout_seconds)

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        """See TaskRepository.find."""
        return _task(await self._database.fetchrow(FIND, user_id, task_id))

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """See TaskRepository.list."""
        sql, args = list_statement(query, after, skip, limit, with_total=with_total)
        expensive = is_expensive(query, skip, with_total=with_total)
        async with self._expensive.turn(query.user_id) if expensive else contextlib.nullcontext():
            rows = await self._database.fetch(sql, *args)
        # An empty page is one row without a task.
        tasks = [] if rows[0]["id"] is None else [to_task(row) for row in rows]
        return Listed(tasks, Place(str(rows[0]["epoch"]), rows[0]["last_seq"]), rows[0]["total_size"] if with_total else None)

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """See TaskRepository.find_all."""
        return {task.id: task for task in map(to_task, await self._database.fetch(FIND_ALL, user_id, task_ids))}

    async def write(
        self,
        actor: Actor,
        operations: Operations,
        idempotency: Idempotency | None = None,
        *,
        state: State | None = None,
        fenced: Sequence[UUID] = (),
        on_failed: Callable[[], None] | None = None,
    ) -> Written:
        """See FencedTasks.write."""
        request = _Request(actor, operations, idempotency, state, fenced)
        return await self._joined.execute(actor.user_id, request, on_failed or _nothing)

    async def _write_one(self, user_id: UUID, request: "_Request", on_failed: Callable[[], None]) -> Written:
        """Executes the write in its own transaction."""
        actor, idempotency, state = request.actor, request.idempotency, request.state
        key, request_hash = (idempotency.key, idempotency.request_hash) if idempotency else (None, None)
        values = orjson.dumps(request.values()).decode()
        expected = (None, None) if state is None else (state.generation, state.fenced)
        args = (user_id, request.kind, values, actor.session_id, actor.request_id, actor.by_api_token, actor.name, key, request_hash)
        try:
            rows = await self._database.fetch(WRITE, *args, MAX_ANSWER_BYTES, *expected, request.fenced, on_failed=on_failed)
        except asyncpg.PostgresError as error:
            raise _refusal(error.sqlstate or "", str(error)) or error from error
        if rows and rows[0][1] is not None:
            on_failed()
            raise NotFenced(rows[0][1])
        return _written(request.operations, bool(rows) and rows[0][0], [row[2:] for row in rows])

    async def _write_all(self, user_id: UUID, requests: Sequence["_Request"], on_failed: Callable[[], None]) -> Sequence[Written | Exception]:
        """Executes the writes in one transaction. Returns the result or the error of each."""
        values = orjson.dumps([request.to_join(n) for n, request in enumerate(requests)]).decode()
        try:
            rows = await self._database.fetch(WRITE_ALL, user_id, values, MAX_ANSWER_BYTES, on_failed=on_failed)
        except asyncpg.PostgresError as error:
            raise _refusal(error.sqlstate or "", str(error)) or error from error
        answers = (list(answer) for _, answer in itertools.groupby(rows, key=itemgetter(0)))
        return [
            _error(answer[0][1], answer[0][2]) if answer[0][1] else _written(request.operations, answer[0][3], [row[4:] for row in answer])
            for request, answer in zip(requests, answers, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Request:
    """A write with everything that task.write takes."""

    actor: Actor
    operations: Operations
    idempotency: Idempotency | None
    state: State | None
    fenced: Sequence[UUID]

    @property
    def kind(self) -> int:
        return KINDS[type(self.operations[0])]

    def values(self) -> Sequence[Mapping[str, Any]]:
        """Returns the operations in the form that task.write takes."""
        return [to_operation(n, operation) for n, operation in enumerate(self.operations)]

    def to_join(self, n: int) -> Mapping[str, Any]:
        """Returns the write in the form that task.write_all takes."""
        joined: dict[str, Any] = {"n": n, "kind": self.kind, "operations": self.values()}
        joined |= {"session_id": str(self.actor.session_id), "request_id": self.actor.request_id}
        joined |= {"by_api_token": self.actor.by_api_token, "actor_name": self.actor.name}
        if self.idempotency is not None:
            joined |= {"key": self.idempotency.key, "hash": self.idempotency.request_hash.hex()}
        if self.state is not None:
            joined |= {"generation": str(self.state.generation), "fenced": self.state.fenced, "covered": list(map(str, self.fenced))}
        return joined


def _written(operations: Operations, replayed: bool, rows: Sequence[Any]) -> Written:  # noqa: FBT001 - a value, not a switch
    """Returns the result in rows that begin with COLUMNS. A replayed answer without tasks is one row without a task."""
    if replayed:
        return Written([of_snapshot(row) for row in rows if row[0] is not None], replayed)
    if isinstance(operations[0], Creation) and len(rows) < len(operations):
        return Written(created(operations, to_task(rows[0])))
    return Written([to_task(row) for row in rows if row[0] is not None])


def _error(code: str, message: str) -> Exception:
    """Returns the error of a write that was refused among others."""
    return _refusal(code, message) or asyncpg.PostgresError(f"{code}: {message}")


def _refusal(code: str, message: str) -> Exception | None:
    """Returns the domain error for an error of task.write, or None if it has another code."""
    if code in REFUSED_WITHOUT_INDEX:
        return REFUSED_WITHOUT_INDEX[code]()
    if code == NOT_FENCED:
        return NotFenced(map(UUID, message.split(",")))
    refused = REFUSED.get(code)
    if refused is None:
        return None
    index, _, version = message.partition(" ")
    return refused(int(index), etag=etag_of(int(version)) if version else None)


def _nothing() -> None:
    pass


def _task(row: Any) -> Task | None:
    return None if row is None else to_task(row)
