"""SIGTERM under load: the replica finishes every call that it accepted, and no call through the gateway fails."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from signal import SIGTERM

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.config import HOST
from devstack.stack import Stack
from tests.e2e.conftest import DRAIN_DELAY_SECONDS
from tests.support.accounts import Account
from tests.support.load import OK, SETUP, Client, Load, mixed_client
from tests.support.observed import log_lines, log_size
from tests.support.task_api import GrpcTasks, RestTasks, TaskApi

CLIENTS = 32
# The clients whose calls run while the server stops. Fewer than the pool's connections, so that the other clients can continue.
WAITING_CLIENTS = 6
SETTLE_SECONDS = 0.5
# The codes of calls that no handler started. CANCELLED: gRPC resets calls that its core has received but not yet passed on when the server stops.
NEVER_BEGAN = {"UNAVAILABLE", "CANCELLED"}
# The duration of the drain after its delay: the running calls take at most as long as the lock below is held.
REST_OF_DRAIN_SECONDS = 2.5


@pytest.mark.alone("calls that a lock delays must end within the drain")
async def test_every_call_that_a_server_began_ends_well_though_it_is_told_to_stop(breakable: Stack, breakable_account: Account) -> None:
    async with _direct_clients(breakable, breakable_account) as clients:
        since = log_size(breakable, "task-2")
        load = Load(clients)
        await load.start()
        await asyncio.sleep(SETTLE_SECONDS)
        stopping = time.monotonic()
        # Blocked only around the end of the drain's delay: a write that waits 2 s for its lock fails.
        blocking = asyncio.create_task(_block_writes(breakable, breakable_account, after=DRAIN_DELAY_SECONDS - 0.3, seconds=0.7))
        await breakable.kill("task-2", SIGTERM)
        took = time.monotonic() - stopping
        await blocking
        await load.stop()
    lines = list(log_lines(breakable, "task-2", since))
    # The replica logs a call when its handler ends, whatever the outcome. So a call without a log line was never started.
    began = {line["request_id"]: line["grpc_code"] for line in lines if line["event"] == "call" and line["request_id"] != SETUP}
    ended_well = {outcome.request_id for outcome in load.outcomes if outcome.code == OK}
    assert set(began.values()) == {OK}
    assert set(began) == ended_well
    across = [o for o in load.outcomes if o.operation == "create" and o.began < stopping + DRAIN_DELAY_SECONDS < o.began + o.seconds]
    assert len(across) == WAITING_CLIENTS, "no call was running when the server began to stop"
    assert {outcome.code for outcome in load.outcomes} <= {OK, *NEVER_BEGAN}
    assert took < DRAIN_DELAY_SECONDS + REST_OF_DRAIN_SECONDS
    assert lines[-1]["event"] == "stopped"


@pytest.mark.outage("replaces a replica under load")
async def test_behind_the_gateway_no_call_fails_while_a_replica_is_replaced(
    breakable: Stack, breakable_account: Account, breakable_rest: httpx.AsyncClient, breakable_gateway: grpc.aio.Channel
) -> None:
    grpc_api, rest_api = GrpcTasks(breakable_gateway, breakable_account), RestTasks(breakable_rest, breakable_account)
    clients = [await mixed_client(api) for api in [grpc_api] * (CLIENTS - 8) + [rest_api] * 8]
    since = log_size(breakable, "task-1")
    async with Load(clients) as load:
        await asyncio.sleep(SETTLE_SECONDS)
        await breakable.kill("task-1", SIGTERM)
        await asyncio.sleep(SETTLE_SECONDS)
        await breakable.start_process("task-1")
        restarted = log_size(breakable, "task-1")
        await asyncio.sleep(2 * SETTLE_SECONDS)
    assert load.failures() == []
    assert {outcome.operation for outcome in load.outcomes} == {"create", "get", "rename", "list", "delete"}
    for offset, when in ((since, "before"), (restarted, "after")):
        assert any(line["event"] == "call" for line in log_lines(breakable, "task-1", offset)), f"no load on the replica {when} its restart"


@contextlib.asynccontextmanager
async def _direct_clients(stack: Stack, account: Account) -> AsyncIterator[list[Client]]:
    """Yields clients of task-2, each with its own connection. Some only create tasks, the others read."""
    address = f"{HOST}:{stack.state.processes['task-2'].grpc_port}"
    async with contextlib.AsyncExitStack() as channels:
        apis = []
        for _ in range(CLIENTS):
            channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            apis.append(GrpcTasks(await channels.enter_async_context(channel), account))
        task = await apis[0].create("to be read", SETUP)
        yield [_reader(api, task.id) for api in apis[WAITING_CLIENTS:]] + [_writer(api) for api in apis[:WAITING_CLIENTS]]


async def _block_writes(stack: Stack, account: Account, after: float, seconds: float) -> None:
    """After `after` seconds, blocks the user's writes for `seconds` with a lock on the counter row, which every write locks first."""
    connection = await asyncpg.connect(stack.state.database_url)
    try:
        await asyncio.sleep(after)
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM task.counters WHERE user_id = $1 FOR UPDATE", account.id)
            await asyncio.sleep(seconds)
    finally:
        await connection.close()


def _reader(api: TaskApi, task_id: str) -> Client:
    return [("get", lambda request_id: api.get(task_id, request_id)), ("list", api.list)]


def _writer(api: TaskApi) -> Client:
    return [("create", lambda request_id: api.create("made while the server stops", request_id))]
