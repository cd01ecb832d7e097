"""Backups of a running system: runs the scripts as a CronJob or an operator does, and reads the data to compare."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import asyncpg

from devstack.backup import SCRIPTS, environment
from devstack.stack import Stack
from tests.support.databases import with_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Rows: TypeAlias = Mapping[str, Sequence[str]]

TIMEOUT_SECONDS = 30
CACHE_STATE = "task.cache_state"
TABLES = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('auth', 'task') ORDER BY 1"


@dataclass(frozen=True, slots=True)
class Ran:
    """The exit status and the output of a program."""

    status: int
    output: str


class Operator:
    """An operator who backs up a system to a folder and restores it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        url = urlsplit(stack.state.database_url)
        port, redis_port = url.port, urlsplit(stack.state.redis_url).port
        assert port is not None
        assert redis_port is not None
        self._told = environment(Path(stack.state.data_dir), port, redis_port)

    async def backup(self, *options: str) -> Path:
        """Makes a backup, which must succeed. Returns its path."""
        before = set(self.folder.glob("*.dump"))
        ran = await self.script("backup.sh", str(self.folder), *options)
        assert ran.status == 0, ran.output
        (new,) = set(self.folder.glob("*.dump")) - before
        return new

    async def restore(self, *arguments: str | Path, **told: str) -> Ran:
        """Runs restore.sh."""
        return await self.script("restore.sh", *map(str, arguments), **told)

    async def script(self, name: str, *arguments: str, **told: str) -> Ran:
        """Runs a script. `told` overrides the system's environment variables."""
        return await self.program("sh", str(SCRIPTS / name), *arguments, **told)

    async def program(self, *command: str, **told: str) -> Ran:
        """Runs a program with the scripts' environment."""
        process = await asyncio.create_subprocess_exec(
            *command, env={**self._told, **told}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, output.decode())

    def with_program(self, name: str, text: str, folder: Path) -> str:
        """Returns a PATH on which the program is this shell script. Inside it, REAL is the path of the real program."""
        real = next(path for path in (Path(entry) / name for entry in self._told["PATH"].split(":")) if path.exists())
        stand_in = folder / name
        stand_in.write_text(f'#!/bin/sh\nREAL="{real}"\n{text}\n')
        stand_in.chmod(0o755)
        return f"{folder}:{self._told['PATH']}"

    async def schema(self) -> str:
        """Returns the schema as text: tables, functions, owners and grants, without rows."""
        ran = await self.program("pg_dump", "--schema-only", "--restrict-key=none")
        assert ran.status == 0, ran.output
        # PostgreSQL dumps (a AND b) AND c as such, but after a restore as a AND b AND c.
        return ran.output.replace("(", "").replace(")", "")


def sum_of(backup: Path) -> Path:
    """Returns the path of the backup's checksum file."""
    return backup.with_name(f"{backup.name}.sha256")


async def rows_of(connection: Connection) -> Rows:
    """Returns all rows of all tables of both schemas, as text, except the state of the cache: replicas that run change it all the time."""
    found = {}
    for (table,) in await connection.fetch(TABLES):
        if table == CACHE_STATE:
            continue
        found[table] = [row[0] for row in await connection.fetch(f"SELECT one::text FROM {table} AS one ORDER BY 1")]
    return found


@contextlib.asynccontextmanager
async def superuser(stack: Stack, database: str | None = None) -> AsyncIterator[Connection]:
    """Yields a superuser's connection to the system's database or to another database on its server."""
    url = stack.state.database_url
    connection = await asyncpg.connect(with_database(url, database) if database else url)
    try:
        yield connection
    finally:
        await connection.close()
