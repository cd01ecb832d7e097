"""The system agrees with a simple model of it (tests/model) for FAULT_SECONDS. Hypothesis shrinks a failing example."""

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
    """Each round has the seed of the previous round plus 1. To repeat one round, set its seed and FAULT_SECONDS=1."""
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    ends = time.monotonic() + float(os.environ.get("FAULT_SECONDS") or 60)
    async with world_of(system, rest, new_account) as world:
        while time.monotonic() < ends:
            sys.stdout.write(f"\n{ends - time.monotonic():6.1f} s  model FAULT_SEED={seed}")
            sys.stdout.flush()
            await run(world, seed, examples=EXAMPLES, steps=STEPS, shrink=True)
            seed += 1
