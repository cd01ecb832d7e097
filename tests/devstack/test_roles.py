"""The login roles of the database: every start creates or corrects them, and no log contains their passwords."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from devstack.config import StackConfig
from devstack.keys import password_file
from devstack.roles import scram_verifier
from devstack.stack import Stack
from devstack.state import State
from tests.support.databases import as_role, login, with_database

STACK = pytest.mark.slow("starts a stack of its own; test_least_privilege.py checks the rights of the roles in `make test`")

ROLES = ("auth_service", "migrator", "task_service", "task_worker")
PROGRAMS = ("auth_service", "task_service", "task_worker")

# Roles with an attribute other than LOGIN, without LOGIN, or with a membership in another role.
BEYOND_LOGIN = """
    SELECT rolname FROM pg_roles
     WHERE rolname = ANY ($1) AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR NOT rolcanlogin)
    UNION
    SELECT member::regrole::text FROM pg_auth_members WHERE member::regrole::text = ANY ($1)
"""
OWNERS = """
    SELECT DISTINCT owner::regrole::text FROM (
        SELECT nspowner FROM pg_namespace WHERE nspname = 'old'
        UNION SELECT relowner FROM pg_class WHERE relnamespace = 'old'::regnamespace
        UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'old'::regnamespace
        UNION SELECT typowner FROM pg_type WHERE typnamespace = 'old'::regnamespace
        UNION SELECT datdba FROM pg_database WHERE datname = current_database()
    ) AS owners (owner)
"""
OLD_SCHEMA = """
    CREATE SCHEMA old;
    CREATE TABLE old.things (id serial PRIMARY KEY, other int GENERATED ALWAYS AS IDENTITY, day date) PARTITION BY RANGE (id);
    CREATE TABLE old.part PARTITION OF old.things FOR VALUES FROM (1) TO (10);
    CREATE SEQUENCE old.numbers;
    CREATE VIEW old.seen AS SELECT id FROM old.things;
    CREATE MATERIALIZED VIEW old.stored AS SELECT id FROM old.things;
    CREATE TYPE old."An actor" AS (id int);
    CREATE TYPE old.mood AS ENUM ('good');
    CREATE TYPE old.span AS RANGE (subtype = int);
    CREATE DOMAIN old.positive AS int CHECK (VALUE > 0);
    CREATE FUNCTION old.one(a old."An actor", b int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE old.nothing() LANGUAGE sql AS '';
    CREATE TABLE public.theirs (id int);
"""


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _column(url: str, sql: str, *arguments: object) -> list[object]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def _as(url: str) -> object:
    return (await _column(url, "SELECT current_user"))[0]


@STACK
async def test_the_roles_can_log_in_and_are_nothing_more(config: StackConfig) -> None:
    async with Stack(replace(config, data_dir=None)) as stack:
        state = stack.state
        assert [await _as(login(state, role)) for role in ROLES] == list(ROLES)
        assert await _column(state.database_url, BEYOND_LOGIN, ROLES) == []
        assert await _column(state.database_url, "SELECT rolname FROM pg_roles WHERE rolsuper") == ["postgres"]
        assert await _column(state.database_url, "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()") == ["migrator"]
        assert await _column(state.database_url, "SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%' ORDER BY 1") == [
            "auth_service",
            "migrator",
            "postgres",
            "task_service",
            "task_worker",
        ]
        assert await _column(state.database_url, "SHOW password_encryption") == ["scram-sha-256"]


@STACK
async def test_nobody_else_comes_in_and_they_go_nowhere_else(config: StackConfig) -> None:
    async with Stack(replace(config, data_dir=None)) as stack:
        state = stack.state
        await _execute(state.database_url, "CREATE ROLE stranger LOGIN PASSWORD 'secret'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await _as(as_role(state.database_url, "stranger", "secret"))
        for role in ROLES:
            with pytest.raises(asyncpg.InvalidPasswordError):
                await _as(as_role(state.database_url, role, "secret"))
            for elsewhere in ("postgres", "template1"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
                    await _as(with_database(login(state, role), elsewhere))
        for role in PROGRAMS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await _execute(login(state, role), "CREATE TEMPORARY TABLE mine (id int)")
        await _execute(login(state, "migrator"), "CREATE SCHEMA made; DROP SCHEMA made")


@STACK
async def test_a_start_makes_the_roles_as_they_should_be(config: StackConfig) -> None:
    async with Stack(config) as stack:
        state = stack.state
        changes = ("ALTER ROLE auth_service SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD 'mine'", "DROP ROLE task_service")
        database = "GRANT CREATE, TEMPORARY ON DATABASE taskmanager TO auth_service"
        await _execute(state.database_url, "REVOKE ALL ON DATABASE taskmanager FROM task_service", *changes, database)
        assert await _as(as_role(state.database_url, "auth_service", "mine")) == "auth_service"
    async with Stack(config) as stack:
        state = stack.state
        assert [await _as(login(state, role)) for role in ROLES] == list(ROLES)
        assert await _column(state.database_url, BEYOND_LOGIN, ROLES) == []
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _as(as_role(state.database_url, "auth_service", "mine"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _execute(login(state, "auth_service"), "CREATE SCHEMA mine")


@STACK
async def test_another_password_counts_from_the_next_start_on(config: StackConfig) -> None:
    async with Stack(config) as stack:
        before = login(stack.state, "auth_service")
        password_file(Path(stack.state.data_dir) / "secrets", "auth_service").unlink()
    async with Stack(config) as stack:
        after = login(stack.state, "auth_service")
        assert await _as(after) == "auth_service"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _as(as_role(stack.state.database_url, "auth_service", before.partition("auth_service:")[2].partition("@")[0]))


@STACK
async def test_what_the_superuser_made_before_there_were_roles_becomes_the_migrators(config: StackConfig) -> None:
    async with Stack(config) as stack:
        await _execute(stack.state.database_url, "ALTER DATABASE taskmanager OWNER TO postgres", OLD_SCHEMA)
        assert await _column(stack.state.database_url, OWNERS) == ["postgres"]
    for _ in range(2):
        async with Stack(config) as stack:
            assert await _column(stack.state.database_url, OWNERS) == ["migrator"]
            assert await _column(stack.state.database_url, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'theirs'") == ["postgres"]
    async with Stack(config) as stack:
        await _execute(login(stack.state, "migrator"), "DROP SCHEMA old CASCADE")


@STACK
async def test_no_log_has_a_password_though_every_statement_is_logged(config: StackConfig) -> None:
    async with Stack(config) as stack:
        await _execute(stack.state.database_url, "ALTER SYSTEM SET log_statement = 'all'", "DROP OWNED BY task_service", "DROP ROLE task_service")
    async with Stack(config) as stack:
        state = stack.state
    for statement in ("CREATE ROLE task_service", "ALTER ROLE task_service"):
        assert _logged(state, statement)
    assert list(_leaks(state)) == []


def _logged(state: State, text: str) -> bool:
    return text in Path(state.processes["postgres"].log).read_text()


def _leaks(state: State) -> Iterable[str]:
    """Yields each log that contains a secret, with the secret's name."""
    secrets = {path.name: path.read_text() for path in (Path(state.data_dir) / "secrets").iterdir()}
    for log in (Path(state.data_dir) / "logs").iterdir():
        yield from (f"{log.name}: {name}" for name, secret in secrets.items() if secret in log.read_text())


def test_a_verifier_is_of_one_password_and_one_salt() -> None:
    first, second = scram_verifier("secret"), scram_verifier("secret")
    assert first != second
    assert first.startswith("SCRAM-SHA-256$4096:")
    assert "secret" not in first
    with pytest.raises(UnicodeEncodeError):
        scram_verifier("gehe\u00efm")
