"""A call whose deadline or time limit passes ends with DEADLINE_EXCEEDED and no other error, and the gateway does not try it again."""

import asyncio
import time
from collections import Counter

import asyncpg
import grpc
import grpc.aio
import httpx
import pytest
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.stack import Stack
from tests.support.accounts import Account
from tests.support.errors import of_response
from tests.support.observed import metric
from tests.support.waiting import eventually

CALLS = 100
# How many seconds a call waits for PostgreSQL: the system's DATABASE_TIMEOUT_SECONDS.
TIME_LIMIT_SECONDS = 2.0
# The gateway would begin a retry within this time, and the retry would wait as long again.
SLACK_SECONDS = 1.0
# A table that the call reads or writes, and the call: method, path, body.
BEHIND_A_LOCK = {
    "GetTask": ("task.tasks", "GET", "/api/v1/tasks/{id}", None),
    "ListTasks": ("task.tasks", "GET", "/api/v1/tasks?order_by=title", None),
    "UpdateTask": ("task.tasks", "PATCH", "/api/v1/tasks/{id}", {"title": "Late"}),
    "WatchTasks": ("task.feed", "GET", "/api/v1/tasks:watch", None),
    "GetMe": ("auth.users", "GET", "/api/v1/users/me", None),
    "RevokeSession": ("auth.sessions", "DELETE", "/api/v1/auth/sessions/0197b6a0-0000-7000-8000-000000000000", None),
}


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


@pytest.mark.outage("locks the tables of a running system")
@pytest.mark.parametrize("name", BEHIND_A_LOCK)
async def test_a_call_behind_a_lock_waits_once_for_the_time_limit(
    name: str, breakable: Stack, breakable_rest: httpx.AsyncClient, breakable_account: Account
) -> None:
    table, method, path, body = BEHIND_A_LOCK[name]
    made = await breakable_rest.post("/api/v1/tasks", json={"title": "Soon"}, headers=breakable_account.headers)
    connection = await asyncpg.connect(breakable.state.database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            began = time.monotonic()
            answer = await breakable_rest.request(method, path.format(**made.json()), json=body, headers=breakable_account.headers)
            took = time.monotonic() - began
    finally:
        await connection.close()
    assert (answer.status_code, of_response(answer).reason) == (httpx.codes.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED")
    assert TIME_LIMIT_SECONDS - 0.1 <= took < TIME_LIMIT_SECONDS + SLACK_SECONDS
