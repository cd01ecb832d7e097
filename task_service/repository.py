"""Tasks in PostgreSQL: one statement for each method. The statement of a list is made in list_statement."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from servicekit.errors import TokenInvalid
from servicekit.postgres import Database
from task_service.domain import Actor, Listed, Status, Task, TaskFields
from task_service.filtering import ListQuery, Position
from task_service.list_statement import COLUMN_NAMES, list_statement

COLUMNS: Final = ", ".join(COLUMN_NAMES)
# What task.next_seq raises.
ACCOUNT_DELETED: Final = "TM001"
# A third of what Status(number) costs.
_STATUSES: Final = {status.value: status for status in Status}

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

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """See TaskRepository.list."""
        sql, args = list_statement(query, after, skip, limit, with_total=with_total)
        rows = await self._database.fetch(sql, *args)
        # An empty page is one row without a task.
        tasks = [] if rows[0]["id"] is None else [_to_task(row) for row in rows]
        return Listed(tasks, rows[0]["last_seq"], rows[0]["total_size"] if with_total else None)

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


def _values(fields: TaskFields) -> tuple[Any, ...]:
    return fields.title, fields.description, fields.status, fields.priority, fields.due_date, fields.labels


def _actor(actor: Actor) -> tuple[UUID, UUID, str]:
    return actor.user_id, actor.session_id, actor.request_id


def _task(row: Any) -> Task | None:
    return None if row is None else _to_task(row)


def _to_task(row: Any) -> Task:
    """Of a row that begins with COLUMNS."""
    user_id, task_id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, deleted_at, version, *_ = row
    return Task(
        user_id,
        task_id,
        title,
        description,
        _STATUSES[status],
        priority,
        due_date,
        tuple(labels),
        created_at,
        updated_at,
        completed_at,
        deleted_at,
        version,
    )
