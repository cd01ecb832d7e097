"""Backup and restore of a running stack's database, with the same scripts that the chart runs."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack import postgres, valkey
from devstack.config import HOST, PROJECT_ROOT
from devstack.keys import load
from devstack.roles import MIGRATOR

SCRIPTS = PROJECT_ROOT / "helm" / "task-manager" / "charts" / "backup" / "files"


def environment(data_dir: Path, postgres_port: int, valkey_port: int) -> dict[str, str]:
    """Returns the scripts' environment. Only PATH is inherited, because variables such as PGOPTIONS would change the scripts. Raises UsageProblem."""
    programs = (postgres.program("pg_dump").parent, valkey.program("valkey-cli").parent)
    return {
        "PATH": os.pathsep.join((*map(str, programs), os.environ.get("PATH", os.defpath))),
        "LC_ALL": "C",
        "PGHOST": HOST,
        "PGPORT": str(postgres_port),
        "PGDATABASE": postgres.DATABASE,
        "PGUSER": MIGRATOR,
        "PGPASSWORD": load(data_dir / "secrets").passwords[MIGRATOR],
        "REDIS_HOST": HOST,
        "REDIS_PORT": str(valkey_port),
    }


def run(script: str, arguments: Sequence[str], told: Mapping[str, str]) -> int:
    """Runs a script, waits for its end and returns its exit status."""
    return subprocess.run(("/bin/sh", str(SCRIPTS / script), *arguments), env=dict(told), check=False).returncode
