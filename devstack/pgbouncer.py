"""PgBouncer from the operating system's package, in transaction mode, for the services and their migrations instead of PostgreSQL itself."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from devstack.config import HOST
from devstack.data_dir import DataDir
from devstack.errors import UsageProblem
from devstack.keys import write_private
from devstack.privileges import Account
from devstack.probe import listens
from devstack.process import Spec

# The first version that knows prepared statements in transaction mode.
_FIRST_WITH_PREPARED = (1, 21)
# Named statements of one session in PostgreSQL: as many as DATABASE_STATEMENT_CACHE_SIZE.
_PREPARED_STATEMENTS = 256
# Sessions for each role. Fewer than a service's own connections, so that they do share sessions.
_SESSIONS = 5
_MAX_CLIENTS = 1000


def knows_prepared_statements() -> bool:
    """Returns whether clients of the installed version may name statements. Raises UsageProblem if none is installed."""
    said = subprocess.run((_program(), "--version"), capture_output=True, text=True, check=True, timeout=10).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= _FIRST_WITH_PREPARED


def server(data: DataDir, port: int, postgres_port: int, passwords: Mapping[str, str], account: Account | None) -> Spec:
    """Writes the configuration and returns the spec of the process. It refuses to run as root, so it runs as PostgreSQL's account."""
    folder = data.root / "pgbouncer"
    folder.mkdir(mode=0o700, exist_ok=True)
    configuration, users = folder / "pgbouncer.ini", folder / "users.txt"
    write_private(users, "".join(f'"{role}" "{password}"\n' for role, password in passwords.items()))
    write_private(configuration, _configuration(port, postgres_port, users))
    if account is not None:
        for path in (folder, configuration, users):
            os.chown(path, account.uid, account.gid)
    return Spec(
        name="pgbouncer",
        command=(_program(), str(configuration)),
        environment={"PATH": os.defpath},
        log=data.logs / "pgbouncer.log",
        ready=listens(port),
        ports={"port": port},
        account=account,
        working_dir=Path("/"),
    )


def _configuration(port: int, postgres_port: int, users: Path) -> str:
    """Returns the configuration. It ignores no startup parameter: one that PgBouncer does not know must fail."""
    settings = {
        "listen_addr": HOST,
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": users,
        "pool_mode": "transaction",
        "default_pool_size": _SESSIONS,
        "max_client_conn": _MAX_CLIENTS,
        "log_connections": 0,
        "log_disconnections": 0,
    }
    if knows_prepared_statements():
        settings["max_prepared_statements"] = _PREPARED_STATEMENTS
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return f"[databases]\n* = host={HOST} port={postgres_port}\n[pgbouncer]\n{lines}"


def _program() -> str:
    if (program := shutil.which("pgbouncer")) is None:
        raise UsageProblem("PgBouncer is not installed: apt-get install pgbouncer")
    return program
