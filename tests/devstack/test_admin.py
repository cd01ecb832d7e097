"""`python -m devstack.admin` on a running stack."""

import asyncio
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from devstack.config import PROJECT_ROOT
from devstack.errors import EXIT_USAGE
from devstack.stack import Stack


async def test_the_keys_of_a_running_stack_are_listed(system: Stack, rest: httpx.AsyncClient) -> None:
    port = urlsplit(system.state.database_url).port
    ran = await asyncio.to_thread(_admin, "--data-dir", system.state.data_dir, "--postgres-port", str(port), "keys", "list")
    assert (ran.returncode, ran.stderr) == (0, "")
    published = (await rest.get("/.well-known/jwks.json")).json()["keys"]
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["KID", *(key["kid"] for key in published)]


def test_without_a_stack_it_says_what_is_missing(tmp_path: Path) -> None:
    for command in (("keys", "list"), ("backup",), ("restore", "a.dump")):
        ran = _admin("--data-dir", str(tmp_path), *command)
        assert (ran.returncode, ran.stdout) == (EXIT_USAGE, "")
        assert ran.stderr == f"{tmp_path} is not the data directory of a stack: start one first, with `make run`\n"
    assert list(tmp_path.iterdir()) == []


def _admin(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "devstack.admin", *arguments)
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
