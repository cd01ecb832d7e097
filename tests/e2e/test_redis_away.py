"""Valkey down or frozen: no call fails or takes longer than SLOW_SECONDS, no read is outdated, and afterwards the replicas use the cache again."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from tests.support.accounts import Account
from tests.support.ledger import Ledger
from tests.support.load import Client, Load, Operation, worst
from tests.support.observed import metric
from tests.support.outage import frozen
from tests.support.task_api import GrpcTasks, RestTasks, TaskApi
from tests.support.waiting import eventually

pytestmark = pytest.mark.alone("outages under load, with bounds on the time of each call")

TASKS = 6
READERS_PER_TASK = 2
BEFORE_SECONDS = 0.5
OUTAGE_SECONDS = 1.5
AFTER_SECONDS = 1.0
# Each client's pause between calls. Without it the clients use all of the processors, and their calls wait for one another and not for Valkey.
PAUSE_SECONDS = 0.05
# Each client makes at least this many calls during the outage.
CALLS_PER_CLIENT = 4
# The longest time that a call may take because of the outage.
SLOW_SECONDS = 1.0
USED_AGAIN_WITHIN_SECONDS = 5.0
REPLICAS = ("task-1", "task-2")

Outage = Callable[[Stack], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def dead(stack: Stack) -> AsyncIterator[None]:
    """Kills Valkey, and restarts it empty at the end."""
    await stack.kill("valkey")
    try:
        yield
    finally:
        await stack.start_process("valkey")


@contextlib.asynccontextmanager
async def stuck(stack: Stack) -> AsyncIterator[None]:
    """Freezes Valkey, and thaws it with its data at the end."""
    with frozen(stack, "valkey"):
        yield


@pytest.mark.parametrize("outage", [dead, stuck])
async def test_without_valkey_reads_and_writes_go_on_and_nothing_old_is_read(
    outage: Outage, breakable: Stack, breakable_account: Account, breakable_rest: httpx.AsyncClient, breakable_gateway: grpc.aio.Channel
) -> None:
    ledger = Ledger()
    apis: list[TaskApi] = [GrpcTasks(breakable_gateway, breakable_account), RestTasks(breakable_rest, breakable_account)]
    async with Load([client for number in range(TASKS) for client in await _clients(apis[number % 2], ledger)], PAUSE_SECONDS) as load:
        await asyncio.sleep(BEFORE_SECONDS)
        # A replica that has just started does not use the cache at once.
        await eventually(lambda: _require_used_again(breakable), within=USED_AGAIN_WITHIN_SECONDS)
        bypassed = await _reads(breakable, "off")
        began = time.monotonic()
        async with outage(breakable):
            await asyncio.sleep(OUTAGE_SECONDS)
            ended = time.monotonic()
            for replica in REPLICAS:
                assert await metric(breakable, replica, "redis_breaker_open") == 1
        await eventually(lambda: _require_used_again(breakable), within=USED_AGAIN_WITHIN_SECONDS)
        await asyncio.sleep(AFTER_SECONDS)
    assert load.failures() == []
    assert ledger.contradictions == []
    assert worst(load.outcomes) < SLOW_SECONDS
    meanwhile = load.between(began, ended)
    assert {outcome.operation for outcome in meanwhile} == {"read", "write"}
    assert len(meanwhile) > CALLS_PER_CLIENT * TASKS * (1 + READERS_PER_TASK), "too few calls to find an outdated read"
    assert await _reads(breakable, "off") > bypassed


async def test_a_write_that_missed_its_fence_is_seen_by_the_replica_that_has_valkey_first(
    breakable: Stack, breakable_account: Account, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel]
) -> None:
    """Both replicas lose Valkey and notice its return at different times. What one writes meanwhile, the other must not miss because of the cache."""
    reader, writer = (GrpcTasks(channel, breakable_account) for channel in breakable_replicas)
    ledger = Ledger()
    task = await writer.create("before", "setup")
    await breakable.kill("valkey")
    await reader.get(task.id, "notices")
    # The writer notices the outage this much later, so its probes are also later, by half of the probe interval.
    await asyncio.sleep(0.25)
    await writer.rename(task.id, "notices too", "notices")
    await breakable.start_process("valkey")
    hits = await metric(breakable, "task-1", "task_cache_reads_total", outcome="hit")
    async with Load([[("write", _writes(writer, task.id, ledger))], [("read", _reads_of(reader, task.id, ledger))]]):
        await eventually(lambda: _require_more_hits(breakable, "task-1", hits), within=USED_AGAIN_WITHIN_SECONDS)
        await asyncio.sleep(AFTER_SECONDS)
    assert ledger.contradictions == []


async def _clients(api: TaskApi, ledger: Ledger) -> list[Client]:
    """Returns the clients of one task: a writer, and readers."""
    task = await api.create("before", "setup")
    ledger.wrote(task)
    return [[("write", _writes(api, task.id, ledger))], *([[("read", _reads_of(api, task.id, ledger))]] * READERS_PER_TASK)]


def _writes(api: TaskApi, task_id: str, ledger: Ledger) -> Operation:
    numbers = itertools.count()

    async def write(request_id: str) -> None:
        ledger.wrote(await api.rename(task_id, f"change {next(numbers)}", request_id))

    return write


def _reads_of(api: TaskApi, task_id: str, ledger: Ledger) -> Operation:
    async def read(request_id: str) -> None:
        at_least = ledger.version(task_id)
        ledger.read(await api.get(task_id, request_id), at_least)

    return read


async def _reads(stack: Stack, outcome: str) -> float:
    return sum([await metric(stack, replica, "task_cache_reads_total", outcome=outcome) for replica in REPLICAS])


async def _require_used_again(stack: Stack) -> None:
    for replica in REPLICAS:
        assert await metric(stack, replica, "redis_breaker_open") == 0
        hits = await metric(stack, replica, "task_cache_reads_total", outcome="hit")
        await asyncio.sleep(0.1)
        await _require_more_hits(stack, replica, hits)


async def _require_more_hits(stack: Stack, replica: str, than: float) -> None:
    assert await metric(stack, replica, "task_cache_reads_total", outcome="hit") > than
