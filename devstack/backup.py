"""Backup and restore of a stack's database, by the scripts that the chart runs: `python -m devstack.backup backup`, `… restore FILE`.

The stack must be running. Backups lie in DATA-DIR/backups.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack import postgres, valkey
from devstack.config import DEFAULT_DATA_DIR, HOST, PROJECT_ROOT, Ports
from devstack.errors import EXIT_USAGE, UsageProblem
from devstack.keys import password_file
from devstack.roles import MIGRATOR

SCRIPTS = PROJECT_ROOT / "helm" / "task-manager" / "charts" / "backup" / "files"


def environment(data_dir: Path, postgres_port: int, valkey_port: int) -> dict[str, str]:
    """What the scripts are told of a stack. Nothing of the caller's: PGOPTIONS and the like would change what they do. Raises UsageProblem."""
    programs = (postgres.program("pg_dump").parent, valkey.program("valkey-cli").parent)
    password = password_file(data_dir / "secrets", MIGRATOR)
    if not password.exists():
        raise UsageProblem(f"{data_dir} is not the data directory of a stack: start one first, with `make run`")
    return {
        "PATH": os.pathsep.join((*map(str, programs), os.environ.get("PATH", os.defpath))),
        "LC_ALL": "C",
        "PGHOST": HOST,
        "PGPORT": str(postgres_port),
        "PGDATABASE": postgres.DATABASE,
        "PGUSER": MIGRATOR,
        "PGPASSWORD": password.read_text(),
        "REDIS_HOST": HOST,
        "REDIS_PORT": str(valkey_port),
    }


def run(script: str, arguments: Sequence[str], told: Mapping[str, str]) -> int:
    """Runs a script to its end. Returns its exit status."""
    return subprocess.run(("/bin/sh", str(SCRIPTS / script), *arguments), env=dict(told), check=False).returncode


def main() -> int:
    """Returns the exit status."""
    options = _parser().parse_args()
    try:
        told = environment(options.data_dir, options.postgres_port, options.valkey_port)
    except UsageProblem as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    if options.command == "restore":
        # A database that somebody tries out with has rows, and whoever names a file means it.
        return run("restore.sh", ("--replace", str(options.file)), told)
    backups = options.data_dir / "backups"
    backups.mkdir(mode=0o700, exist_ok=True)
    return run("backup.sh", (str(backups),), told)


def _parser() -> argparse.ArgumentParser:
    ports = Ports()
    parser = argparse.ArgumentParser(prog="python -m devstack.backup", description="Backup and restore of the database of a running stack.")
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, metavar="DIR", help="the stack's (default: %(default)s)")
    parser.add_argument("--postgres-port", type=int, default=ports.postgres, metavar="N", help="PostgreSQL's port (default: %(default)s)")
    parser.add_argument("--valkey-port", type=int, default=ports.valkey, metavar="N", help="Valkey's port (default: %(default)s)")
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")
    commands.add_parser("backup", help="write a backup into DIR/backups")
    commands.add_parser("restore", help="put a backup in the place of what the database has").add_argument("file", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
