"""Forward-only migrations: the numbered SQL files of a service. Each is applied once, in its own transaction, by one process at a time.

Migrations run as a separate step with their own credentials, never at service start in production. They are additive, so that old code runs on the
new schema. The role that migrates owns the objects that they create. The service's login role gets the right to use these objects, and no other
right.

A migration whose first line begins with `-- no transaction` has statements that PostgreSQL executes only outside of a transaction, such as CREATE
INDEX CONCURRENTLY. Each of its statements runs by itself. If one fails, the ones before it stay, and the next
run executes the file again, so each must have IF [NOT] EXISTS. This needs a direct connection: not one through PgBouncer in transaction mode.
"""

import asyncio
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, TypeAlias

import asyncpg

from servicekit.errors import DependencyUnavailable
from servicekit.stores.postgres import Database
from servicekit.stores.statements import statements

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
LOCK_TIMEOUT: Final = "10s"
NO_TRANSACTION: Final = "-- no transaction"
# How often a process asks whether another one has ended a migration without a transaction. It does not wait inside of a statement, because CREATE
# INDEX CONCURRENTLY waits for all statements that run.
POLL_SECONDS: Final = 0.5
# What a failed CREATE INDEX CONCURRENTLY leaves.
INVALID_INDEXES: Final = """
SELECT format('%I.%I', nspname, relname) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE NOT indisvalid AND nspname = $1
"""


class ServiceRoleRefused(Exception):
    """The role that must get the right to use the schema does not exist, or grants cannot restrict it."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, `0001_what_it_does.sql`."""

    version: int
    name: str
    sql: str

    @property
    def in_transaction(self) -> bool:
        """Whether the whole migration is one transaction."""
        return not self.sql.startswith(NO_TRANSACTION)


class Migrations:
    """The migrations of one schema, in order."""

    def __init__(self, schema: str, folder: Traversable) -> None:
        self.schema = schema
        self._all = sorted((_read(file) for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda m: m.version)
        versions = [migration.version for migration in self._all]
        if versions != list(range(1, len(versions) + 1)):
            raise ValueError(f"the migrations of {schema} are not numbered from 1 without a gap: {versions}")

    async def apply(self, url: str, service_role: str | None = None) -> list[str]:
        """Applies the missing migrations and grants `service_role` the right to use the schema and no other right. Without a role, changes no rights.

        Returns the names of the applied migrations. Raises ServiceRoleRefused before it applies anything, or asyncpg's errors. A migration that
        fails is rolled back completely, unless it has no transaction; the ones before it stay applied.
        """
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            grants = _grants(self.schema, await _quoted(connection, service_role)) if service_role else ""
            applied = [migration.name for migration in self._all if await self._applied(connection, migration, grants)]
            if grants and not applied:
                async with connection.transaction():
                    await self.lock(connection)
                    await _execute(connection, grants)
            return applied
        finally:
            await connection.close()

    async def require(self, database: Database) -> None:
        """A readiness check: the schema has at least the version that this code needs. Raises DependencyUnavailable."""
        row = await database.fetchrow(f"SELECT max(version) AS version FROM {self.schema}.schema_migrations")  # noqa: S608 - a constant
        if row is None or (row["version"] or 0) < len(self._all):
            raise DependencyUnavailable(f"schema {self.schema}, version {len(self._all)}")

    async def are_applied(self, connection: Connection) -> bool:
        """Whether the schema has at least the version that this code needs."""
        table = f"{self.schema}.schema_migrations"
        if await connection.fetchval("SELECT to_regclass($1)", table) is None:
            return False
        return bool(await connection.fetchval(f"SELECT max(version) >= $1 FROM {table}", len(self._all)))  # noqa: S608 - a constant

    async def _applied(self, connection: Connection, migration: Migration, grants: str) -> bool:
        """Applies the migration. Returns False if it was applied before."""
        if migration.in_transaction:
            return await self._apply(connection, migration, grants, migration.sql)
        if await self._is_applied(connection, migration):
            return False
        key = f"migrate {self.schema} without a transaction"
        while not await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(POLL_SECONDS)
        try:
            if await self._is_applied(connection, migration):
                return False
            for (index,) in await connection.fetch(INVALID_INDEXES, self.schema):
                await connection.execute(f"DROP INDEX CONCURRENTLY {index}")
            await _execute(connection, migration.sql)
            return await self._apply(connection, migration, grants, "")
        finally:
            await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)

    async def _apply(self, connection: Connection, migration: Migration, grants: str, sql: str) -> bool:
        """Executes the SQL and notes that the migration is applied, in one transaction. Returns False if it was applied before."""
        async with connection.transaction():
            await self.lock(connection)
            if await self._is_noted(connection, migration):
                return False
            await _execute(connection, sql)
            note = f"INSERT INTO {self.schema}.schema_migrations (version, name) VALUES ($1, $2)"  # noqa: S608 - a constant
            await connection.execute(note, migration.version, migration.name)
            if grants:
                # With each migration, not after the last: no object ever exists without its rights, and no function is ever open to all roles.
                await _execute(connection, grants)
            return True

    async def _is_applied(self, connection: Connection, migration: Migration) -> bool:
        async with connection.transaction():
            await self.lock(connection)
            return await self._is_noted(connection, migration)

    async def _is_noted(self, connection: Connection, migration: Migration) -> bool:
        sql = f"SELECT EXISTS (SELECT FROM {self.schema}.schema_migrations WHERE version = $1)"  # noqa: S608 - a constant
        return bool(await connection.fetchval(sql, migration.version))

    async def lock(self, connection: Connection) -> None:
        """Locks out other migrating processes until the transaction ends, and creates the schema if it is missing."""
        # A transaction lock, because a session lock does not hold behind PgBouncer. Taken before the table is created, because two processes may
        # start at the same time.
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # Citus would change the parts of a table at the same time, over several connections, and then refuse the next change in this transaction.
        # PostgreSQL accepts the setting and ignores it.
        await connection.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"migrate {self.schema}")
        await connection.execute(
            f"CREATE SCHEMA IF NOT EXISTS {self.schema};"
            f"CREATE TABLE IF NOT EXISTS {self.schema}.schema_migrations"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )


async def _execute(connection: Connection, sql: str) -> None:
    for statement in statements(sql):
        await connection.execute(statement)


async def _quoted(connection: Connection, role: str) -> str:
    """Returns the role, quoted for a statement. Raises ServiceRoleRefused."""
    # Cast to text: as a `name`, the type of the column, a long role would be truncated or rejected.
    found = await connection.fetchrow(
        "SELECT quote_ident(rolname) AS quoted, pg_has_role(rolname, current_user, 'MEMBER') AS unbounded, current_user AS migrator"
        " FROM pg_roles WHERE rolname = $1::text",
        role,
    )
    if found is None:
        raise ServiceRoleRefused(f"SERVICE_ROLE: the database has no role {role!r}")
    if found["unbounded"]:
        raise ServiceRoleRefused(
            f"SERVICE_ROLE: {role!r} is a superuser or has every right of {found['migrator']!r}, the role that migrates, so grants cannot bound it:"
            " choose another role, or leave SERVICE_ROLE empty if there is only one role"
        )
    return str(found["quoted"])


def packaged(schema: str, package: str) -> Migrations:
    """Returns the migrations of a schema from the folder `migrations` of a service's package. Does not import the package's modules."""
    return Migrations(schema, resources.files(package) / "migrations")


def _grants(schema: str, role: str) -> str:
    """Returns the statements after which the role may use the schema and has no other right, whatever rights it had before. `role` is quoted."""
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
