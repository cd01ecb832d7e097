"""Tasks in PostgreSQL: one statement for each method. list_statement builds the statement of a list."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from servicekit.errors import TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Removal
from task_service.cache.domain import State
from task_service.query.domain import Status
from task_service.query.list_query import ListQuery, Position
from task_service.query.list_statement import COLUMN_NAMES, is_expensive, list_statement
from task_service.tasks.domain import MAX_ANSWER_BYTES, Actor, Listed, Place, Task, etag_of, version_of
from task_service.tasks.errors import (
    AnswerTooLarge,
    CacheStateChanged,
    EtagMismatch,
    IdempotencyKeyReused,
    OperationRefused,
    TaskNotDeleted,
    TaskNotFound,
)
from task_service.tasks.turns import Turns
from task_service.tasks.writes import Creation, Deletion, Operation, Operations, Undeletion, Update, Written

COLUMNS: Final = ", ".join(COLUMN_NAMES)
# The columns whose values differ from those of a Task. The others are the same, in the same order.
STATUS: Final = COLUMN_NAMES.index("status")
LABELS: Final = COLUMN_NAMES.index("labels")
# The maximum number of expensive lists of one user that run at the same time in this process. The others wait. So one user does not use the whole
# pool, nor all processors of PostgreSQL.
EXPENSIVE_LISTS: Final = 2
# The kinds of writes, by their numbers in task.changes.
KINDS: Final = {Creation: 1, Update: 2, Deletion: 3, Undeletion: 4}
# The error codes of task.write: see migrations/0004_writes.sql and 0005_cache_state.sql.
ACCOUNT_DELETED: Final = "TM001"
KEY_REUSED: Final = "TM005"
CACHE_STATE_CHANGED: Final = "TM007"
REFUSED: Final[Mapping[str, type[OperationRefused]]] = {
    "TM002": TaskNotFound,
    "TM003": EtagMismatch,
    "TM004": TaskNotDeleted,
    "TM006": AnswerTooLarge,
}
# A lookup in this mapping costs a third of Status(number).
_STATUSES: Final = {status.value: status for status in Status}

# SQL is assembled only from constants; values are always parameters.
FIND: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL"  # noqa: S608
FIND_ALL: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = ANY ($2) AND deleted_at IS NULL"  # noqa: S608
# Selects each column of the returned task by its name.
WRITE: Final = f"""
SELECT o_replayed, {", ".join(f"(o_task).{name}" for name in COLUMN_NAMES)}
  FROM task.write($1, $2, $3, ROW($1, $4::uuid, $5::text)::task.actor, $6, $7, $8, $9, $10)
"""  # noqa: S608
SWEEP: Final = "SELECT task.sweep($1, $2, $3)"


def removals(*, bin_days: int, change_days: int) -> Sequence[Removal]:
    """Returns the cleanup, which deletes tasks that were in the bin for `bin_days`, and changes older than `change_days`.

    It also deletes idempotency keys older than a day. Only one replica deletes at a time: another one that tries meanwhile deletes nothing.
    """
    return [Removal(SWEEP, (timedelta(days=bin_days), timedelta(days=change_days)))]


class PostgresTasks:
    """A TaskRepository (see task_service.tasks.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expensive = Turns(EXPENSIVE_LISTS)

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
        on_failed: Callable[[], None] | None = None,
    ) -> Written:
        """See FencedTasks.write."""
        key, request_hash = (idempotency.key, idempotency.request_hash) if idempotency else (None, None)
        values = orjson.dumps([_operation(n, operation) for n, operation in enumerate(operations)]).decode()
        expected = (None, None) if state is None else (state.generation, state.fenced)
        args = (actor.user_id, KINDS[type(operations[0])], values, actor.session_id, actor.request_id, key, request_hash)
        try:
            rows = await self._database.fetch(WRITE, *args, MAX_ANSWER_BYTES, *expected, on_failed=on_failed)
        except asyncpg.PostgresError as error:
            raise _refusal(error) from error
        replayed = bool(rows) and rows[0][0]
        if isinstance(operations[0], Creation) and not replayed:
            return Written(_created(operations, to_task(rows[0][1:])))
        # A replayed answer without tasks is one row without a task.
        return Written([to_task(row[1:]) for row in rows if row[1] is not None], replayed)


def _operation(n: int, operation: Operation) -> Mapping[str, Any]:
    """Returns the operation in the form that task.write takes."""
    values: dict[str, Any] = {"n": n, "id": str(operation.id)}
    if not isinstance(operation, Creation) and operation.etags is not None:
        values["versions"] = [version for version in map(version_of, operation.etags) if version is not None]
    if isinstance(operation, Creation | Update):
        fields = operation.fields
        values |= {"title": fields.title, "description": fields.description, "status": fields.status, "priority": fields.priority}
        values |= {"due_date": fields.due_date, "labels": fields.labels}
    if isinstance(operation, Update):
        values["mask"] = operation.mask
    return values


def _created(operations: Operations, first: Task) -> Sequence[Task]:
    """Returns the created tasks: the requested fields, with the times and the version of the first task. This is cheaper than to read all back."""
    now = first.created_at
    tasks = []
    for operation in operations:
        assert isinstance(operation, Creation)
        fields = operation.fields
        told = (fields.title, fields.description, fields.status, fields.priority, fields.due_date, fields.labels)
        completed_at = now if fields.status is Status.COMPLETED else None
        tasks.append(Task(first.user_id, operation.id, *told, now, now, completed_at, None, first.version))
    return tasks


def _refusal(error: asyncpg.PostgresError) -> Exception:
    """Returns the domain error for an error of task.write, or the error itself if it has another code.

    ACCOUNT_DELETED means TokenInvalid: an access token can outlive a deleted account by minutes.
    """
    if error.sqlstate == ACCOUNT_DELETED:
        return TokenInvalid()
    if error.sqlstate == CACHE_STATE_CHANGED:
        return CacheStateChanged()
    if error.sqlstate == KEY_REUSED:
        return IdempotencyKeyReused()
    refused = REFUSED.get(error.sqlstate or "")
    if refused is None:
        return error
    index, _, version = str(error).partition(" ")
    return refused(int(index), etag=etag_of(int(version)) if version else None)


def _task(row: Any) -> Task | None:
    return None if row is None else to_task(row)


def to_task(row: Any) -> Task:
    """Returns the task in a row that begins with COLUMNS."""
    values = list(row[: len(COLUMN_NAMES)])
    values[STATUS] = _STATUSES[values[STATUS]]
    values[LABELS] = tuple(values[LABELS])
    return Task._make(values)
