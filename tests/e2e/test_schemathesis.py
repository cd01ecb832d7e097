"""Schemathesis calls the running system as the OpenAPI document describes it, and in other ways: every status, header and body must be described.

The program chooses valid and invalid requests, and sequences of calls that use the ids of earlier answers. FAULT_SEED repeats a run.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from devstack.stack import Stack
from tests.conftest import AccountFactory
from tests.support.accounts import Account
from tests.support.tiers import SLOW

PROGRAM = Path(sys.executable).with_name("st")
# The check for rejected invalid data is left out: the transcoder ignores unknown fields and reads numbers and enum values in several forms.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
# With an id or a password from an answer or an example, these end the session of all other calls.
ENDING = ("revokeSession", "deleteMe", "changePassword")
# The program reads a stream until this time has passed, so it does so in a run of its own.
STREAMING, STREAM_SECONDS = ("watchTasks",), 3
WITHIN_SECONDS = 400


async def _run(folder: Path, system: Stack, account: Account, seed: int, *options: str) -> None:
    """Runs the program in a folder that has none of its files."""
    checked = ["--seed", str(seed), "--checks", CHECKS, "--generation-database", "none", "--no-color", "--warnings", "off"]
    command = [
        str(PROGRAM),
        "run",
        f"{system.state.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {account.access_token}",
        *checked,
        *options,
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), WITHIN_SECONDS)
    assert process.returncode == 0, f"FAULT_SEED={seed}\n{output.decode()}"


@pytest.mark.parametrize(
    ("phases", "examples", "seed"), [("fuzzing,stateful", 2, 1), pytest.param("examples,coverage,fuzzing,stateful", 20, 0, marks=SLOW)]
)
async def test_every_answer_is_described(system: Stack, new_account: AccountFactory, tmp_path: Path, phases: str, examples: int, seed: int) -> None:
    chosen = int(os.environ.get("FAULT_SEED") or seed or time.time())
    how = ("--phases", phases, "--max-examples", str(examples))
    runs = (
        (*how, *_each("--exclude-operation-id", (*ENDING, *STREAMING))),
        (*how, *_each("--include-operation-id", ENDING)),
        ("--phases", "fuzzing", "--max-examples", "2", "--request-timeout", str(STREAM_SECONDS), *_each("--include-operation-id", STREAMING)),
    )
    folders = [tmp_path / str(number) for number in range(len(runs))]
    for folder in folders:
        folder.mkdir()
    await asyncio.gather(*[_run(folder, system, await new_account(), chosen, *options) for folder, options in zip(folders, runs, strict=True)])


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
