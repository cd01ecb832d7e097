"""One task, 8 writers, 8 readers, and faults for FAULT_SECONDS: some order of all calls explains every answer."""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.faults.one_task import FAULTS, PAUSE_SECONDS, Scene, contradictions, redis_killed, require_kept, scene_of
from tests.support.accounts import make_account
from tests.support.outage import frozen
from tests.support.task_api import GrpcTasks
from tests.support.tools import missing
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "WARNING", "DATABASE_TIMEOUT_SECONDS": "2"}
FAULTS_PER_TASK = 3
# With the clients and the services, a load of 15 or more. FAULT_HOGS overrides it.
HOGS = 16
JUMPS, LATEST_SECONDS = 5, 600.0
SETTLED_WITHIN_SECONDS = 30.0
READ_SECONDS = 5.0


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT)) as running:
        yield running


@pytest.fixture
async def hogs() -> AsyncIterator[None]:
    """Keeps the processors busy, so that every process waits for them, also those that the test restarts."""
    number = int(os.environ.get("FAULT_HOGS") or HOGS)
    running = [await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(number)]
    yield
    for hog in running:
        hog.kill()
        await hog.wait()


@pytest.mark.usefixtures("hogs")
async def test_some_order_of_all_calls_explains_every_answer(stack: Stack) -> None:
    """Each round has its own task, and the seed of the previous round plus 1. To repeat one round, set its seed and FAULT_SECONDS=1."""
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    ends = time.monotonic() + float(os.environ.get("FAULT_SECONDS") or 60)
    while time.monotonic() < ends:
        _say(f"{ends - time.monotonic():6.1f} s  linearizability FAULT_SEED={seed}")
        rng = random.Random(seed)
        async with scene_of(stack, rng, _say) as scene:
            assert await contradictions(scene, rng, rng.choices(FAULTS, k=FAULTS_PER_TASK)) == [], f"replay with FAULT_SEED={seed} FAULT_SECONDS=1"
        seed += 1


async def test_wall_clocks_that_jump_change_nothing(stack: Stack, tmp_path: Path) -> None:
    """The wall clock of one replica jumps while others are right. Within minutes, because access tokens are valid for minutes."""
    clock = tmp_path / "clock"
    clock.write_text("+0")

    async def jump(scene: Scene, seconds: float) -> None:
        for _ in range(JUMPS):
            clock.write_text(f"+{scene.rng.uniform(0, LATEST_SECONDS):.1f}")
            await asyncio.sleep(seconds / JUMPS)
        clock.write_text("+0")

    settings = {"LD_PRELOAD": _faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    rng = random.Random(0)
    async with scene_of(stack, rng, _say, settings) as scene:
        assert await contradictions(scene, rng, [jump, redis_killed, jump]) == []


def _faketime() -> str:
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None) or missing("libfaketime", "apt-get install libfaketime"))


async def test_what_was_written_without_redis_by_a_replica_that_died_is_read(stack: Stack) -> None:
    """Redis freezes and later continues with its old data. The replica that wrote meanwhile does not restart."""
    async with scene_of(stack, random.Random(0), _say) as scene:
        await scene.whole()
        account = await make_account(scene.rest)
        writer, reader = (GrpcTasks(scene.channels[name], account) for name in ("own", "task-1"))
        task, another = await writer.create("created", "create"), await writer.create("created", "create another")
        await eventually(lambda: require_kept(scene, writer, task), within=SETTLED_WITHIN_SECONDS)
        with frozen(stack, "valkey"):
            # Both replicas notice the outage through other calls, so that no fence for the task is queued for Redis.
            await asyncio.gather(writer.rename(another.id, "changed", "notices"), reader.get(task.id, "notices"))
            written = await writer.rename(task.id, "after", "write")
            await scene.replica.kill()
        ends = time.monotonic() + READ_SECONDS
        while time.monotonic() < ends:
            assert (await reader.get(task.id, "read")).version == written.version
            await asyncio.sleep(PAUSE_SECONDS)


def _say(text: str) -> None:
    """Prints progress: the campaign runs pytest with -s."""
    sys.stdout.write(f"\n{text}")
    sys.stdout.flush()
