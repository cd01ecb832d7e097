"""The rights of the roles that use a schema: the migrations make them exact each time, whatever rights the roles had before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from servicekit.stores.statements import statements

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class RoleRefused(Exception):
    """The role that must get the right to use the schema does not exist, or grants cannot restrict it."""


@dataclass(frozen=True, slots=True)
class WorkerRights:
    """What the role of a worker may do with a schema: read these tables and the versions, and call these functions (names with argument types).

    A worker needs no right on what such a function reads and writes, if the function executes with the rights of its owner (SECURITY DEFINER).
    """

    reads: Sequence[str]
    calls: Sequence[str]


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights on a schema: of the role of its service, and of the role of its worker, each quoted for a statement. None: unchanged."""

    schema: str
    service: str | None
    worker: str | None
    of_worker: WorkerRights

    async def grant(self, connection: Connection) -> None:
        """Grants each role its rights on the objects that exist, and revokes all other rights."""
        if self.service is not None:
            await execute(connection, _service(self.schema, self.service))
        if self.worker is not None:
            await execute(connection, _worker(self.schema, self.worker))
            for table in self.of_worker.reads:
                if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{self.schema}.{table}"):
                    await connection.execute(f"GRANT SELECT ON {self.schema}.{table} TO {self.worker}")
            for function in self.of_worker.calls:
                if await connection.fetchval("SELECT to_regprocedure($1) IS NOT NULL", f"{self.schema}.{function}"):
                    await connection.execute(f"GRANT EXECUTE ON FUNCTION {self.schema}.{function} TO {self.worker}")


async def rights(
    connection: Connection, schema: str, service_role: str | None, worker_role: str | None, of_worker: WorkerRights | None
) -> Rights | None:
    """Returns the rights of the roles, or None without a role. Raises RoleRefused."""
    if worker_role and of_worker is None:
        raise RoleRefused(f"WORKER_ROLE: the schema {schema} has no worker")
    if worker_role and worker_role == service_role:
        raise RoleRefused("WORKER_ROLE: the role is that of SERVICE_ROLE, so it cannot have fewer rights: choose another role")
    service = await _quoted(connection, "SERVICE_ROLE", service_role) if service_role else None
    worker = await _quoted(connection, "WORKER_ROLE", worker_role) if worker_role else None
    return Rights(schema, service, worker, of_worker or WorkerRights((), ())) if service or worker else None


async def execute(connection: Connection, sql: str) -> None:
    """Executes the statements in order."""
    for statement in statements(sql):
        await connection.execute(statement)


async def _quoted(connection: Connection, setting: str, role: str) -> str:
    """Returns the role, quoted for a statement. Raises RoleRefused."""
    # Cast to text: as a `name`, the type of the column, a long role would be truncated or rejected.
    found = await connection.fetchrow(
        "SELECT quote_ident(rolname) AS quoted, pg_has_role(rolname, current_user, 'MEMBER') AS unbounded, current_user AS migrator"
        " FROM pg_roles WHERE rolname = $1::text",
        role,
    )
    if found is None:
        raise RoleRefused(
            f"{setting}: the database has no role {role!r}: create it with 10-roles.sql, then run this again (docs/operations.md#roles)"
        )
    if found["unbounded"]:
        raise RoleRefused(
            f"{setting}: {role!r} is a superuser or has every right of {found['migrator']!r}, the role that migrates, so grants cannot bound it:"
            f" choose another role, or leave {setting} empty if there is only one role"
        )
    return str(found["quoted"])


def _service(schema: str, role: str) -> str:
    return f"""
        REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, {role};
        GRANT USAGE ON SCHEMA {schema} TO {role};
        REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
        REVOKE INSERT, UPDATE, DELETE ON {schema}.schema_migrations FROM {role};
        REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM PUBLIC, {role};
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
        REVOKE ALL ON ALL ROUTINES IN SCHEMA {schema} FROM PUBLIC, {role};
        GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {schema} TO {role};
    """


def _worker(schema: str, role: str) -> str:
    return f"""
        REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, {role};
        GRANT USAGE ON SCHEMA {schema} TO {role};
        REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {role};
        GRANT SELECT ON {schema}.schema_migrations TO {role};
        REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM PUBLIC, {role};
        REVOKE ALL ON ALL ROUTINES IN SCHEMA {schema} FROM PUBLIC, {role};
    """  # noqa: S608 - a constant and a quoted name
