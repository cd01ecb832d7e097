"""Tasks in PostgreSQL. The only module of this service with SQL."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from servicekit.errors import TokenInvalid
from servicekit.postgres import Database
from servicekit.retries import Idempotency
from task_service.domain import MAX_ANSWER_BYTES, Actor, OrderField, OrderKey, Status, Task, etag_of, version_of
from task_service.errors import AnswerTooLarge, EtagMismatch, IdempotencyKeyReused, OperationRefused, TaskNotDeleted, TaskNotFound
from task_service.filtering import ListQuery, Position
from task_service.writes import Creation, Deletion, Operation, Operations, Undeletion, Update, Written

COLUMNS: Final = "user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, deleted_at, version"
# The kinds of writes, as task.changes has them.
KINDS: Final = {Creation: 1, Update: 2, Deletion: 3, Undeletion: 4}
# What task.write raises: see migrations/0004_writes.sql.
ACCOUNT_DELETED: Final = "TM001"
KEY_REUSED: Final = "TM005"
REFUSED: Final[Mapping[str, type[OperationRefused]]] = {
    "TM002": TaskNotFound,
    "TM003": EtagMismatch,
    "TM004": TaskNotDeleted,
    "TM006": AnswerTooLarge,
}
# In a list a task without a due date comes last, whatever the direction.
_NO_DUE_DATE: Final = {False: "infinity", True: "-infinity"}

# SQL is put together from the constants of this module alone; values are always parameters.
FIND: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL"  # noqa: S608
FIND_ALL: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = ANY ($2) AND deleted_at IS NULL"  # noqa: S608
# The columns of the one that the function returns, each by its name.
WRITE: Final = f"""
SELECT o_replayed, {", ".join(f"(o_task).{column}" for column in COLUMNS.split(", "))}
  FROM task.write($1, $2, $3, ROW($1, $4::uuid, $5::text)::task.actor, $6, $7, $8)
"""  # noqa: S608


class PostgresTasks:
    """A TaskRepository (see task_service.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        """See TaskRepository.find."""
        return _task(await self._database.fetchrow(FIND, user_id, task_id))

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int) -> Sequence[Task]:
        """See TaskRepository.list."""
        sql, args = list_statement(query, after, skip, limit)
        return [to_task(row) for row in await self._database.fetch(sql, *args)]

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """See TaskRepository.find_all."""
        return {task.id: task for task in map(to_task, await self._database.fetch(FIND_ALL, user_id, task_ids))}

    async def write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None = None) -> Written:
        """See TaskRepository.write."""
        key, request_hash = (idempotency.key, idempotency.request_hash) if idempotency else (None, None)
        values = orjson.dumps([_operation(n, operation) for n, operation in enumerate(operations)]).decode()
        args = (actor.user_id, KINDS[type(operations[0])], values, actor.session_id, actor.request_id, key, request_hash, MAX_ANSWER_BYTES)
        try:
            rows = await self._database.fetch(WRITE, *args)
        except asyncpg.PostgresError as error:
            raise _refusal(error) from error
        # An answer without tasks that is given again is a row without one.
        return Written([to_task(row[1:]) for row in rows if row[1] is not None], replayed=bool(rows) and rows[0][0])


def list_statement(query: ListQuery, after: Position | None, skip: int, limit: int) -> tuple[str, list[object]]:
    """The statement of a list and its parameters."""
    args: list[object] = [query.user_id]

    def parameter(value: object) -> str:
        args.append(value)
        return f"${len(args)}"

    conditions = ["user_id = $1", "deleted_at IS NULL"]
    if query.status is not None:
        conditions.append(f"status = {parameter(query.status)}")
    if query.priority is not None:
        conditions.append(f"priority = {parameter(query.priority)}")
    keys = [(_column(key), key.descending) for key in query.order]
    # Ties go by id, in the direction of the last key, so that one index serves a list either way.
    keys.append(("id", keys[-1][1]))
    if after is not None:
        conditions.append(_behind(keys, [parameter(value) for value in (*after.values, after.id)]))
    order = ", ".join(f"{column} {'DESC' if descending else 'ASC'}" for column, descending in keys)
    sql = f"SELECT {COLUMNS} FROM task.tasks WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT {parameter(limit)}"  # noqa: S608
    return (f"{sql} OFFSET {parameter(skip)}" if skip else sql), args


def _behind(keys: Sequence[tuple[str, bool]], values: Sequence[str]) -> str:
    """The condition of being behind a position: a row comparison if all keys have one direction, else what it means written out."""
    if len({descending for _, descending in keys}) == 1:
        return f"({', '.join(column for column, _ in keys)}) {_sign(keys[0][1])} ({', '.join(values)})"
    cases = []
    for i, (column, descending) in enumerate(keys):
        equal = [f"{keys[j][0]} = {values[j]}" for j in range(i)]
        cases.append(" AND ".join([*equal, f"{column} {_sign(descending)} {values[i]}"]))
    # The bound on the first key is contained in the rest, but only this form lets an index begin there.
    first = f"{keys[0][0]} {_sign(keys[0][1])}= {values[0]}"
    return f"{first} AND ({' OR '.join(f'({case})' for case in cases)})"


def _sign(descending: bool) -> str:  # noqa: FBT001 - it is all that it is about
    return "<" if descending else ">"


def _column(key: OrderKey) -> str:
    match key.field:
        case OrderField.DUE_DATE:
            return f"COALESCE(due_date, '{_NO_DUE_DATE[key.descending]}')"
        case OrderField.TITLE:
            return 'title COLLATE "C"'
        case _:
            return key.field.name.lower()


def _operation(n: int, operation: Operation) -> Mapping[str, Any]:
    """The operation as task.write takes it."""
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


def _refusal(error: asyncpg.PostgresError) -> Exception:
    """What an error of task.write means; the error itself if it is none of its own. A token outlives a deleted account by minutes."""
    if error.sqlstate == ACCOUNT_DELETED:
        return TokenInvalid()
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
    """The task in a row of COLUMNS."""
    user_id, task_id, title, description, status, priority, due_date, labels, *rest = row
    return Task(user_id, task_id, title, description, Status(status), priority, due_date, tuple(labels), *rest)
