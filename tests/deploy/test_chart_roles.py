"""10-roles.sql creates the same roles and rights as devstack/roles.py, as a superuser and as the administrator of a managed PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from devstack.roles import MIGRATOR, PROGRAMS
from devstack.stack import Stack
from servicekit.stores.migrate import packaged
from servicekit.stores.rights import WorkerRights
from tests.deploy.rendered import environment, get, objects
from tests.deploy.roles_script import run_roles_script
from tests.support.databases import as_role, with_database

ATTRIBUTES = "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit FROM pg_roles WHERE rolname = $1"
RIGHTS = "SELECT (datdba::regrole, datacl)::text FROM pg_database WHERE datname = $1"
LOCALE = "SELECT encoding, datlocprovider::text, datlocale, datcollate, datctype FROM pg_database WHERE datname = $1"
MEMBERS = "SELECT count(*) FROM pg_auth_members WHERE roleid = $1::text::regrole AND (inherit_option OR set_option)"
PASSWORD = 'it\'s "quoted" \\ $1'


@pytest.fixture
async def superuser(system: Stack) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(system.state.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def variables(superuser: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[dict[str, str]]:
    """The variables of the chart's PostgreSQL, with names of this test. Drops what they name at the end."""
    mark = uuid4().hex[:8]
    found = objects("defaults")
    (container,) = get(found, "StatefulSet", "task-manager-postgresql")["spec"]["template"]["spec"]["containers"]
    given = {
        name: f"{value}_{mark}" if name.endswith("_USER") or name == "POSTGRES_DB" else value for name, value in environment(container, found).items()
    }
    yield given | {"MARK": mark, "MIGRATOR_PASSWORD": PASSWORD}
    await superuser.execute(f"DROP DATABASE IF EXISTS {given['POSTGRES_DB']} WITH (FORCE)")
    for role in (MIGRATOR, *PROGRAMS, "administrator"):
        await superuser.execute(f"DROP ROLE IF EXISTS {role}_{mark}")


@pytest.mark.parametrize("administrator", ["superuser", "managed"])
async def test_the_script_makes_the_roles_that_devstack_makes(
    system: Stack, superuser: "asyncpg.Connection[asyncpg.Record]", variables: dict[str, str], administrator: str
) -> None:
    mark, database, url = variables["MARK"], variables["POSTGRES_DB"], system.state.database_url
    managed = administrator == "managed"
    if managed:
        await superuser.execute(f"CREATE ROLE administrator_{mark} LOGIN CREATEROLE CREATEDB NOSUPERUSER PASSWORD 'admin'")
        await superuser.execute(f"GRANT CONNECT ON DATABASE taskmanager TO administrator_{mark}")
        url = as_role(url, f"administrator_{mark}", "admin")
    for _ in range(2):
        ended = await asyncio.to_thread(run_roles_script, url, variables)
        assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    if managed:
        await superuser.execute(f"REVOKE CONNECT ON DATABASE taskmanager FROM administrator_{mark}")
    for role in (MIGRATOR, *PROGRAMS):
        assert await superuser.fetchrow(ATTRIBUTES, f"{role}_{mark}") == await superuser.fetchrow(ATTRIBUTES, role)
    ours, theirs = [str(await superuser.fetchval(RIGHTS, name)) for name in (database, "taskmanager")]
    assert ours.replace(f"_{mark}", "") == theirs
    assert await superuser.fetchrow(LOCALE, database) == await superuser.fetchrow(LOCALE, "taskmanager")
    assert await superuser.fetchval(MEMBERS, f"{MIGRATOR}_{mark}") == 0
    # The migrations run with these roles.
    migrator = as_role(with_database(url, database), f"{MIGRATOR}_{mark}", PASSWORD)
    rights = WorkerRights(reads=("reminders",), calls=("fire_reminders(uuid, integer, boolean)",))
    applied = await packaged("task", "task_service", rights).apply(migrator, f"task_service_{mark}", f"task_worker_{mark}")
    assert applied
    for role in ("task_service", "task_worker"):
        program = await asyncpg.connect(as_role(with_database(url, database), f"{role}_{mark}", variables[f"{role.upper()}_PASSWORD"]))
        assert await program.fetchval("SELECT max(version) FROM task.schema_migrations") == len(applied)
        await program.close()


@pytest.mark.parametrize("password", ["TASK_SERVICE_PASSWORD", "TASK_WORKER_PASSWORD"])
async def test_a_missing_password_is_named_and_nothing_is_created(
    system: Stack, superuser: "asyncpg.Connection[asyncpg.Record]", variables: dict[str, str], password: str
) -> None:
    del variables[password]
    ended = await asyncio.to_thread(run_roles_script, system.state.database_url, variables)
    assert ended.returncode == 3
    assert f"{password} is not set" in ended.stderr
    assert await superuser.fetchval("SELECT count(*) FROM pg_roles WHERE rolname LIKE $1", f"%{variables['MARK']}") == 0


async def test_the_administrator_is_told_that_the_log_will_have_the_passwords(
    system: Stack, superuser: "asyncpg.Connection[asyncpg.Record]", variables: dict[str, str]
) -> None:
    mark = variables["MARK"]
    await superuser.execute(f"CREATE ROLE administrator_{mark} LOGIN CREATEROLE CREATEDB PASSWORD 'admin'")
    await superuser.execute(f"ALTER ROLE administrator_{mark} SET log_statement = 'ddl'")
    await superuser.execute(f"GRANT CONNECT ON DATABASE taskmanager TO administrator_{mark}")
    ended = await asyncio.to_thread(run_roles_script, as_role(system.state.database_url, f"administrator_{mark}", "admin"), variables)
    await superuser.execute(f"REVOKE CONNECT ON DATABASE taskmanager FROM administrator_{mark}")
    assert ended.returncode == 0, ended.stderr
    assert "log_statement is on" in ended.stderr
