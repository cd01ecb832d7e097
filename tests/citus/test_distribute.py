"""`distribute` on a filled database, again after a new migration, and where it can do nothing; migrations on distributed tables."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from devstack.config import HOST
from devstack.stack import Stack
from servicekit.stores.distribute import Distribution, NotDistributed
from servicekit.stores.migrate import Migrations
from tests.citus.plugin import WORKERS
from tests.task_service.conftest import new_id
from tests.task_service.test_migrations import LAST_BEFORE, MIGRATIONS

NAME = "another"
USERS, TASKS = 100, 1000
FEW_USERS, FEW_TASKS = 10, 20
# In the order of their creation.
TABLES = [*("feed", "counters", "tasks", "changes", "task_labels", "idempotency_keys"), *("projects", "reminders", "webhooks", "webhook_deliveries")]
# The same text in both forms: see 0011_text.sql.
DECOMPOSED, COMPOSED = "e\u0301", "\u00e9"
WRITE = "SELECT * FROM task.write($1, 1::smallint, $2, ROW($1, $1, '')::task.actor, NULL, NULL, 10000000, NULL, NULL)"
# Each kind of statement that a migration may have on distributed tables.
LATER = """
-- A comment; with a semicolon.
ALTER TABLE task.changes ADD COLUMN color text;
ALTER TABLE task.counters ADD COLUMN archived bigint NOT NULL DEFAULT 0;
CREATE INDEX changes_by_color ON task.changes (user_id, color) WHERE color IS NOT NULL;
DROP INDEX task.idempotency_keys_by_created_at;
CREATE INDEX idempotency_keys_by_created_at ON task.idempotency_keys (created_at);
UPDATE task.changes SET color = 'red' WHERE kind = 1;
CREATE TABLE task.notes (user_id uuid NOT NULL, id uuid NOT NULL, body text NOT NULL, PRIMARY KEY (user_id, id));
CREATE OR REPLACE FUNCTION task.count_tasks(p_user uuid, p_pending bigint, p_in_progress bigint, p_completed bigint)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE task.counters SET pending = pending + p_pending, in_progress = in_progress + p_in_progress, completed = completed + p_completed
     WHERE user_id = p_user;
END $$;
"""


@pytest.fixture
async def urls(breakable: Stack) -> AsyncIterator[list[str]]:
    """The URLs of a new database with Citus, on the coordinator and on the workers."""
    state = breakable.state
    hosts = [urlsplit(state.database_url).port, *(state.processes[name].port for name in WORKERS)]
    base = state.database_url.rpartition("@")[0]
    urls = [f"{base}@{HOST}:{port}/{NAME}" for port in hosts]
    for url in urls:
        await _execute(url.replace(f"/{NAME}", "/postgres"), f"CREATE DATABASE {NAME}")
        await _execute(url, "CREATE EXTENSION citus")
    yield urls
    for url in urls:
        await _execute(url.replace(f"/{NAME}", "/postgres"), f"DROP DATABASE {NAME} WITH (FORCE)")


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _add_servers(urls: list[str]) -> None:
    await _execute(urls[0], f"SELECT citus_set_coordinator_host('{HOST}', {urlsplit(urls[0]).port})")
    for url in urls[1:]:
        await _execute(urls[0], f"SELECT citus_add_node('{HOST}', {urlsplit(url).port})")


def _migrations(folder: Path, last: int = 9999) -> Migrations:
    """Returns the migrations up to the one with the number `last`, copied to the folder."""
    for path in MIGRATIONS.glob("*.sql"):
        if int(path.name[:4]) <= last:
            (folder / path.name).write_text(path.read_text())
    return Migrations("task", folder)


def _distribution(migrations: Migrations) -> Distribution:
    return Distribution(migrations, "user_id", reference=("feed",), local=("account_removals",))


async def _create(connection: "asyncpg.Connection[asyncpg.Record]", user_id: UUID, count: int, **values: object) -> None:
    fields = {"title": "Task", "description": "", "status": 1, "priority": 3, "due_date": None, "labels": ["a", "b"]} | values
    await connection.fetch(WRITE, user_id, json.dumps([{"n": n, "id": str(new_id()), **fields} for n in range(count)]))


async def test_a_filled_database_is_distributed_and_again_after_a_migration(urls: list[str], tmp_path: Path) -> None:
    migrations = _migrations(tmp_path)
    distribution = _distribution(migrations)
    with pytest.raises(NotDistributed, match="no server"):
        await distribution.apply(urls[0])
    await _add_servers(urls)
    with pytest.raises(NotDistributed, match="run migrate first"):
        await distribution.apply(urls[0])
    with pytest.raises(NotDistributed, match="not the coordinator"):
        await distribution.apply(urls[1])

    await migrations.apply(urls[0])
    connection = await asyncpg.connect(urls[0])
    users = [new_id() for _ in range(USERS)]
    for user_id in users:
        await _create(connection, user_id, TASKS)
    assert await distribution.apply(urls[0]) == TABLES
    assert await distribution.apply(urls[0]) == []
    # On the same connection, whose plans are those of before.
    await _create(connection, users[0], 1)
    for table, rows in (("tasks", 1), ("changes", 1), ("task_labels", 2), ("counters", 0)):
        total = USERS if table == "counters" else rows * (USERS * TASKS + 1)
        assert await connection.fetchval(f"SELECT count(*) FROM task.{table}") == total
        # Nothing is left on the coordinator.
        assert await connection.fetchval(f"SELECT pg_relation_size('task.{table}')") == 0

    later = f"{len(list(MIGRATIONS.glob('*.sql'))) + 1:04}_later"
    (tmp_path / f"{later}.sql").write_text(LATER)
    migrations = Migrations("task", tmp_path)
    assert await migrations.apply(urls[0]) == [later]
    assert await _distribution(migrations).apply(urls[0]) == ["notes"]
    await connection.close()
    connection = await asyncpg.connect(urls[0])
    await connection.execute("INSERT INTO task.notes (user_id, id, body) VALUES ($1, $1, '')", users[0])
    joined = "SELECT count(color) FROM task.notes JOIN task.changes USING (user_id) WHERE user_id = $1"
    assert await connection.fetchval(joined, users[0]) == TASKS + 1
    await _create(connection, users[1], 2)
    await connection.close()


async def test_the_later_migrations_run_on_distributed_tables_with_rows(urls: list[str], tmp_path: Path) -> None:
    await _add_servers(urls)
    migrations = _migrations(tmp_path, LAST_BEFORE)
    await migrations.apply(urls[0])
    await _distribution(migrations).apply(urls[0])
    users = [new_id() for _ in range(FEW_USERS)]
    connection = await asyncpg.connect(urls[0])
    for user_id in users:
        await _create(connection, user_id, FEW_TASKS, title=DECOMPOSED, description=DECOMPOSED, labels=[DECOMPOSED, COMPOSED, "a"])
    await connection.close()

    migrations = _migrations(tmp_path)
    assert "0011_text" in await migrations.apply(urls[0])
    await _distribution(migrations).apply(urls[0])
    connection = await asyncpg.connect(urls[0])
    rows = await connection.fetch("SELECT title, description, labels, count(*) FROM task.tasks GROUP BY 1, 2, 3")
    assert [tuple(row) for row in rows] == [(COMPOSED, COMPOSED, [COMPOSED, "a"], FEW_USERS * FEW_TASKS)]
    labels = await connection.fetch("SELECT label, count(*) FROM task.task_labels GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in labels] == [("a", FEW_USERS * FEW_TASKS), (COMPOSED, FEW_USERS * FEW_TASKS)]
    await connection.close()
