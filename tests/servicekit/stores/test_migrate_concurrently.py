"""Migrations without a transaction: an index is built while others write, by one process, and again after a failure."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from servicekit.stores import migrate
from tests.servicekit.stores.test_migrate import Folder, query

TABLE = "CREATE TABLE $schema.things (id int, name text); INSERT INTO $schema.things SELECT n, 'same' FROM generate_series(1, 1000) AS n;"
INDEXES = """-- no transaction: other processes write meanwhile
-- Two statements; this comment is one with a semicolon in front of the second.
CREATE INDEX CONCURRENTLY IF NOT EXISTS by_id ON $schema.things (id);

CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS by_name ON $schema.things (name);
"""
VALID = "SELECT count(*) FROM pg_index WHERE indrelid = '{schema}.things'::regclass AND indisvalid"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(autouse=True)
def _polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "POLL_SECONDS", 0.05)


async def test_what_failed_is_cleared_away_and_goes_on(folder: Folder, database_url: str) -> None:
    migrations = folder.write(**{"0001_things": TABLE, "0002_indexes": INDEXES})
    with pytest.raises(asyncpg.UniqueViolationError):
        await migrations.apply(database_url)
    assert await query(database_url, f"SELECT max(version) FROM {folder.schema}.schema_migrations") == 1
    assert await query(database_url, VALID.format(schema=folder.schema)) == 1
    await query(database_url, f"UPDATE {folder.schema}.things SET name = id::text")
    assert await migrations.apply(database_url) == ["0002_indexes"]
    assert await query(database_url, VALID.format(schema=folder.schema)) == 2
    assert await query(database_url, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert await migrations.apply(database_url) == []


async def test_of_many_at_once_one_builds_the_index_while_others_write(folder: Folder, database_url: str) -> None:
    folder.write(**{"0001_things": TABLE + "UPDATE $schema.things SET name = id::text;"})
    await folder.write().apply(database_url)
    migrations = folder.write(**{"0002_indexes": INDEXES, "0003_last": "CREATE TABLE $schema.last (id int);"})
    writer = await asyncpg.connect(database_url)
    try:
        # The build of the index waits for this transaction, and the other processes for the build.
        async with writer.transaction():
            await writer.execute(f"INSERT INTO {folder.schema}.things VALUES (0, 'before')")
            applying = [asyncio.create_task(migrations.apply(database_url)) for _ in range(3)]
            await asyncio.sleep(0.5)
            await writer.execute(f"INSERT INTO {folder.schema}.things VALUES (0, 'meanwhile')")
            assert not any(task.done() for task in applying)
            assert await query(database_url, f"INSERT INTO {folder.schema}.things VALUES (0, 'of another') RETURNING id") == 0
    finally:
        await writer.close()
    applied = await asyncio.gather(*applying)
    assert sorted(name for names in applied for name in names) == ["0002_indexes", "0003_last"]
    assert await query(database_url, VALID.format(schema=folder.schema)) == 2


async def test_a_migration_in_a_transaction_cannot_build_it(folder: Folder, database_url: str) -> None:
    """So the marker is needed."""
    migrations = folder.write(**{"0001_things": TABLE, "0002_indexes": INDEXES.partition("\n")[2]})
    with pytest.raises(asyncpg.ActiveSQLTransactionError):
        await migrations.apply(database_url)
