"""Forward-only migrations: numbered SQL files of a service, each applied once, in a transaction of its own, by one process at a time.

Their own step, with credentials of their own, never at service start in production. Files are additive, so that old code runs on the new schema.
What they make belongs to the role that migrates; the role that the service logs in as is granted the use of it, and nothing else.
"""

import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, TypeAlias

import asyncpg

from servicekit.errors import DependencyUnavailable
from servicekit.stores.postgres import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
LOCK_TIMEOUT: Final = "10s"


class ServiceRoleRefused(Exception):
    """The role that was to be granted the use of the schema is not there, or is not bounded by grants."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, `0001_what_it_does.sql`."""

    version: int
    name: str
    sql: str


class Migrations:
    """The migrations of one schema, in order."""

    def __init__(self, schema: str, folder: Traversable) -> None:
        self.schema = schema
        self._all = sorted((_read(file) for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda m: m.version)
        versions = [migration.version for migration in self._all]
        if versions != list(range(1, len(versions) + 1)):
            raise ValueError(f"the migrations of {schema} are not numbered from 1 without a gap: {versions}")

    async def apply(self, url: str, service_role: str | None = None) -> list[str]:
        """Applies what is missing, and leaves `service_role` with the use of the schema and no more. Without a role no right is changed.

        Returns the names of what it applied. Raises ServiceRoleRefused before anything is applied, and asyncpg's errors; what failed left
        nothing behind.
        """
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            grants = _grants(self.schema, await _quoted(connection, service_role)) if service_role else ""
            applied = [migration.name for migration in self._all if await self._apply(connection, migration, grants)]
            if grants and not applied:
                async with connection.transaction():
                    await self._lock(connection)
                    await connection.execute(grants)
            return applied
        finally:
            await connection.close()

    async def require(self, database: Database) -> None:
        """A readiness check: the schema is as new as this code needs. Raises DependencyUnavailable."""
        row = await database.fetchrow(f"SELECT max(version) AS version FROM {self.schema}.schema_migrations")  # noqa: S608 - a constant
        if row is None or (row["version"] or 0) < len(self._all):
            raise DependencyUnavailable(f"schema {self.schema}, version {len(self._all)}")

    async def _apply(self, connection: Connection, migration: Migration, grants: str) -> bool:
        async with connection.transaction():
            await self._lock(connection)
            table = f"{self.schema}.schema_migrations"
            if await connection.fetchval(f"SELECT 1 FROM {table} WHERE version = $1", migration.version):  # noqa: S608 - a constant
                return False
            await connection.execute(migration.sql)
            await connection.execute(f"INSERT INTO {table} (version, name) VALUES ($1, $2)", migration.version, migration.name)  # noqa: S608 - a constant
            if grants:
                # With each migration, not after the last: what it makes is never there without its rights, and a function never open to all.
                await connection.execute(grants)
            return True

    async def _lock(self, connection: Connection) -> None:
        """Keeps others out until the end of the transaction, and makes the schema if it is missing."""
        # xact: a session lock would not hold behind PgBouncer. Taken before the table is looked for, since two may come at once.
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"migrate {self.schema}")
        await connection.execute(
            f"CREATE SCHEMA IF NOT EXISTS {self.schema};"
            f"CREATE TABLE IF NOT EXISTS {self.schema}.schema_migrations"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )


async def _quoted(connection: Connection, role: str) -> str:
    """The role as it is written in a statement. Raises ServiceRoleRefused."""
    # text: as a `name`, the type of the column, a long one would be cut off or refused.
    found = await connection.fetchrow(
        "SELECT quote_ident(rolname) AS quoted, pg_has_role(rolname, current_user, 'MEMBER') AS unbounded, current_user AS migrator"
        " FROM pg_roles WHERE rolname = $1::text",
        role,
    )
    if found is None:
        raise ServiceRoleRefused(f"SERVICE_ROLE: the database has no role {role!r}")
    if found["unbounded"]:
        raise ServiceRoleRefused(
            f"SERVICE_ROLE: {role!r} has every right of {found['migrator']!r}, which migrates, or is a superuser, so grants cannot bound it:"
            " choose another role, or leave it empty where there is only one"
        )
    return str(found["quoted"])


def packaged(schema: str, package: str) -> Migrations:
    """The migrations of a schema, in order, from the folder `migrations` of a service's package. Does not import the package's modules."""
    return Migrations(schema, resources.files(package) / "migrations")


def _grants(schema: str, role: str) -> str:
    """Statements after which the role can use the schema and no more, whatever it could before. `role` is quoted."""
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


def _read(file: Traversable) -> Migration:
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise ValueError(f"{file.name}: a migration is named 0001_what_it_does.sql")
    return Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text())
