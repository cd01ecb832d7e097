"""A pytest plugin: every system that the tests start has a Citus cluster instead of its PostgreSQL. `make test-citus` loads it.

CITUS is the folder of a PostgreSQL with Citus (docs/citus.md builds one). The cluster is a coordinator, which is the system's `postgres`, and the
servers `postgres-1` and `postgres-2`. The tables of tasks are distributed after the migrations.
"""

import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from devstack import once, postgres, stack
from devstack.concurrently import together
from devstack.config import HOST
from devstack.data_dir import DataDir
from devstack.ports import Reservation
from devstack.postgres import DATABASE, Postgres
from devstack.process import Spec
from devstack.roles import ensure_database, ensure_roles
from devstack.services import Services
from devstack.stack import Stack

StartDatabase: TypeAlias = Callable[..., Awaitable[None]]
Migrate: TypeAlias = Callable[[Stack, Services], Awaitable[None]]

FOLDER: Final = "CITUS"
WORKERS: Final = ("postgres-1", "postgres-2")
# Shards move by logical replication. A commit on several servers is prepared on each. The log of a server must not have the statements that fail
# there, because they contain tasks.
SETTINGS: Final = {
    "shared_preload_libraries": "citus",
    "wal_level": "logical",
    "max_prepared_transactions": "200",
    "log_min_error_statement": "panic",
    # Ephemeral systems switch it off. A server that is killed must have what it has committed.
    "synchronous_commit": "on",
    "citus.node_conninfo": "sslmode=disable",
}
# Whatever is free above the ports that devstack picks from.
FIRST_PORT: Final = 32_000 - 200


def pytest_configure() -> None:
    """Patches devstack."""
    folder = os.environ.get(FOLDER, "")
    if not (Path(folder) / "bin" / "postgres").is_file():
        raise pytest.UsageError(f"{FOLDER}: not the folder of a PostgreSQL: {folder!r}")
    # The services inherit it. See docs/citus.md.
    os.environ["DATABASE_GENERIC_PLANS"] = "false"
    patch = pytest.MonkeyPatch()
    patch.setattr(postgres, "program", lambda name: Path(folder) / "bin" / name)
    patch.setattr(stack, "Postgres", Coordinator)
    patch.setattr(Stack, "_start_database", _with_workers(Stack._start_database))
    patch.setattr(Stack, "_migrate", _and_distribute(Stack._migrate))


class _Folder:
    """The data directory of a stack, with another folder for the cluster."""

    def __init__(self, data: DataDir, name: str) -> None:
        self._data = data
        self.postgres = data.root / name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


class Server(Postgres):
    """One server of the cluster."""

    def __init__(self, data: DataDir, port: int, passwords: Mapping[str, str], start_timeout_seconds: float, name: str) -> None:
        super().__init__(_Folder(data, name), port, passwords, start_timeout_seconds)  # type: ignore[arg-type]  # it has all that Postgres uses
        self.name = name
        self.port = port
        # The servers connect to one another as the roles that connect to them.
        self._password_file = data.secrets / f"{name}.pgpass"

    def server(self) -> Spec:
        """See Postgres.server."""
        spec = super().server()
        self._password_file.write_text("".join(f"*:*:*:{role}:{password}\n" for role, password in self._passwords.items()))
        self._password_file.chmod(0o600)
        if self.account is not None:
            os.chown(self._password_file, self.account.uid, self.account.gid)
            self._password_file.parent.chmod(0o711)
        switches = (argument for name, value in SETTINGS.items() for argument in ("-c", f"{name}={value}"))
        environment = {**spec.environment, "PGPASSFILE": str(self._password_file)}
        log = self._data.logs / f"{self.name}.log"
        return dataclasses.replace(spec, name=self.name, command=(*spec.command, *switches), environment=environment, log=log)

    async def create_database(self) -> None:
        """Creates the database with the extension, and with the connections that it may have."""
        connection = await self._connect()
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.close()
        connection = await self._connect(DATABASE)
        await connection.execute("CREATE EXTENSION citus")
        await connection.close()


class Coordinator(Server):
    """The server that the services use."""

    def __init__(self, data: DataDir, port: int, passwords: Mapping[str, str], start_timeout_seconds: float) -> None:
        super().__init__(data, port, passwords, start_timeout_seconds, "postgres")
        self._reservations = [_reserve() for _ in WORKERS]
        self.workers = [Server(data, one.port, passwords, start_timeout_seconds, name) for name, one in zip(WORKERS, self._reservations, strict=True)]

    async def ensure_database(self) -> None:
        """Creates the cluster, and then the roles in the database that has it, so that Citus creates them on each server."""
        await together(*(server.create_database() for server in (self, *self.workers)))
        connection = await self._connect(DATABASE)
        try:
            await connection.execute("SELECT citus_set_coordinator_host($1, $2)", HOST, self.port)
            for worker in self.workers:
                await connection.execute("SELECT citus_add_node($1, $2)", HOST, worker.port)
            await ensure_roles(connection, self._passwords)
            await ensure_database(connection, DATABASE)
        finally:
            await connection.close()


def _with_workers(start: StartDatabase) -> StartDatabase:
    async def starting(system: Stack, database: Coordinator, *others: Any) -> None:
        for worker in database.workers:
            await worker.prepare()
        await together(*(system._launch(worker.server()) for worker in database.workers))
        await start(system, database, *others)

    return starting


def _and_distribute(migrate: Migrate) -> Migrate:
    async def migrating(system: Stack, services: Services) -> None:
        await migrate(system, services)
        assert system._data is not None
        spec = next(spec for spec in services.migrations() if spec.name == "migrate-task")
        command = (*spec.command[:-1], "distribute")
        await once.run(dataclasses.replace(spec, name="distribute", command=command, log=spec.log.with_name("distribute.log")), system._data.held)

    return migrating


def _reserve() -> Reservation:
    for port in range(FIRST_PORT, FIRST_PORT + 200):
        try:
            return Reservation(port)
        except OSError:
            continue
    raise pytest.UsageError("no port is free")
