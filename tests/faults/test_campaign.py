"""A seeded schedule stops and restarts every process under load. No acknowledged write is lost, and no read returns an outdated task."""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.faults.faults import schedule
from tests.faults.witness import Witness
from tests.support.accounts import make_account
from tests.support.load import OK, Load
from tests.support.outage import commit_before_answering, require_whole
from tests.support.task_api import CONNECTION, GrpcTasks, RestTasks
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "WARNING", "DATABASE_TIMEOUT_SECONDS": "2"}
DRAIN_DELAY_SECONDS = 1.5
USERS = 6
HEALTHY_WITHIN_SECONDS = 5.0
BETWEEN_ROUNDS_SECONDS = 0.5
# The codes with which a call may end while a process is down. Any other code is a defect.
EXPECTED_CODES = {OK, CONNECTION, "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT, drain_delay_seconds=DRAIN_DELAY_SECONDS)) as running:
        await commit_before_answering(running)
        yield running


async def test_nothing_acknowledged_is_lost_and_nothing_old_is_read(stack: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    seconds = float(os.environ.get("FAULT_SECONDS") or 60)
    _say(f"\nFAULT_SEED={seed} FAULT_SECONDS={seconds:g}\n")
    target = stack.state.url.removeprefix("http://")
    async with httpx.AsyncClient(base_url=stack.state.url, timeout=10) as rest, grpc.aio.insecure_channel(target) as channel:
        witnesses = await _witnesses(rest, channel, seed)
        async with Load([client for witness in witnesses for client in witness.clients()]) as load:
            await _campaign(stack, seed, seconds)
    _say(f"{len(load.outcomes)} calls: {dict(load.codes())}\n")
    database = await asyncpg.connect(stack.state.database_url)
    try:
        contradictions = [text for witness in witnesses for text in await witness.contradictions(database)]
    finally:
        await database.close()
    assert contradictions == [], f"replay with FAULT_SEED={seed}"
    unexpected = [outcome for outcome in load.outcomes if outcome.code not in EXPECTED_CODES]
    assert unexpected == [], f"replay with FAULT_SEED={seed}"
    assert sum(len(witness.answered) for witness in witnesses) > 0


async def _campaign(stack: Stack, seed: int, seconds: float) -> None:
    """Runs rounds of faults until `seconds` have passed. After each round the system must be healthy within HEALTHY_WITHIN_SECONDS."""
    ends = time.monotonic() + seconds
    for number, faults in enumerate(schedule(seed), start=1):
        if time.monotonic() >= ends:
            return
        began = time.monotonic()
        _say(f"{seconds - (ends - began):6.1f} s  round {number}: {'; '.join(map(str, faults))}")
        await asyncio.gather(*(fault.strike(stack) for fault in faults))
        over = time.monotonic()
        await eventually(lambda: require_whole(stack), within=HEALTHY_WITHIN_SECONDS)
        _say(f"; all ready again after {time.monotonic() - over:.2f} s\n")
        await asyncio.sleep(BETWEEN_ROUNDS_SECONDS)


def _say(text: str) -> None:
    """Prints progress: the campaign runs pytest with -s."""
    sys.stdout.write(text)
    sys.stdout.flush()


async def _witnesses(rest: httpx.AsyncClient, channel: grpc.aio.Channel, seed: int) -> list[Witness]:
    accounts = [await make_account(rest) for _ in range(USERS)]
    return [
        Witness(account, RestTasks(rest, account) if number % 2 else GrpcTasks(channel, account), random.Random(f"{seed} {number}"))
        for number, account in enumerate(accounts)
    ]
