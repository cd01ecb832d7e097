"""Migrations on a real database: each is applied once, in order, completely or not at all; the rights of the service's role; and the commands."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from servicekit.errors import DependencyUnavailable
from servicekit.process import commands
from servicekit.stores.migrate import Migrations
from servicekit.stores.postgres import Database
from servicekit.stores.rights import RoleRefused
from tests.servicekit.stores.databases import options
from tests.support.databases import as_role
from tests.support.tiers import first_quick


class Folder:
    """A folder of migrations, with its own schema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema = f"test_{uuid4().hex[:8]}"

    def write(self, **files: str) -> Migrations:
        """Adds files, named without `.sql`, and replaces `$schema` in them. Returns all migrations that the folder has now."""
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
    """Migrations are forward-only: an older program must not undo a newer migration."""
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


@dataclass(frozen=True)
class Roles:
    """Two roles that one test owns, as in production: one migrates, and the service logs in as the other."""

    migrator: str
    service: str
    migrator_url: str
    service_url: str


# Names that an operator may choose. Whatever they contain, the statements must treat them as names.
ODD_NAMES = ["service", "Task Service", 'quote"d', "semi; DROP SCHEMA public; --", "current_user", "x" * 40]


@pytest.fixture(params=["service"])
async def roles(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Roles]:
    migrator, service = f"migrator_{uuid4().hex[:8]}", request.param if request.param == "current_user" else f"{request.param}_{uuid4().hex[:8]}"
    database = database_url.rpartition("/")[2]
    names = {name: '"' + name.replace('"', '""') + '"' for name in (migrator, service)}
    for quoted in names.values():
        await query(database_url, f"CREATE ROLE {quoted} LOGIN PASSWORD 'secret'")
    await query(database_url, f"GRANT CREATE ON DATABASE {database} TO {migrator}")
    try:
        yield Roles(migrator, service, as_role(database_url, migrator, "secret"), as_role(database_url, service, "secret"))
    finally:
        for quoted in names.values():
            await query(database_url, f"DROP OWNED BY {quoted} CASCADE")
            await query(database_url, f"DROP ROLE {quoted}")


EVERY_KIND: Mapping[str, str] = {
    "0001_every_kind": """
        CREATE TABLE $schema.things (id int, name text);
        CREATE TABLE $schema.counted (id serial, other int GENERATED ALWAYS AS IDENTITY);
        CREATE SEQUENCE $schema.numbers;
        CREATE VIEW $schema.seen AS SELECT id FROM $schema.things;
        CREATE TYPE $schema.pair AS (a int, b int);
        CREATE FUNCTION $schema.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE PROCEDURE $schema.nothing() LANGUAGE sql AS '';
    """
}
ALLOWED = [
    "INSERT INTO $schema.things VALUES (1, 'a')",
    "UPDATE $schema.things SET name = 'b'",
    "SELECT * FROM $schema.things",
    "DELETE FROM $schema.things",
    "INSERT INTO $schema.counted DEFAULT VALUES",
    "SELECT nextval('$schema.numbers')",
    "SELECT * FROM $schema.seen",
    "SELECT (ROW(1, 2)::$schema.pair).a",
    "SELECT $schema.one()",
    "CALL $schema.nothing()",
    "SELECT max(version) FROM $schema.schema_migrations",
]
REFUSED = [
    "TRUNCATE $schema.things",
    "ALTER TABLE $schema.things ADD COLUMN more int",
    "DROP TABLE $schema.things",
    "CREATE INDEX ON $schema.things (id)",
    "CREATE TRIGGER t AFTER INSERT ON $schema.things EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE $schema.mine (id int)",
    "CREATE FUNCTION $schema.two() RETURNS int LANGUAGE sql AS 'SELECT 2'",
    "CREATE OR REPLACE FUNCTION $schema.one() RETURNS int LANGUAGE sql AS 'SELECT 2'",
    "DROP FUNCTION $schema.one()",
    "SELECT setval('$schema.numbers', 1)",
    "DROP SCHEMA $schema CASCADE",
    "INSERT INTO $schema.schema_migrations VALUES (2, 'mine')",
    "UPDATE $schema.schema_migrations SET version = 2",
    "DELETE FROM $schema.schema_migrations",
    "TRUNCATE $schema.schema_migrations",
]


async def refused(url: str, sql: str) -> bool:
    """Returns whether the statement fails because the role lacks a right."""
    try:
        await query(url, sql)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


@pytest.mark.parametrize("roles", ODD_NAMES, indirect=True)
async def test_the_services_role_uses_the_schema_and_changes_nothing_of_it(folder: Folder, roles: Roles) -> None:
    await folder.write(**EVERY_KIND).apply(roles.migrator_url, roles.service)
    statements = [statement.replace("$schema", folder.schema) for statement in (*ALLOWED, *REFUSED)]
    found = [statement for statement in statements if await refused(roles.service_url, statement)]
    assert found == statements[len(ALLOWED) :]


async def test_without_a_role_nothing_is_granted(folder: Folder, roles: Roles) -> None:
    await folder.write(**EVERY_KIND).apply(roles.migrator_url)
    assert await refused(roles.service_url, f"SELECT * FROM {folder.schema}.things")
    assert await refused(roles.service_url, f"SELECT {folder.schema}.one()")


async def test_functions_are_not_open_to_all(folder: Folder, roles: Roles) -> None:
    open_to_all = "SELECT has_function_privilege('public', '{}.one()', 'EXECUTE')"
    await folder.write(**EVERY_KIND).apply(roles.migrator_url)
    assert await query(roles.migrator_url, open_to_all.format(folder.schema))
    await folder.write().apply(roles.migrator_url, roles.service)
    assert not await query(roles.migrator_url, open_to_all.format(folder.schema))


async def test_rights_are_made_exact_each_time_although_nothing_is_applied(folder: Folder, roles: Roles) -> None:
    migrations = folder.write(**EVERY_KIND)
    await migrations.apply(roles.migrator_url, roles.service)
    things = f"{folder.schema}.things"
    for change in (
        f"GRANT TRUNCATE ON {things} TO PUBLIC",
        f"GRANT TRUNCATE ON {things} TO {roles.service}",
        f"GRANT CREATE ON SCHEMA {folder.schema} TO {roles.service}",
        f"REVOKE SELECT ON {things} FROM {roles.service}",
        f"CREATE TABLE {folder.schema}.by_hand (id int)",
    ):
        await query(roles.migrator_url, change)
    assert not await refused(roles.service_url, f"TRUNCATE {things}")
    assert await migrations.apply(roles.migrator_url, roles.service) == []
    assert await refused(roles.service_url, f"TRUNCATE {things}")
    assert await refused(roles.service_url, f"CREATE TABLE {folder.schema}.mine (id int)")
    await query(roles.service_url, f"SELECT * FROM {things}")
    await query(roles.service_url, f"SELECT * FROM {folder.schema}.by_hand")


async def test_what_came_before_a_failure_can_be_used(folder: Folder, roles: Roles) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await folder.write(**EVERY_KIND, **{"0002_broken": "SELECT 1/0;"}).apply(roles.migrator_url, roles.service)
    await query(roles.service_url, f"SELECT * FROM {folder.schema}.things")


async def test_a_function_made_anew_is_never_without_its_rights(folder: Folder, roles: Roles, database_url: str) -> None:
    """The service keeps calling the function while one migration creates it again with another result type and a second migration runs."""
    await folder.write(**EVERY_KIND).apply(roles.migrator_url, roles.service)
    anew = "DROP FUNCTION $schema.one(); CREATE FUNCTION $schema.one() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';"
    # The last migration waits for a lock of this test, until the service has called the new function several times.
    waits = f"SELECT pg_advisory_xact_lock(hashtext('{folder.schema}'));"
    calls_of_new = 0
    holder = await asyncpg.connect(database_url)
    try:
        await holder.execute(f"SELECT pg_advisory_lock(hashtext('{folder.schema}'))")
        migrating = asyncio.create_task(folder.write(**{"0002_anew": anew, "0003_waits": waits}).apply(roles.migrator_url, roles.service))
        while not migrating.done():
            is_new = await query(roles.service_url, f"SELECT max(version) = 2 FROM {folder.schema}.schema_migrations")
            assert not await refused(roles.service_url, f"SELECT {folder.schema}.one()")
            calls_of_new += is_new
            if calls_of_new == 4:
                await holder.execute("SELECT pg_advisory_unlock_all()")
    finally:
        await holder.close()
    assert await migrating == ["0002_anew", "0003_waits"]
    assert calls_of_new >= 4


async def test_many_at_once_do_not_stumble_over_each_others_grants(folder: Folder, roles: Roles) -> None:
    migrations = folder.write(**EVERY_KIND)
    for _ in range(3):
        await asyncio.gather(*(migrations.apply(roles.migrator_url, roles.service) for _ in range(6)))
    await query(roles.service_url, f"SELECT * FROM {folder.schema}.things")


@pytest.mark.parametrize("name", ["nobody_of_that_name", 'quote"d', "x" * 100, "public", "0"])
async def test_a_role_that_is_not_there_is_named_and_nothing_applied(folder: Folder, roles: Roles, name: str) -> None:
    migrations = folder.write(**EVERY_KIND)
    with pytest.raises(RoleRefused, match=r"^SERVICE_ROLE: the database has no role '") as refusal:
        await migrations.apply(roles.migrator_url, name)
    assert repr(name) in str(refusal.value)
    assert await query(roles.migrator_url, f"SELECT to_regnamespace('{folder.schema}')") is None


async def test_a_role_that_grants_cannot_bound_is_refused(folder: Folder, roles: Roles, database_url: str) -> None:
    migrations = folder.write(**EVERY_KIND)
    for unbounded in (roles.migrator, "postgres"):
        with pytest.raises(RoleRefused, match=r"^SERVICE_ROLE: .* grants cannot bound it"):
            await migrations.apply(roles.migrator_url, unbounded)
    await query(database_url, f"GRANT {roles.migrator} TO {roles.service} WITH INHERIT FALSE, SET TRUE")
    with pytest.raises(RoleRefused):
        await migrations.apply(roles.migrator_url, roles.service)
    await query(database_url, f"REVOKE {roles.migrator} FROM {roles.service}")
    assert await migrations.apply(roles.migrator_url, roles.service) == ["0001_every_kind"]


PROGRAM = """
import sys
from pathlib import Path
from servicekit.process.commands import Command, main
from servicekit.stores.migrate import Migrations

async def run():
    "Runs."

async def turn():
    \"\"\"Turns it.

    More is told elsewhere.
    \"\"\"
    print("turned")

async def fail():
    "Fails."
    raise SystemExit(3)

main("program", run, Migrations(sys.argv.pop(1), Path(sys.argv.pop(1))), {"wheel": Command("what turns", {"turn": turn, "fail": fail})})
"""


async def command(folder: Folder, *arguments: str, **environment: str) -> tuple[int, str]:
    """Runs a program with two actions on the folder's migrations. Returns its exit status and its output."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, folder.schema, str(folder.path), *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    assert running.returncode is not None
    return running.returncode, output.decode()


async def test_the_command_migrates_and_grants(folder: Folder, roles: Roles) -> None:
    folder.write(**EVERY_KIND)
    status, output = await command(folder, "migrate", DATABASE_URL=roles.migrator_url, SERVICE_ROLE=roles.service)
    assert status == 0, output
    assert "0001_every_kind" in output
    await query(roles.service_url, f"SELECT * FROM {folder.schema}.things")


async def test_the_command_says_that_the_role_is_missing(folder: Folder, roles: Roles) -> None:
    folder.write(**EVERY_KIND)
    status, output = await command(folder, "migrate", DATABASE_URL=roles.migrator_url, SERVICE_ROLE="missing")
    assert status == 2
    assert output.startswith("SERVICE_ROLE: the database has no role 'missing': ")


async def test_an_empty_role_is_none(folder: Folder, roles: Roles) -> None:
    folder.write(**EVERY_KIND)
    status, output = await command(folder, "migrate", DATABASE_URL=roles.migrator_url, SERVICE_ROLE="")
    assert status == 0, output
    assert await refused(roles.service_url, f"SELECT * FROM {folder.schema}.things")


@pytest.mark.slow("starts four programs")
async def test_a_program_has_commands_of_its_own(folder: Folder) -> None:
    assert await command(folder, "wheel", "turn") == (0, "turned\n")
    assert (await command(folder, "wheel", "fail"))[0] == 3
    _, usage = await command(folder, "wheel", "--help")
    assert "Turns it." in usage
    assert "More is told elsewhere" not in usage
    assert "what turns" in (await command(folder, "--help"))[1]


@pytest.mark.parametrize("arguments", first_quick([["wheel", "stop"], [], ["wheel"], ["stop"], ["wheel", "turn", "more"], ["migrate", "turn"]]))
async def test_other_commands_are_explained(folder: Folder, arguments: list[str]) -> None:
    status, output = await command(folder, *arguments)
    assert status == 2
    assert output.startswith("usage: python -m program")


def test_one_that_has_none_needs_not_say_so() -> None:
    assert commands._parser("program", {}).parse_args(["run"]).command == "run"
