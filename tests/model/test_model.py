"""The system agrees with a simple model of it: a short run. The long one is tests/faults/test_model.py."""

import os
import time

import httpx
import pytest

from devstack.stack import Stack
from tests.conftest import AccountFactory
from tests.model.run import run, world_of
from tests.support.tiers import first_quick

STEPS = 40


@pytest.mark.parametrize("examples", first_quick([6, 15]))
async def test_the_system_agrees_with_its_model(system: Stack, rest: httpx.AsyncClient, new_account: AccountFactory, examples: int) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    print(f"FAULT_SEED={seed}")  # noqa: T201 - pytest shows it if the test fails
    async with world_of(system, rest, new_account) as world:
        await run(world, seed, examples=examples, steps=STEPS, shrink=False)
