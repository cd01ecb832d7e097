"""10-roles.sql of the chart creates the same roles and rights as devstack/roles.py, and the migrations run with them."""

import re
from uuid import uuid4

import asyncpg

from devstack.roles import MIGRATOR, SERVICES
from devstack.stack import Stack
from helm.chart import ROOT
from servicekit.stores.migrate import packaged
from tests.deploy.rendered import environment, get, objects
from tests.support.databases import as_role, with_database

SCRIPT = ROOT / "charts" / "postgresql" / "files" / "10-roles.sql"
ATTRIBUTES = "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit FROM pg_roles WHERE rolname = $1"
RIGHTS = "SELECT (datdba::regrole, datacl)::text FROM pg_database WHERE datname = $1"


def _as_psql_would(script: str, variables: dict[str, str]) -> str:
    """Replaces psql's \\set, \\getenv and variables in the script."""
    known = {name: variables[variable] for name, variable in re.findall(r"^\\getenv (\w+) (\w+)$", script, re.MULTILINE)}
    sql = re.sub(r"^\\.*$", "", script, flags=re.MULTILINE)
    quoted = re.sub(r":'(\w+)'", lambda match: "'" + known[match[1]].replace("'", "''") + "'", sql)
    return re.sub(r':"(\w+)"', lambda match: '"' + known[match[1]] + '"', quoted)


async def test_the_script_makes_the_roles_that_devstack_makes(system: Stack) -> None:
    mark = uuid4().hex[:8]
    found = objects("defaults")
    (container,) = get(found, "StatefulSet", "task-manager-postgresql")["spec"]["template"]["spec"]["containers"]
    variables = {
        name: f"{value}_{mark}" if name.endswith("_USER") or name == "POSTGRES_DB" else value for name, value in environment(container, found).items()
    }
    database = variables["POSTGRES_DB"]
    connection = await asyncpg.connect(system.state.database_url)
    try:
        await connection.execute(f"CREATE DATABASE {database}")
        await connection.execute(_as_psql_would(SCRIPT.read_text(), variables))
        for role in (MIGRATOR, *SERVICES):
            assert await connection.fetchrow(ATTRIBUTES, f"{role}_{mark}") == await connection.fetchrow(ATTRIBUTES, role)
        ours, theirs = [str(await connection.fetchval(RIGHTS, name)) for name in (database, "taskmanager")]
        assert ours.replace(f"_{mark}", "") == theirs
        url = with_database(system.state.database_url, database)
        migrator = as_role(url, f"{MIGRATOR}_{mark}", variables["MIGRATOR_PASSWORD"])
        applied = await packaged("task", "task_service").apply(migrator, f"task_service_{mark}")
        assert applied
        service = await asyncpg.connect(as_role(url, f"task_service_{mark}", variables["TASK_SERVICE_PASSWORD"]))
        assert await service.fetchval("SELECT max(version) FROM task.schema_migrations") == len(applied)
        await service.close()
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        for role in (MIGRATOR, *SERVICES):
            await connection.execute(f"DROP ROLE IF EXISTS {role}_{mark}")
        await connection.close()
