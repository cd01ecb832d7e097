"""The gateway balances per call, not per connection. If a replica is killed, only the writes that were running on it fail."""

import asyncio
from signal import SIGKILL

import grpc.aio
import pytest

from devstack.stack import Stack
from tests.support.accounts import Account
from tests.support.load import Load
from tests.support.observed import metric
from tests.support.task_api import GrpcTasks

CALLS = 1000
# Few callers. With many, the gateway would rightly give fewer calls to a replica that the machine slows down for a moment.
CALLERS = 4
# More readers than writers: the gateway has to resend all of their running calls at the same time.
READERS, WRITERS = 24, 8
SETTLE_SECONDS = 0.5
REPLICAS = ("task-1", "task-2")


@pytest.mark.alone("compares the loads of two replicas, which other work on the machine changes")
async def test_two_replicas_share_the_calls_of_one_connection(
    breakable: Stack, breakable_account: Account, breakable_gateway: grpc.aio.Channel
) -> None:
    api = GrpcTasks(breakable_gateway, breakable_account)
    task = await api.create("to be read", "setup")
    before = [await _handled(breakable, replica) for replica in REPLICAS]

    async def client() -> None:
        for _ in range(CALLS // CALLERS):
            await api.get(task.id, "balance")

    await asyncio.gather(*(client() for _ in range(CALLERS)))
    shares = [await _handled(breakable, replica) - calls for replica, calls in zip(REPLICAS, before, strict=True)]
    assert sum(shares) >= CALLS
    assert all(0.4 <= share / sum(shares) <= 0.6 for share in shares), shares


@pytest.mark.alone("kills a replica under load")
async def test_a_killed_replica_takes_no_more_with_it_than_the_writes_under_way_on_it(
    breakable: Stack, breakable_account: Account, breakable_gateway: grpc.aio.Channel
) -> None:
    api = GrpcTasks(breakable_gateway, breakable_account)
    task = await api.create("to be read", "setup")
    reader = [("get", lambda request_id: api.get(task.id, request_id)), ("list", api.list)]
    writer = [("create", lambda request_id: api.create("made under load", request_id))]
    async with Load([reader] * READERS + [writer] * WRITERS) as load:
        await asyncio.sleep(SETTLE_SECONDS)
        await breakable.kill("task-2", SIGKILL)
        await asyncio.sleep(SETTLE_SECONDS)
        failed, before = len(load.failures()), await _handled(breakable, "task-1")
        await asyncio.sleep(SETTLE_SECONDS)
        assert await _handled(breakable, "task-1") > before
    lost = load.failures()
    # The gateway resends reads to the other replica. It does not know whether a write was executed, so it reports the error to the client.
    assert load.failures("create") == lost
    assert len(lost) <= WRITERS
    assert {outcome.code for outcome in lost} <= {"UNAVAILABLE"}
    assert len(lost) == failed, "calls failed more than SETTLE_SECONDS after the kill"


async def _handled(stack: Stack, replica: str) -> float:
    return await metric(stack, replica, "grpc_server_handled_total", grpc_code="OK")
