"""The system in containers: each service has its own database role, REST and gRPC work, health checks pass, and a stop under load fails no call."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from signal import SIGTERM
from typing import Any

import asyncpg
import grpc.aio
import httpx
import pytest
from taskmanager.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from taskmanager.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

from devstack.stack import Stack
from tests.deploy.images.conftest import DRAIN_DELAY_SECONDS
from tests.deploy.images.containers import IMAGES, Containers, execute
from tests.support.accounts import Account
from tests.support.clients import rest_of
from tests.support.observed import log_lines, ops
from tests.support.waiting import eventually

pytestmark = pytest.mark.images

# The containers of the image of task_service: those that serve, and the worker.
SERVING, WORKING = 2, 1
# How long a running write waits after its server was told to stop.
HELD_SECONDS = 1.0


async def test_a_user_registers_logs_in_and_uses_tasks_over_rest(rest: httpx.AsyncClient, account: Account) -> None:
    made = await rest.post("/api/v1/tasks", json={"title": "Write the plan"}, headers=account.headers)
    assert made.status_code == 201, made.text
    assert (await rest.get(f"/api/v1/tasks/{made.json()['id']}", headers=account.headers)).json() == made.json()
    assert (await rest.get("/api/v1/tasks", headers=account.headers)).json()["tasks"] == [made.json()]
    assert (await rest.get("/api/v1/tasks")).status_code == 401


async def test_a_user_registers_logs_in_and_uses_tasks_over_grpc(gateway_channel: grpc.aio.Channel) -> None:
    auth: Any = auth_service_pb2_grpc.AuthServiceStub(gateway_channel)  # type: ignore[no-untyped-call]
    tasks: Any = task_service_pb2_grpc.TaskServiceStub(gateway_channel)  # type: ignore[no-untyped-call]
    await auth.Register(auth_service_pb2.RegisterRequest(email="ada@example.com", password="correct horse battery", name="Ada"))
    tokens = await auth.Login(auth_service_pb2.LoginRequest(email="ada@example.com", password="correct horse battery"))
    metadata = [("authorization", f"Bearer {tokens.access_token}")]
    made = await tasks.CreateTask(task_service_pb2.CreateTaskRequest(task=task_pb2.Task(title="Write the plan")), metadata=metadata)
    assert await tasks.GetTask(task_service_pb2.GetTaskRequest(id=made.id), metadata=metadata) == made
    assert list((await tasks.ListTasks(task_service_pb2.ListTasksRequest(), metadata=metadata)).tasks) == [made]


async def test_each_image_is_healthy_by_its_own_check(system: Stack, containers: Containers) -> None:
    for program, count in (("auth_service", 1), ("task_service", SERVING + WORKING), ("gateway", 1)):
        image = IMAGES[program]
        found = containers.inspect(image)
        check = found["HealthCheck" if "HealthCheck" in found else "Healthcheck"]["Test"][1:]
        running = containers.running(image)
        assert len(running) == count
        for container in running:
            began = time.monotonic()
            ended = execute(container, *check)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            print(f"\n{image.name}: health check in {time.monotonic() - began:.2f} s")


async def test_services_log_in_as_themselves_and_migrations_as_another(system: Stack) -> None:
    connection = await asyncpg.connect(system.state.database_url)
    try:
        roles = {row[0] for row in await connection.fetch("SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = current_database()")}
        owners = {row[0] for row in await connection.fetch("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname IN ('auth', 'task')")}
    finally:
        await connection.close()
    assert {"auth_service", "task_service"} <= roles
    assert "migrator" not in roles
    assert owners == {"migrator"}


async def test_other_commands_are_arguments(system: Stack, containers: Containers) -> None:
    (container,) = containers.running(IMAGES["auth_service"])
    ended = execute(container, "python", "-m", "auth_service", "keys", "list")
    assert ended.returncode == 0, ended.stderr
    assert "KID" in ended.stdout
    assert "active" in ended.stdout


async def test_a_task_container_told_to_stop_finishes_the_calls_that_it_has(system: Stack, account: Account) -> None:
    address = f"127.0.0.1:{system.state.processes['task-2'].grpc_port}"
    async with grpc.aio.insecure_channel(address) as channel, _write_waiting(system, account, HELD_SECONDS) as seconds:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]
        request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(title="under way"))
        call = stub.CreateTask(request, metadata=account.metadata, timeout=10)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        stopping = asyncio.create_task(system.stop_process("task-2"))
        made = await call
        await stopping
    assert made.title == "under way"
    took = time.monotonic() - began
    assert took < DRAIN_DELAY_SECONDS + seconds + 4
    assert system.killed == ()
    assert list(log_lines(system, "task-2"))[-1]["event"] == "stopped"
    assert _exit_status(system, "task-2") == 0
    print(f"\ntask-service stopped in {took:.2f} s")
    began = time.monotonic()
    await system.start_process("task-2")
    print(f"task-service ready in {time.monotonic() - began:.2f} s")


async def test_a_gateway_container_told_to_stop_finishes_the_calls_that_it_has(
    system: Stack, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, account: Account
) -> None:
    stub: Any = task_service_pb2_grpc.TaskServiceStub(gateway_channel)  # type: ignore[no-untyped-call]
    async with _write_waiting(system, account, HELD_SECONDS) as seconds:
        request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(title="over gRPC"))
        over_grpc = stub.CreateTask(request, metadata=account.metadata, timeout=10)
        over_rest = asyncio.create_task(rest.post("/api/v1/tasks", json={"title": "over REST"}, headers=account.headers))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        stopping = asyncio.create_task(system.stop_process("gateway"))

        async def looks_away() -> None:
            assert (await ops(system, "gateway", "/readyz")).status_code == 503

        await eventually(looks_away, within=1)
        assert (await over_rest).status_code == 201
        assert (await over_grpc).title == "over gRPC"
        await stopping
    took = time.monotonic() - began
    assert took < DRAIN_DELAY_SECONDS + seconds + 4
    assert system.killed == ()
    assert _exit_status(system, "gateway") == 0
    print(f"\ngateway stopped in {took:.2f} s")
    began = time.monotonic()
    await system.start_process("gateway")
    print(f"gateway ready in {time.monotonic() - began:.2f} s")


async def test_a_migration_that_waits_ends_when_it_is_told_to(system: Stack, containers: Containers) -> None:
    # The migration is the first process of its container: the kernel ignores every signal that this process does not handle.
    connection = await asyncpg.connect(system.state.database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('migrate task', 0))")
        process = await asyncio.create_subprocess_exec(
            *containers.command(IMAGES["task_service"]),
            "migrate",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DATABASE_URL": system.state.database_url},
        )

        async def waits() -> None:
            assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

        await eventually(waits, within=20)
        process.send_signal(SIGTERM)
        # It ends although the lock is still held, and before `docker stop` would kill it.
        assert await asyncio.wait_for(process.wait(), 10) == 128 + SIGTERM
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _write_waiting(stack: Stack, account: Account, seconds: float) -> AsyncIterator[float]:
    """Delays the user's writes by DRAIN_DELAY_SECONDS plus `seconds` from now on, with a lock on the counter row that each write locks first."""
    held = DRAIN_DELAY_SECONDS + seconds
    async with rest_of(stack) as client:
        # The first write creates the counter row.
        assert (await client.post("/api/v1/tasks", json={"title": "first"}, headers=account.headers)).status_code == 201
    connection = await asyncpg.connect(stack.state.database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT 1 FROM task.counters WHERE user_id = $1 FOR UPDATE", account.id)

    async def let_go() -> None:
        await asyncio.sleep(held)
        await transaction.rollback()

    letting_go = asyncio.create_task(let_go())
    try:
        yield seconds
    finally:
        await letting_go
        await connection.close()


def _exit_status(stack: Stack, process: str) -> int:
    status: int = stack._process(process)._end.result()  # type: ignore[union-attr]
    return status


def test_the_log_lines_are_json(system: Stack) -> None:
    for process in ("auth-1", "task-1"):
        lines = list(log_lines(system, process))
        assert any(line["event"] == "started" for line in lines), json.dumps(lines[:3])
