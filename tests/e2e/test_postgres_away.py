"""PostgreSQL down or frozen: calls end in time with UNAVAILABLE or DEADLINE_EXCEEDED, readiness fails, liveness holds, and all recovers by itself."""

import asyncio
import time
from collections.abc import Awaitable

import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from tests.support.accounts import PASSWORD, Account
from tests.support.errors import of_response
from tests.support.load import OK, Load
from tests.support.observed import health, ops
from tests.support.outage import frozen, replicas, require_whole
from tests.support.task_api import CallFailed, GrpcTasks, RestTasks
from tests.support.waiting import eventually

pytestmark = pytest.mark.alone("outages under load, with bounds on the time of each call")

# More than the pool's connections, so that the outage hits calls in every state.
CLIENTS = 24
UNDER_LOAD_SECONDS = 0.4
NOTICED_WITHIN_SECONDS = 5.0
RECOVERED_WITHIN_SECONDS = 5.0
DEADLINE_SECONDS = 1.0
# Allowed beyond a deadline, for the round trip on a loaded machine.
SLACK_SECONDS = 0.5
# How long a call without a deadline waits for PostgreSQL: the system's DATABASE_TIMEOUT_SECONDS.
DATABASE_TIMEOUT_SECONDS = 2.0
PUBLIC_SERVICES = {"auth": "taskmanager.auth.v1.AuthService", "task": "taskmanager.task.v1.TaskService"}


async def test_killed_it_makes_calls_unavailable_and_the_system_recovers_by_itself(
    breakable: Stack, breakable_account: Account, breakable_rest: httpx.AsyncClient, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel]
) -> None:
    direct = GrpcTasks(breakable_replicas[0], breakable_account, DEADLINE_SECONDS)
    await direct.create("before", "setup")
    async with Load([[("list", direct.list)]] * CLIENTS) as load:
        await asyncio.sleep(UNDER_LOAD_SECONDS)
        await breakable.kill("postgres")
        await asyncio.sleep(UNDER_LOAD_SECONDS)
    assert set(load.codes()) == {OK, "UNAVAILABLE"}
    assert await _failure(direct.create("never", "away")) == "UNAVAILABLE"
    for verb, path, body in (("POST", "/api/v1/tasks", {"title": "never"}), ("GET", "/api/v1/tasks", None), ("GET", "/api/v1/users/me", None)):
        await _assert_503(breakable_rest, verb, path, body, breakable_account)
    await _assert_503(breakable_rest, "POST", "/api/v1/auth/login", {"email": breakable_account.email, "password": PASSWORD})
    await eventually(lambda: _require_not_ready(breakable, breakable_rest), within=NOTICED_WITHIN_SECONDS)
    await _require_alive(breakable, breakable_rest)
    # Now the gateway answers, with the same code and reason.
    await _assert_503(breakable_rest, "GET", "/api/v1/tasks", None, breakable_account)
    await breakable.start_process("postgres")
    await eventually(lambda: require_whole(breakable), within=RECOVERED_WITHIN_SECONDS)
    assert (await RestTasks(breakable_rest, breakable_account).create("after", "back")).title == "after"


async def test_frozen_it_holds_no_call_beyond_its_deadline_and_the_pool_recovers(
    breakable: Stack, breakable_account: Account, breakable_rest: httpx.AsyncClient, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel]
) -> None:
    direct = GrpcTasks(breakable_replicas[0], breakable_account, DEADLINE_SECONDS)
    await asyncio.gather(*(direct.create("before", "setup") for _ in range(CLIENTS)))
    with frozen(breakable, "postgres"):
        began = time.monotonic()
        without_deadline = asyncio.create_task(_refused(breakable_rest, breakable_account))
        codes = await asyncio.gather(*(_failure(call) for _ in range(CLIENTS // 2) for call in (direct.create("never", "away"), direct.list("away"))))
        assert set(codes) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        assert time.monotonic() - began < DEADLINE_SECONDS + SLACK_SECONDS
        assert (await without_deadline).status_code == httpx.codes.GATEWAY_TIMEOUT
        assert time.monotonic() - began < DATABASE_TIMEOUT_SECONDS + SLACK_SECONDS
        await eventually(lambda: _require_not_ready(breakable, breakable_rest), within=NOTICED_WITHIN_SECONDS)
        await _require_alive(breakable, breakable_rest)
    thawed = time.monotonic()
    await eventually(lambda: require_whole(breakable), within=RECOVERED_WITHIN_SECONDS)
    answers = await asyncio.gather(*(direct.create("after", "back") for _ in range(CLIENTS)))
    assert {answer.title for answer in answers} == {"after"}
    assert time.monotonic() - thawed < RECOVERED_WITHIN_SECONDS


async def _failure(call: Awaitable[object]) -> str:
    with pytest.raises(CallFailed) as failed:
        await call
    return failed.value.code


async def _refused(rest: httpx.AsyncClient, account: Account) -> httpx.Response:
    return await rest.post("/api/v1/tasks", json={"title": "never"}, headers=account.headers)


async def _assert_503(rest: httpx.AsyncClient, verb: str, path: str, body: object, account: Account | None = None) -> None:
    response = await rest.request(verb, path, json=body, headers=account.headers if account else {})
    assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE, response.text
    error = of_response(response)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "DEPENDENCY_UNAVAILABLE")


async def _require_not_ready(stack: Stack, rest: httpx.AsyncClient) -> None:
    for name in replicas(stack, "auth", "task"):
        assert (await ops(stack, name, "/readyz")).status_code == httpx.codes.SERVICE_UNAVAILABLE
        for service in ("", PUBLIC_SERVICES[name.partition("-")[0]]):
            assert await health(stack, name, service) == "NOT_SERVING"
    assert (await rest.get("/ready")).status_code == httpx.codes.SERVICE_UNAVAILABLE


async def _require_alive(stack: Stack, rest: httpx.AsyncClient) -> None:
    for name in replicas(stack, "auth", "task"):
        assert (await ops(stack, name, "/livez")).status_code == httpx.codes.OK
        assert await health(stack, name, "liveness") == "SERVING"
    healthy = await rest.get("/health")
    assert (healthy.status_code, healthy.json()) == (httpx.codes.OK, {"status": "healthy"})
