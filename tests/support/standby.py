"""A streaming standby of a stack's PostgreSQL, which can be cut off from the primary and take its place on the same port."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg

from devstack import once
from devstack.config import HOST
from devstack.keys import password_file
from devstack.postgres import program
from devstack.process import Process, Spec
from devstack.roles import SUPERUSER
from devstack.stack import Stack
from task_service.cache.domain import VALID_SECONDS
from tests.support.backups import Connection, superuser
from tests.support.ports import free_ports
from tests.support.waiting import eventually

WITHIN_SECONDS = 30.0


class Standby:
    """A running standby."""

    def __init__(self, stack: Stack, number: int) -> None:
        """`number` tells the standbys of a stack apart."""
        assert stack._data is not None
        self._stack = stack
        self._data = stack._data
        (self._port,) = free_ports(1)
        self._folder = self._data.postgres.with_name(f"standby-{number}")
        self._password = password_file(self._data.secrets, SUPERUSER).read_text()
        self._primary: Spec = stack._process("postgres").spec
        self._process: Process | None = None

    async def start(self) -> None:
        """Copies the primary, and starts the copy as its standby."""
        self._folder.mkdir(mode=0o700)
        if (account := self._primary.account) is not None:
            os.chown(self._folder, account.uid, account.gid)
        source = ("-h", HOST, "-p", str(self._primary.ports["port"]), "-U", SUPERUSER)
        copying = replace(
            self._primary,
            name="pg_basebackup",
            command=(str(program("pg_basebackup")), *source, "-D", str(self._folder), "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            environment={**self._primary.environment, "PGPASSWORD": self._password},
            log=self._data.logs / "pg_basebackup.log",
        )
        await once.run(copying, self._data.held)
        changed = {str(self._data.postgres): str(self._folder), f"port={self._primary.ports['port']}": f"port={self._port}"}
        spec = replace(
            self._primary,
            name=self._folder.name,
            command=tuple(changed.get(argument, argument) for argument in self._primary.command),
            log=self._data.logs / f"{self._folder.name}.log",
            ready=self._accepts,
        )
        self._process = Process(spec, self._data.held, lambda _: None, lambda _: None)
        await self._process.start()
        await self.catch_up()

    async def catch_up(self) -> None:
        """Waits until the standby has replayed all that the primary has committed by now."""
        async with superuser(self._stack) as primary, self._connected() as standby:
            end = await primary.fetchval("SELECT pg_current_wal_insert_lsn()")

            async def require_replayed() -> None:
                assert await standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", end)

            await eventually(require_replayed, within=WITHIN_SECONDS)

    async def cut_off(self) -> None:
        """Ends the replication: what the primary commits from now on does not reach the standby."""
        async with self._connected() as standby:
            await standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await standby.execute("SELECT pg_reload_conf()")

            async def require_cut_off() -> None:
                assert await standby.fetchval("SELECT count(*) FROM pg_stat_wal_receiver") == 0

            await eventually(require_cut_off, within=WITHIN_SECONDS)

    async def take_over(self) -> None:
        """Kills the primary, and starts the standby on its port, where it stays a standby until `promote`.

        The port is closed in between for as long as a replica may rely on the last answer of the primary: a standby that answers sooner is no fenced
        failover (ADR 23).
        """
        assert self._process is not None
        await self._stack.kill("postgres")
        await asyncio.sleep(VALID_SECONDS)
        await self._process.stop()
        await asyncio.to_thread(self._data.postgres.rename, self._folder.with_name(f"before-{self._folder.name}"))
        await asyncio.to_thread(self._folder.rename, self._data.postgres)
        await self._stack.start_process("postgres")

    async def stop(self) -> None:
        """Stops the standby if it has not taken over."""
        if self._process is not None:
            await self._process.stop()

    async def _accepts(self) -> bool:
        try:
            async with self._connected():
                return True
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await asyncpg.connect(host=HOST, port=self._port, user=SUPERUSER, password=self._password, database="postgres", ssl=False)
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def standby_of(stack: Stack, number: int = 1) -> AsyncIterator[Standby]:
    """Yields a standby that has caught up with the stack's PostgreSQL."""
    standby = Standby(stack, number)
    try:
        await standby.start()
        yield standby
    finally:
        await standby.stop()


async def promote(connection: Connection) -> None:
    """Promotes the standby that the connection leads to. Returns when it accepts writes."""
    assert await connection.fetchval("SELECT pg_promote(true, $1)", round(WITHIN_SECONDS))


def log_of(stack: Stack, process: str) -> str:
    """Returns the log of a process of the stack."""
    return Path(stack.state.processes[process].log).read_text()
