"""The load that the kind job puts on a cluster, here on this system: it sees nothing of replicas that are rolled, and all of one that is gone."""

import asyncio
import json
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM

from devstack.stack import Stack
from tests.deploy.kind.load import under_load
from tests.support.outage import heal

REPLICAS = ("task-1", "task-2")


async def test_no_call_fails_while_the_replicas_are_rolled(breakable: Stack) -> None:
    async def roll() -> None:
        for name in REPLICAS:
            await breakable.kill(name, SIGTERM)
            # A replica that is ready is not yet one that the gateway uses: a Deployment has minReadySeconds for that.
            await heal(breakable)

    report = await under_load(breakable.state.url, "rolled", roll, settle_seconds=1)
    assert report.failures == []
    assert report.failed == 0
    assert report.calls > 100


async def test_calls_fail_while_all_replicas_are_gone(breakable: Stack) -> None:
    async def lose() -> None:
        await asyncio.gather(*(breakable.kill(name, SIGKILL) for name in REPLICAS))
        await asyncio.sleep(1)

    report = await under_load(breakable.state.url, "lost", lose, settle_seconds=0.5)
    assert report.failed > 0
    assert report.failures


async def test_the_command_ends_as_what_it_runs_does(breakable: Stack, tmp_path: Path) -> None:
    assert await _command(breakable, tmp_path, "true") == 0
    assert await _command(breakable, tmp_path, "false") == 1
    lines = (tmp_path / "report.jsonl").read_text().splitlines()
    assert [(json.loads(line)["name"], json.loads(line)["failed"]) for line in lines] == [("true", 0), ("false", 0)]


async def _command(stack: Stack, folder: Path, program: str) -> int:
    arguments = ["-m", "tests.deploy.kind.load", "--url", stack.state.url, "--report", str(folder), "--name", program, "--", program]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    return await process.wait()
