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
from task_service.tasks.joined import JoinedWrites
from task_service.tasks.turns import Turns
from task_service.tasks.writes import Creation, Deletion, Operation, Operations, Undeletion, Update, Written

COLUMNS: Final = ", ".join(COLUMN_NAMES)
# The columns whose values differ from those of a Task. The others are the same, in the same order.
STATUS: Final = COLUMN_NAMES.index("status")
LABELS: Final = COLUMN_NAMES.index("labels")
# Of the columns that were added after 0001_tasks.sql and are not nullable: what a task of before has in them. The snapshots in the change log and the
# answers under idempotency keys are kept as they were written, without columns that were added since. A nullable column needs no entry: it is null.
ADDED_COLUMNS: Final[Mapping[str, object]] = {}
# The maximum number of expensive lists of one user that run at the same time in this process. The others wait. So one user does not use the whole
# pool, nor all processors of PostgreSQL.
EXPENSIVE_LISTS: Final = 2
# The expensive lists of all users together use one in so many connections of the pool, so that many users do not use the whole pool either.
EXPENSIVE_SHARE: Final = 2
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
        on_failed: Callable[[], None] | None = None,
    ) -> Written:
        """See FencedTasks.write."""
        request = _Request(actor, operations, idempotency, state)
        return await self._joined.execute(actor.user_id, request, on_failed or _nothing)

    async def _write_one(self, user_id: UUID, request: "_Request", on_failed: Callable[[], None]) -> Written:
        """Executes the write in its own transaction."""
        actor, idempotency, state = request.actor, request.idempotency, request.state
        key, request_hash = (idempotency.key, idempotency.request_hash) if idempotency else (None, None)
        values = orjson.dumps(request.values()).decode()
        expected = (None, None) if state is None else (state.generation, state.fenced)
        args = (user_id, request.kind, values, actor.session_id, actor.request_id, key, request_hash)
        try:
            rows = await self._database.fetch(WRITE, *args, MAX_ANSWER_BYTES, *expected, on_failed=on_failed)
        except asyncpg.PostgresError as error:
            raise _refusal(error.sqlstate or "", str(error)) or error from error
        return _written(request.operations, bool(rows) and rows[0][0], [row[1:] for row in rows])

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

    @property
    def kind(self) -> int:
        return KINDS[type(self.operations[0])]

    def values(self) -> Sequence[Mapping[str, Any]]:
        """Returns the operations in the form that task.write takes."""
        return [_operation(n, operation) for n, operation in enumerate(self.operations)]

    def to_join(self, n: int) -> Mapping[str, Any]:
        """Returns the write in the form that task.write_all takes."""
        joined: dict[str, Any] = {"n": n, "kind": self.kind, "operations": self.values()}
        joined |= {"session_id": str(self.actor.session_id), "request_id": self.actor.request_id}
        if self.idempotency is not None:
            joined |= {"key": self.idempotency.key, "hash": self.idempotency.request_hash.hex()}
        if self.state is not None:
            joined |= {"generation": str(self.state.generation), "fenced": self.state.fenced}
        return joined


def _written(operations: Operations, replayed: bool, rows: Sequence[Any]) -> Written:  # noqa: FBT001 - a value, not a switch
    """Returns the result in rows that begin with COLUMNS. A replayed answer without tasks is one row without a task."""
    if replayed:
        return Written([of_snapshot(row) for row in rows if row[0] is not None], replayed)
    if isinstance(operations[0], Creation):
        return Written(_created(operations, to_task(rows[0])))
    return Written([to_task(row) for row in rows if row[0] is not None])


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


def _error(code: str, message: str) -> Exception:
    """Returns the error of a write that was refused among others."""
    return _refusal(code, message) or asyncpg.PostgresError(f"{code}: {message}")


def _refusal(code: str, message: str) -> Exception | None:
    """Returns the domain error for an error of task.write, or None if it has another code.

    ACCOUNT_DELETED means TokenInvalid: an access token can outlive a deleted account by minutes.
    """
    if code == ACCOUNT_DELETED:
        return TokenInvalid()
    if code == CACHE_STATE_CHANGED:
        return CacheStateChanged()
    if code == KEY_REUSED:
        return IdempotencyKeyReused()
    refused = REFUSED.get(code)
    if refused is None:
        return None
    index, _, version = message.partition(" ")
    return refused(int(index), etag=etag_of(int(version)) if version else None)


def _nothing() -> None:
    pass


def _task(row: Any) -> Task | None:
    return None if row is None else to_task(row)


def of_snapshot(row: Any) -> Task:
    """Returns the task in a row that begins with COLUMNS and was made from a snapshot, of whatever version."""
    if not ADDED_COLUMNS:
        return to_task(row)
    values = list(row[: len(COLUMN_NAMES)])
    for name, value in ADDED_COLUMNS.items():
        index = COLUMN_NAMES.index(name)
        values[index] = value if values[index] is None else values[index]
    return to_task(values)


def to_task(row: Any) -> Task:
    """Returns the task in a row that begins with COLUMNS."""
    values = list(row[: len(COLUMN_NAMES)])
    values[STATUS] = _STATUSES[values[STATUS]]
    values[LABELS] = tuple(values[LABELS])
    return Task._make(values)
