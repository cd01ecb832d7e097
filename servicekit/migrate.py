"""Forward-only migrations: numbered SQL files of a service, each applied once, in a transaction of its own, by one process at a time.

Their own step, with credentials of their own, never at service start in production. Files are additive, so that old code runs on the new schema.
"""

import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Final

import asyncpg

from servicekit.errors import DependencyUnavailable
from servicekit.postgres import Database

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
LOCK_TIMEOUT: Final = "10s"


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

    async def apply(self, url: str) -> list[str]:
        """Applies what is missing. Returns the names of what it applied. Raises asyncpg's errors; what failed left nothing behind."""
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            return [migration.name for migration in self._all if await self._apply(connection, migration)]
        finally:
            await connection.close()

    async def require(self, database: Database) -> None:
        """A readiness check: the schema is as new as this code needs. Raises DependencyUnavailable."""
        row = await database.fetchrow(f"SELECT max(version) AS version FROM {self.schema}.schema_migrations")  # noqa: S608 - a constant
        if row is None or (row["version"] or 0) < len(self._all):
            raise DependencyUnavailable(f"schema {self.schema}, version {len(self._all)}")

    async def _apply(self, connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> bool:
        async with connection.transaction():
            # xact: a session lock would not hold behind PgBouncer. Taken before the table is looked for, since two may come at once.
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"migrate {self.schema}")
            await connection.execute(
                f"CREATE SCHEMA IF NOT EXISTS {self.schema};"
                f"CREATE TABLE IF NOT EXISTS {self.schema}.schema_migrations"
                " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            table = f"{self.schema}.schema_migrations"
            if await connection.fetchval(f"SELECT 1 FROM {table} WHERE version = $1", migration.version):  # noqa: S608 - a constant
                return False
            await connection.execute(migration.sql)
            await connection.execute(f"INSERT INTO {table} (version, name) VALUES ($1, $2)", migration.version, migration.name)  # noqa: S608 - a constant
            return True


def _read(file: Traversable) -> Migration:
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise ValueError(f"{file.name}: a migration is named 0001_what_it_does.sql")
    return Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text())
