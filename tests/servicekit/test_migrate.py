"""Migrations on a real database: once each, in order, all or nothing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from servicekit.errors import DependencyUnavailable
from servicekit.migrate import Migrations
from servicekit.postgres import Database
from tests.servicekit.databases import options


class Folder:
    """A folder of migrations of a schema of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema = f"test_{uuid4().hex[:8]}"

    def write(self, **files: str) -> Migrations:
        """Adds files, named without `.sql`, `$schema` standing for the schema; the migrations that the folder has now."""
        for name, sql in files.items():
            (self.path / f"{name}.sql").write_text(sql.replace("$schema", self.schema))
        return Migrations(self.schema, self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def query(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


FIRST: Mapping[str, str] = {"_0001_things": "CREATE TABLE $schema.things (id int);"}


def named(files: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix("_"): sql for name, sql in files.items()}


async def test_each_is_applied_once_and_in_order(folder: Folder, database_url: str) -> None:
    both = {"0002_more": "ALTER TABLE $schema.things ADD COLUMN name text;", **named(FIRST)}
    assert await folder.write(**both).apply(database_url) == ["0001_things", "0002_more"]
    assert await folder.write().apply(database_url) == []
    assert await folder.write(**{"0003_last": "INSERT INTO $schema.things VALUES (1, 'a');"}).apply(database_url) == ["0003_last"]
    assert await query(database_url, f"SELECT count(*) FROM {folder.schema}.things") == 1


async def test_of_many_at_once_each_migration_is_applied_by_one(folder: Folder, database_url: str) -> None:
    slow = {"0001_a": "CREATE TABLE $schema.a (id int); SELECT pg_sleep(0.2);", "0002_b": "CREATE TABLE $schema.b (id int);"}
    migrations = folder.write(**slow)
    applied = await asyncio.gather(*(migrations.apply(database_url) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == ["0001_a", "0002_b"]


async def test_what_fails_leaves_nothing_and_what_came_before_stays(folder: Folder, database_url: str) -> None:
    broken = named(FIRST) | {"0002_broken": "CREATE TABLE $schema.half (id int); SELECT 1/0;"}
    with pytest.raises(asyncpg.DivisionByZeroError):
        await folder.write(**broken).apply(database_url)
    assert await query(database_url, f"SELECT to_regclass('{folder.schema}.half')") is None
    assert await query(database_url, f"SELECT to_regclass('{folder.schema}.things')") is not None
    assert await query(database_url, f"SELECT max(version) FROM {folder.schema}.schema_migrations") == 1
    assert await folder.write(**{"0002_broken": "CREATE TABLE $schema.half (id int);"}).apply(database_url) == ["0002_broken"]


async def test_an_older_program_applies_nothing_to_a_newer_schema(folder: Folder, database_url: str) -> None:
    """Forward only: there is no way back, and none is taken."""
    old = folder.write(**named(FIRST))
    await folder.write(**{"0002_more": "ALTER TABLE $schema.things ADD COLUMN name text;"}).apply(database_url)
    assert await old.apply(database_url) == []
    assert await query(database_url, f"SELECT max(version) FROM {folder.schema}.schema_migrations") == 2
    database = Database(options(database_url), CollectorRegistry())
    await database.start()
    await old.require(database)
    await database.close()


@pytest.mark.parametrize("names", [["0002_a"], ["0001_a", "0003_c"], ["0001_a", "0001_b"], ["0000_a", "0001_b"]])
def test_numbers_with_a_gap_are_refused(folder: Folder, names: list[str]) -> None:
    with pytest.raises(ValueError, match="without a gap"):
        folder.write(**dict.fromkeys(names, "SELECT 1;"))


@pytest.mark.parametrize("name", ["1_a", "0001", "0001_A", "0001-a", "first"])
def test_other_names_are_refused(folder: Folder, name: str) -> None:
    with pytest.raises(ValueError, match="0001_what_it_does"):
        folder.write(**{name: "SELECT 1;"})


async def test_ready_only_with_the_schema_that_the_program_needs(folder: Folder, database_url: str) -> None:
    first = folder.write(**named(FIRST))
    database = Database(options(database_url), CollectorRegistry())
    await database.start()
    try:
        with pytest.raises(DependencyUnavailable):
            await first.require(database)
        await first.apply(database_url)
        await first.require(database)
        second = folder.write(**{"0002_more": "SELECT 1;"})
        with pytest.raises(DependencyUnavailable, match="version 2"):
            await second.require(database)
        await second.apply(database_url)
        await second.require(database)
        await first.require(database)
    finally:
        await database.close()
