"""Tasks in PostgreSQL. The only module of this service with SQL."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from servicekit.errors import TokenInvalid
from servicekit.postgres import Database
from task_service.domain import Actor, OrderField, OrderKey, Status, Task, TaskFields
from task_service.filtering import ListQuery, Position

COLUMNS: Final = "user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, deleted_at, version"
# What task.next_seq raises.
ACCOUNT_DELETED: Final = "TM001"
# In a list a task without a due date comes last, whatever the direction.
_NO_DUE_DATE: Final = {False: "infinity", True: "-infinity"}

# SQL is put together from the constants of this module alone; values are always parameters.
FIND: Final = f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL"  # noqa: S608
INSERT: Final = f"SELECT {COLUMNS} FROM task.create_task($1, $2, $3, $4, $5, $6, $7, $8, ROW($9::uuid, $10::uuid, $11::text)::task.actor)"  # noqa: S608
UPDATE: Final = f"SELECT {COLUMNS} FROM task.update_task($1, $2, $3, $4, $5, $6, $7, $8, $9, ROW($10::uuid, $11::uuid, $12::text)::task.actor)"  # noqa: S608
DELETE: Final = f"SELECT {COLUMNS} FROM task.delete_task($1, $2, ROW($3::uuid, $4::uuid, $5::text)::task.actor)"  # noqa: S608


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
        return [_to_task(row) for row in await self._database.fetch(sql, *args)]

    async def insert(self, actor: Actor, task_id: UUID, fields: TaskFields) -> Task:
        """See TaskRepository.insert."""
        row = await self._write(INSERT, actor.user_id, task_id, *_values(fields), *_actor(actor))
        return _to_task(row)

    async def update(self, actor: Actor, task_id: UUID, fields: TaskFields, mask: Sequence[str]) -> Task | None:
        """See TaskRepository.update."""
        return _task(await self._write(UPDATE, actor.user_id, task_id, mask, *_values(fields), *_actor(actor)))

    async def delete(self, actor: Actor, task_id: UUID) -> Task | None:
        """See TaskRepository.delete."""
        return _task(await self._write(DELETE, actor.user_id, task_id, *_actor(actor)))

    async def _write(self, sql: str, *args: object) -> Any:
        """The row that a writing function returns. Raises TokenInvalid if the account was deleted: the token is the last that is left of it."""
        try:
            return await self._database.fetchrow(sql, *args)
        except asyncpg.PostgresError as error:
            if error.sqlstate == ACCOUNT_DELETED:
                raise TokenInvalid from error
            raise


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


def _values(fields: TaskFields) -> tuple[Any, ...]:
    return fields.title, fields.description, fields.status, fields.priority, fields.due_date, fields.labels


def _actor(actor: Actor) -> tuple[UUID, UUID, str]:
    return actor.user_id, actor.session_id, actor.request_id


def _task(row: Any) -> Task | None:
    return None if row is None else _to_task(row)


def _to_task(row: Any) -> Task:
    user_id, task_id, title, description, status, priority, due_date, labels, *rest = row
    return Task(user_id, task_id, title, description, Status(status), priority, due_date, tuple(labels), *rest)
