"""The system agrees with a simple model of it: a short run. The long one is tests/faults/test_model.py."""

import os
import time

import httpx

from devstack.stack import Stack
from tests.conftest import AccountFactory
from tests.model.run import run, world_of

EXAMPLES, STEPS = 6, 40


async def test_the_system_agrees_with_its_model(system: Stack, rest: httpx.AsyncClient, new_account: AccountFactory) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    print(f"FAULT_SEED={seed}")  # noqa: T201 - pytest shows it if the test fails
    async with world_of(system, rest, new_account) as world:
        await run(world, seed, examples=EXAMPLES, steps=STEPS, shrink=False)
