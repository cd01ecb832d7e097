"""One task, many writers and readers, and faults: no read returns a version older than one that was acknowledged or read before.

The long form is tests/faults/test_linearizability.py.
"""

import asyncio
import os
import random
import time

import pytest

from devstack.stack import Stack
from tests.faults.one_task import (
    Fault,
    contradictions,
    cut_off,
    killed_after_commit,
    redis_frozen,
    redis_killed,
    redis_swapped,
    replica_frozen,
    require_kept,
    scene_of,
)
from tests.support.accounts import make_account
from tests.support.replica import Replica, replica_of
from tests.support.task_api import CallFailed, GrpcTasks, Seen
from tests.support.waiting import eventually

SLOW = pytest.mark.slow("faults in a running system, which take time")

# Many times the duration of a read, and longer than the delay of a cache fill.
READ_SECONDS = 0.5
SETTLED_WITHIN_SECONDS = 30.0


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([killed_after_commit, redis_killed], id="kills"),
        pytest.param([redis_swapped, cut_off], id="an old copy and a cut", marks=SLOW),
        pytest.param([redis_frozen, replica_frozen], id="freezes", marks=SLOW),
    ],
)
async def test_no_reader_sees_less_than_was_acknowledged_or_seen_before(breakable: Stack, faults: list[Fault]) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    print(f"FAULT_SEED={seed}")  # noqa: T201 - pytest shows it if the test fails
    rng = random.Random(seed)
    async with scene_of(breakable, rng, print) as scene:
        assert await contradictions(scene, rng, faults) == [], f"replay with FAULT_SEED={seed}"


@SLOW
async def test_what_was_committed_by_a_replica_that_died_before_it_told_the_cache_is_read(breakable: Stack) -> None:
    async with scene_of(breakable, random.Random(0), print) as scene:
        account = await make_account(scene.rest)
        apis = {name: GrpcTasks(channel, account) for name, channel in scene.channels.items()}
        task = await apis["own"].create("created", "setup")
        await eventually(lambda: require_kept(scene, apis["own"], task), within=SETTLED_WITHIN_SECONDS)
        before = await apis["task-1"].get(task.id, "read")
        caught = asyncio.create_task(scene.wire.committed())
        await asyncio.sleep(0)
        write = asyncio.create_task(apis["own"].rename(task.id, "after", "write"))
        await caught
        await scene.replica.kill()
        await asyncio.wait([write])
        assert isinstance(write.exception(), CallFailed)
        (listed,) = await apis["task-1"].list("list")
        assert listed.version == before.version + 1
        ends = time.monotonic() + READ_SECONDS
        while time.monotonic() < ends:
            for name in ("task-1", "task-2", "gateway"):
                assert (await apis[name].get(task.id, "read")).version == listed.version


@SLOW
@pytest.mark.parametrize("noticed", [True, False], ids=["who noticed", "who was idle"])
async def test_what_a_replica_writes_that_has_redis_last_is_read_by_one(breakable: Stack, noticed: bool) -> None:  # noqa: FBT001
    """Redis restarts empty, and the reader reaches it before the writer does. The reader never sees less than the writer has written."""
    async with scene_of(breakable, random.Random(0), print) as scene, replica_of(breakable, "task-reader") as replica:
        account = await make_account(scene.rest)
        channel = await scene.channel(replica.target)
        reader, writer = GrpcTasks(channel, account), GrpcTasks(scene.channels["own"], account)
        task = await writer.create("before", "setup")
        await eventually(lambda: _require_hit(replica, reader, writer, task), within=SETTLED_WITHIN_SECONDS)
        await breakable.kill("valkey")
        await scene.proxy.stop()
        for api in (reader, writer) if noticed else (writer,):
            await api.get(task.id, "notices")
        await breakable.start_process("valkey")
        await eventually(lambda: _require_breaker_closed(replica), within=SETTLED_WITHIN_SECONDS, every=0.01)
        for number in range(20):
            written = await writer.rename(task.id, f"after {number}", "write")
            assert (await reader.get(task.id, "read")).version == written.version
            await asyncio.sleep(0.05)


@SLOW
async def test_a_replica_that_starts_does_not_believe_what_another_has_yet_to_delete(breakable: Stack) -> None:
    """Redis still has its old data. The replica that wrote without Redis has not reached Redis again yet."""
    async with scene_of(breakable, random.Random(0), print) as scene:
        account = await make_account(scene.rest)
        writer = GrpcTasks(scene.channels["own"], account)
        task = await writer.create("before", "setup")
        await eventually(lambda: require_kept(scene, writer, task), within=SETTLED_WITHIN_SECONDS)
        await scene.proxy.stop()
        written = await writer.rename(task.id, "after", "write")
        async with replica_of(breakable, "task-reader") as replica:
            reader = GrpcTasks(await scene.channel(replica.target), account)
            assert (await reader.get(task.id, "read")).version == written.version


async def _require_hit(replica: Replica, reader: GrpcTasks, writer: GrpcTasks, task: Seen) -> None:
    """Fails unless the reader gets the writer's value from the cache."""
    hits = await replica.metric("task_cache_reads_total", outcome="hit")
    await writer.rename(task.id, f"before {time.monotonic()}", "write")
    await reader.get(task.id, "read")
    assert await replica.metric("task_cache_reads_total", outcome="hit") > hits


async def _require_breaker_closed(replica: Replica) -> None:
    assert await replica.metric("redis_breaker_open") == 0
