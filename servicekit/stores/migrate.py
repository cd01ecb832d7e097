"""Forward-only migrations: the numbered SQL files of a service. Each is applied once, in its own transaction, by one process at a time.

Migrations run as a separate step with their own credentials, never at service start in production. They are additive, so that old code runs on the
new schema. The role that migrates owns the objects that they create. The service's login role gets the right to use these objects, and no other
right. The role of the service's worker, if it has one, gets only what WorkerRights names.

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
from servicekit.stores.rights import Rights, WorkerRights, execute, rights

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

    def __init__(self, schema: str, folder: Traversable, worker: WorkerRights | None = None) -> None:
        """`worker`: the rights of the role of the service's worker, if the service has one."""
        self.schema = schema
        self._worker = worker
        self._all = sorted((_read(file) for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda m: m.version)
        versions = [migration.version for migration in self._all]
        if versions != list(range(1, len(versions) + 1)):
            raise ValueError(f"the migrations of {schema} are not numbered from 1 without a gap: {versions}")

    async def apply(self, url: str, service_role: str | None = None, worker_role: str | None = None) -> list[str]:
        """Applies the missing migrations, grants `service_role` the right to use the schema and no other right, and `worker_role` its WorkerRights.

        Without a role, changes no rights. Returns the names of the applied migrations. Raises RoleRefused before it applies anything, or asyncpg's
        errors. A migration that fails is rolled back completely, unless it has no transaction; the ones before it stay applied.
        """
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            grants = await rights(connection, self.schema, service_role, worker_role, self._worker)
            applied = [migration.name for migration in self._all if await self._applied(connection, migration, grants)]
            if grants and not applied:
                async with connection.transaction():
                    await self.lock(connection)
                    await grants.grant(connection)
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

    async def _applied(self, connection: Connection, migration: Migration, grants: Rights | None) -> bool:
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
            await execute(connection, migration.sql)
            return await self._apply(connection, migration, grants, "")
        finally:
            await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)

    async def _apply(self, connection: Connection, migration: Migration, grants: Rights | None, sql: str) -> bool:
        """Executes the SQL and notes that the migration is applied, in one transaction. Returns False if it was applied before."""
        async with connection.transaction():
            await self.lock(connection)
            if await self._is_noted(connection, migration):
                return False
            await execute(connection, sql)
            note = f"INSERT INTO {self.schema}.schema_migrations (version, name) VALUES ($1, $2)"  # noqa: S608 - a constant
            await connection.execute(note, migration.version, migration.name)
            if grants:
                # With each migration, not after the last: no object ever exists without its rights, and no function is ever open to all roles.
                await grants.grant(connection)
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


def packaged(schema: str, package: str, worker: WorkerRights | None = None) -> Migrations:
    """Returns the migrations of a schema from the folder `migrations` of a service's package. Does not import the package's modules."""
    return Migrations(schema, resources.files(package) / "migrations", worker)


def _read(file: Traversable) -> Migration:
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise ValueError(f"{file.name}: a migration is named 0001_what_it_does.sql")
    return Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text())
