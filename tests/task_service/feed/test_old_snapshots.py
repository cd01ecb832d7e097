"""Rows that every past version of the schema has written stay readable: changes in the log, and answers under idempotency keys."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import pytest

from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.feed.domain import Change, ChangeKind
from task_service.feed.repository import PostgresChanges
from task_service.query.domain import Status
from task_service.query.list_statement import COLUMN_NAMES
from task_service.tasks import rows
from task_service.tasks.domain import Actor, Task
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation
from tests.task_service.conftest import FIELDS, new_id

TASK = UUID("0197b6a0-0000-7000-8000-000000000001")
# By the migration from which on rows had this form. Never change one: a migration that adds or removes a column adds another.
SNAPSHOTS: Mapping[str, str] = {
    "0001_tasks": """{"id": "0197b6a0-0000-7000-8000-000000000001", "title": "Old", "labels": ["a", "b"], "status": 3, "user_id": "$user",
        "version": 7, "due_date": "2026-12-01T10:00:00+00:00", "priority": 2, "created_at": "2026-11-01T00:00:00.123456+00:00", "deleted_at": null,
        "updated_at": "2026-11-02T00:00:00+00:00", "description": "All of it", "completed_at": "2026-11-02T00:00:00+00:00"}""",
    # From here on a snapshot has no nulls.
    "0013_projects": """{"id": "0197b6a0-0000-7000-8000-000000000001", "title": "Old", "labels": ["a", "b"], "status": 3, "user_id": "$user",
        "version": 7, "due_date": "2026-12-01T10:00:00+00:00", "priority": 2, "created_at": "2026-11-01T00:00:00.123456+00:00",
        "updated_at": "2026-11-02T00:00:00+00:00", "description": "All of it", "completed_at": "2026-11-02T00:00:00+00:00"}""",
}


def _old(actor: Actor) -> Task:
    """The task of all snapshots, as it is read now."""
    then = datetime(2026, 11, 2, tzinfo=UTC)
    created_at = datetime(2026, 11, 1, 0, 0, 0, 123456, tzinfo=UTC)
    due_date = datetime(2026, 12, 1, 10, tzinfo=UTC)
    return Task(actor.user_id, TASK, "Old", "All of it", Status.COMPLETED, 2, due_date, ("a", "b"), created_at, then, then, None, 7)


def _snapshot(version: str, actor: Actor) -> str:
    return SNAPSHOTS[version].replace("$user", str(actor.user_id))


async def _log(database: Database, actor: Actor, snapshot: str) -> None:
    """Adds a change with this snapshot, the first of the user."""
    await database.fetchrow("INSERT INTO task.counters (user_id, last_seq) VALUES ($1, 1)", actor.user_id)
    insert = "INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)"
    await database.fetchrow(f"{insert} VALUES ($1, 1, 2, $2, 7, $3, '{{status}}', $1, $1, '', now())", actor.user_id, TASK, snapshot)


@pytest.mark.parametrize("version", SNAPSHOTS)
async def test_a_change_of_every_version_is_readable(version: str, database: Database, actor: Actor) -> None:
    await _log(database, actor, _snapshot(version, actor))
    assert (await PostgresChanges(database).list(actor.user_id, 0, 10)).changes == [Change(1, ChangeKind.UPDATED, _old(actor))]


@pytest.mark.parametrize("version", SNAPSHOTS)
async def test_an_answer_of_every_version_is_replayed(version: str, database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    request_hash = hashlib.sha256(b"a request").digest()
    insert = "INSERT INTO task.idempotency_keys (user_id, key, request_hash, answer, created_at) VALUES ($1, 'key', $2, $3, now())"
    await database.fetchrow(insert, actor.user_id, request_hash, f"[{_snapshot(version, actor)}]")
    written = await tasks.write(actor, [Creation(new_id(), FIELDS)], Idempotency("key", request_hash))
    assert (written.replayed, written.tasks) == (True, [_old(actor)])


async def test_a_column_that_was_added_has_what_tasks_of_then_got(database: Database, actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `labels`, which must not be null, had been added after the snapshot was written."""
    monkeypatch.setattr(rows, "ADDED_COLUMNS", {"labels": []})
    snapshot = json.loads(_snapshot("0001_tasks", actor))
    del snapshot["labels"]
    await _log(database, actor, json.dumps(snapshot))
    (change,) = (await PostgresChanges(database).list(actor.user_id, 0, 10)).changes
    assert change.subject == _old(actor)._replace(labels=())


async def test_the_last_snapshot_has_the_form_of_now(database: Database) -> None:
    """If this fails, a migration has changed the columns of tasks: add a snapshot of the new form, and what old ones lack to ADDED_COLUMNS."""
    columns = await database.fetch(
        "SELECT column_name, is_nullable = 'YES' AS nullable FROM information_schema.columns WHERE table_schema = 'task' AND table_name = 'tasks'"
    )
    # Since 0013 a snapshot has only the columns that are not null, so a nullable one that is added needs no snapshot of its own.
    last = json.loads([*SNAPSHOTS.values()][-1]).keys()
    names = {column["column_name"] for column in columns}
    assert {column["column_name"] for column in columns if not column["nullable"]} <= last <= names
    # What took a task to the bin is not a part of the task.
    assert names == {*COLUMN_NAMES, "deleted_with"}
    first = json.loads(SNAPSHOTS["0001_tasks"]).keys()
    assert rows.ADDED_COLUMNS.keys() == {column["column_name"] for column in columns if not column["nullable"]} - first
