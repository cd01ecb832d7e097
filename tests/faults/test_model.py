"""The system agrees with a plain model of it (tests/model), for as long as is asked for. What fails is made small."""

import os
import sys
import time

import httpx
import pytest

from devstack.stack import Stack
from tests.conftest import AccountFactory
from tests.model.run import run, world_of

pytestmark = pytest.mark.faults

EXAMPLES, STEPS = 20, 60


async def test_the_system_agrees_with_its_model(system: Stack, rest: httpx.AsyncClient, new_account: AccountFactory) -> None:
    """Round by round, each with the seed after the one before: a round is replayed by its own seed and FAULT_SECONDS=1."""
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    ends = time.monotonic() + float(os.environ.get("FAULT_SECONDS") or 60)
    async with world_of(system, rest, new_account) as world:
        while time.monotonic() < ends:
            sys.stdout.write(f"\n{ends - time.monotonic():6.1f} s  model FAULT_SEED={seed}")
            sys.stdout.flush()
            await run(world, seed, examples=EXAMPLES, steps=STEPS, shrink=True)
            seed += 1
