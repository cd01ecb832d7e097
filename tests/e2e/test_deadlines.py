"""A call whose deadline passes ends with DEADLINE_EXCEEDED and no other error, however short the deadline is."""

import asyncio
from collections import Counter

import grpc
import grpc.aio
import pytest
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.stack import Stack
from tests.support.accounts import Account
from tests.support.observed import metric
from tests.support.waiting import eventually

CALLS = 100


@pytest.mark.parametrize("milliseconds", [0.5, 1, 2, 3, 5])
async def test_a_short_deadline_is_exceeded_or_met(system: Stack, task_channel: grpc.aio.Channel, account: Account, milliseconds: float) -> None:
    stub = task_service_pb2_grpc.TaskServiceStub(task_channel)

    async def call() -> str:
        try:
            await stub.ListTasks(task_service_pb2.ListTasksRequest(), metadata=account.metadata, timeout=milliseconds / 1000)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    async def require_closed() -> None:
        assert await metric(system, "task-1", "redis_breaker_open") == 0

    # A Redis that was slow before this test may have opened it.
    await eventually(require_closed, within=10)
    codes = Counter([code for _ in range(CALLS // 4) for code in await asyncio.gather(*(call() for _ in range(4)))])
    assert set(codes) <= {"OK", "DEADLINE_EXCEEDED"}
    await require_closed()
