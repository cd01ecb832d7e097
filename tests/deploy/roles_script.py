"""Runs 10-roles.sql of the chart with the real psql."""

import os
import subprocess
from collections.abc import Mapping
from typing import Final

from devstack.postgres import program
from helm.chart import ROOT

SCRIPT: Final = ROOT / "charts" / "postgresql" / "files" / "10-roles.sql"


def run_roles_script(url: str, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs the script at a database with these environment variables, as docs/operations.md says."""
    command = [program("psql"), "--no-psqlrc", "--quiet", url, "--file", SCRIPT]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
