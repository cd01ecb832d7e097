"""The load of the kind job, on a local system: it reports no failed call while replicas are rolled, and failed calls when all replicas are gone."""

import asyncio
import json
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from devstack.stack import Stack
from tests.deploy.kind.load import under_load
from tests.support.outage import heal, replicas

OUTAGE = pytest.mark.outage("stops replicas under load")


@pytest.fixture
def stack(breakable: Stack) -> Stack:
    """A system with two replicas of each service."""
    return breakable


@OUTAGE
async def test_no_call_fails_and_no_change_is_missed_while_the_replicas_are_rolled(stack: Stack) -> None:
    async def roll() -> None:
        for number in (1, 2):
            await asyncio.gather(*(stack.kill(f"{kind}-{number}", SIGTERM) for kind in ("auth", "task")))
            # Wait until the gateway uses the replica, too; in a Deployment minReadySeconds serves this purpose.
            await heal(stack)

    report = await under_load(stack.state.url, "rolled", roll, settle_seconds=1)
    assert report.failures == []
    assert report.failed == 0
    assert report.calls > 100
    assert min(report.logins, report.refreshes, report.told) > 0
    # Both replicas were rolled, so the watch must have resumed.
    assert report.resumed > 0


@OUTAGE
@pytest.mark.parametrize(("kind", "failing"), [("task", {"get", "watch"}), ("auth", {"login", "refresh"})])
async def test_calls_fail_while_all_replicas_are_gone(kind: str, failing: set[str], stack: Stack) -> None:
    async def lose() -> None:
        await asyncio.gather(*(stack.kill(name, SIGKILL) for name in replicas(stack, kind)))
        await asyncio.sleep(1)

    report = await under_load(stack.state.url, "lost", lose, settle_seconds=1)
    assert report.failed > 0
    assert failing & {failure.partition(":")[0] for failure in report.failures}


@pytest.mark.slow("loads a system for seconds")
async def test_the_command_ends_as_what_it_runs_does(system: Stack, tmp_path: Path) -> None:
    assert await _command(system, tmp_path, "true") == 0
    assert await _command(system, tmp_path, "false") == 1
    lines = (tmp_path / "report.jsonl").read_text().splitlines()
    assert [(json.loads(line)["name"], json.loads(line)["failed"]) for line in lines] == [("true", 0), ("false", 0)]


async def _command(stack: Stack, folder: Path, program: str) -> int:
    arguments = [
        "-m",
        "tests.deploy.kind.load",
        "--url",
        stack.state.url,
        "--report",
        str(folder),
        "--name",
        program,
        "--settle",
        "0.5",
        "--",
        program,
    ]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    return await process.wait()
