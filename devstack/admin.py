"""Operations on a running stack: `python -m devstack.admin keys list | rotate | replace`, `… backup`, `… restore FILE`.

Backups are written to DATA-DIR/backups.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from devstack import backup, postgres
from devstack.config import DEFAULT_DATA_DIR, Ports, StackConfig
from devstack.errors import EXIT_USAGE, UsageProblem
from devstack.keys import load

_AUTH = "auth_service"


def main() -> int:
    """Runs the command and returns the exit status."""
    options = _parser().parse_args()
    try:
        if options.command == "keys":
            return _keys(options)
        told = backup.environment(options.data_dir, options.postgres_port, options.valkey_port)
    except UsageProblem as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    if options.command == "restore":
        # restore.sh refuses a database that has rows unless it gets --replace. A development database has rows, so always pass --replace.
        return backup.run("restore.sh", ("--replace", str(options.file)), told)
    backups = options.data_dir / "backups"
    backups.mkdir(mode=0o700, exist_ok=True)
    return backup.run("backup.sh", (str(backups),), told)


def _keys(options: argparse.Namespace) -> int:
    """Runs `python -m auth_service keys` with the stack's secrets. Other settings of the stack must be set in the caller's environment too."""
    keys = load(options.data_dir / "secrets")
    told = {"DATABASE_URL": postgres.url(_AUTH, keys.passwords[_AUTH], options.postgres_port), "KEY_ENCRYPTION_KEY": keys.key_encryption_key}
    command = (*StackConfig().commands[_AUTH], "keys", options.action)
    return subprocess.run(command, env={**os.environ, **told}, check=False).returncode


def _parser() -> argparse.ArgumentParser:
    ports = Ports()
    parser = argparse.ArgumentParser(prog="python -m devstack.admin", description="Operates on a running stack.")
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, metavar="DIR", help="the stack's data directory (default: %(default)s)")
    parser.add_argument("--postgres-port", type=int, default=ports.postgres, metavar="N", help="PostgreSQL's port (default: %(default)s)")
    parser.add_argument("--valkey-port", type=int, default=ports.valkey, metavar="N", help="Valkey's port (default: %(default)s)")
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")
    keys = commands.add_parser("keys", help="the keys that sign access tokens")
    keys.add_argument("action", choices=("list", "rotate", "replace"), help="the same as in `python -m auth_service keys`")
    commands.add_parser("backup", help="write a backup into DIR/backups")
    commands.add_parser("restore", help="replace the contents of the database with a backup").add_argument("file", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
