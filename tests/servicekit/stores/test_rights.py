"""The rights of a worker's role: it reads and calls what WorkerRights names, and nothing else, also while the schema grows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from servicekit.stores.migrate import Migrations
from servicekit.stores.rights import RoleRefused, WorkerRights
from tests.support.databases import as_role

RIGHTS = WorkerRights(reads=("queue",), calls=("work(integer)",))
FIRST = "CREATE TABLE $schema.secrets (id int);"
# The function reads and writes a table on which the worker has no right.
SECOND = """
    CREATE TABLE $schema.queue (id int);
    CREATE FUNCTION $schema.work(n integer) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    'INSERT INTO $schema.secrets VALUES (n); DELETE FROM $schema.queue; SELECT count(*) FROM $schema.secrets';
    CREATE FUNCTION $schema.other() RETURNS integer LANGUAGE sql AS 'SELECT 1';
    CREATE SEQUENCE $schema.numbers;
"""
ALLOWED = ["SELECT max(version) FROM $schema.schema_migrations", "SELECT * FROM $schema.queue", "SELECT $schema.work(1)"]
REFUSED = [
    "SELECT * FROM $schema.secrets",
    "INSERT INTO $schema.secrets VALUES (1)",
    "DELETE FROM $schema.queue",
    "UPDATE $schema.queue SET id = 1",
    "TRUNCATE $schema.queue",
    "SELECT $schema.other()",
    "SELECT nextval('$schema.numbers')",
    "DELETE FROM $schema.schema_migrations",
    "CREATE TABLE $schema.mine (id int)",
    "ALTER FUNCTION $schema.work(integer) SECURITY INVOKER",
]


@dataclass(frozen=True)
class World:
    """A schema of this test, and roles that migrate it, serve and work."""

    schema: str
    folder: Path
    database_url: str
    migrator: str
    service: str
    worker: str

    def write(self, **files: str) -> Migrations:
        """Adds migrations. Returns all that there are now."""
        for name, sql in files.items():
            (self.folder / f"{name.removeprefix('_')}.sql").write_text(sql.replace("$schema", self.schema))
        return Migrations(self.schema, self.folder, RIGHTS)

    async def apply(self, migrations: Migrations, worker: str | None = None) -> list[str]:
        """Applies migrations as the role that migrates."""
        return await migrations.apply(as_role(self.database_url, self.migrator, "secret"), self.service, worker or self.worker)

    async def refused(self) -> list[str]:
        """Returns the statements for which the worker lacks a right."""
        connection = await asyncpg.connect(as_role(self.database_url, self.worker, "secret"))
        found = []
        try:
            for statement in (*ALLOWED, *REFUSED):
                try:
                    await connection.execute(statement.replace("$schema", self.schema))
                except asyncpg.InsufficientPrivilegeError:
                    found.append(statement)
        finally:
            await connection.close()
        return found


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    mark = uuid4().hex[:8]
    made = World(f"test_{mark}", tmp_path, database_url, f"migrator_{mark}", f"service_{mark}", f"worker_{mark}")
    roles = (made.migrator, made.service, made.worker)
    superuser = await asyncpg.connect(database_url)
    for role in roles:
        await superuser.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    await superuser.execute(f"GRANT CREATE ON DATABASE {database_url.rpartition('/')[2]} TO {made.migrator}")
    yield made
    for role in roles:
        await superuser.execute(f"DROP OWNED BY {role} CASCADE")
        await superuser.execute(f"DROP ROLE {role}")
    await superuser.close()


async def test_the_worker_reads_and_calls_what_is_named_and_nothing_else(world: World) -> None:
    await world.apply(world.write(_0001_first=FIRST, _0002_second=SECOND))
    assert await world.refused() == REFUSED


async def test_the_rights_come_with_the_migration_that_makes_their_objects(world: World) -> None:
    await world.apply(world.write(_0001_first=FIRST))
    connection = await asyncpg.connect(as_role(world.database_url, world.worker, "secret"))
    assert await connection.fetchval(f"SELECT max(version) FROM {world.schema}.schema_migrations") == 1
    # "Not there yet" is what the worker waits for.
    with pytest.raises(asyncpg.UndefinedTableError):
        await connection.fetch(f"SELECT * FROM {world.schema}.queue")
    await connection.close()
    assert await world.apply(world.write(_0002_second=SECOND)) == ["0002_second"]
    assert await world.refused() == REFUSED


async def test_rights_that_somebody_has_added_are_revoked(world: World) -> None:
    migrations = world.write(_0001_first=FIRST, _0002_second=SECOND)
    await world.apply(migrations)
    superuser = await asyncpg.connect(world.database_url)
    await superuser.execute(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {world.schema} TO {world.worker}")
    await superuser.execute(f"GRANT SELECT (id) ON {world.schema}.secrets TO {world.worker}")
    await superuser.execute(f"GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {world.schema} TO {world.worker}, PUBLIC")
    await superuser.close()
    assert await world.refused() != REFUSED
    assert await world.apply(migrations) == []
    assert await world.refused() == REFUSED


async def test_a_worker_role_that_cannot_have_fewer_rights_is_refused_and_nothing_applied(world: World) -> None:
    migrations = world.write(_0001_first=FIRST)
    for worker, message in (
        ("missing", "WORKER_ROLE: the database has no role 'missing'"),
        (world.service, "WORKER_ROLE: the role is that of SERVICE_ROLE"),
        (world.migrator, "WORKER_ROLE: .* grants cannot bound it"),
    ):
        with pytest.raises(RoleRefused, match=message):
            await world.apply(migrations, worker)
    with pytest.raises(RoleRefused, match="has no worker"):
        await world.apply(Migrations(world.schema, world.folder))
    assert await world.apply(migrations) == ["0001_first"]
