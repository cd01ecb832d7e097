"""One task, many writers and readers, and faults: nobody sees less than was acknowledged, nor less than was seen before.

The long form is tests/faults/test_linearizability.py.
"""

import asyncio
import os
import random
import time

from devstack.stack import Stack
from tests.faults.one_task import contradictions, killed_after_commit, redis_killed, scene_of
from tests.support.accounts import make_account
from tests.support.task_api import CallFailed, GrpcTasks

# Many times what a read takes, and more than the late fill of one.
READ_SECONDS = 0.5


async def test_no_reader_sees_less_than_was_acknowledged_or_seen_before(breakable: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    print(f"FAULT_SEED={seed}")  # noqa: T201 - pytest shows it if it fails
    rng = random.Random(seed)
    async with scene_of(breakable, rng, print) as scene:
        assert await contradictions(scene, rng, [killed_after_commit, redis_killed]) == [], f"replay with FAULT_SEED={seed}"


async def test_what_was_committed_by_a_replica_that_died_before_it_told_the_cache_is_read(breakable: Stack) -> None:
    async with scene_of(breakable, random.Random(0), print) as scene:
        account = await make_account(scene.rest)
        apis = {name: GrpcTasks(channel, account) for name, channel in scene.channels.items()}
        task = await apis["own"].create("before", "setup")
        # In the cache.
        assert (await apis["task-1"].get(task.id, "read")).version == task.version
        caught = asyncio.create_task(scene.wire.committed())
        await asyncio.sleep(0)
        write = asyncio.create_task(apis["own"].rename(task.id, "after", "write"))
        await caught
        await scene.replica.kill()
        await asyncio.wait([write])
        assert isinstance(write.exception(), CallFailed)
        (listed,) = await apis["task-1"].list("list")
        assert listed.version == task.version + 1
        ends = time.monotonic() + READ_SECONDS
        while time.monotonic() < ends:
            for name in ("task-1", "task-2", "gateway"):
                assert (await apis[name].get(task.id, "read")).version == listed.version
