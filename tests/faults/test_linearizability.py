"""One task, 8 writers and 8 readers, and faults for as long as is asked for: some order of all calls explains every answer."""

import os
import random
import sys
import time
from collections.abc import AsyncIterator

import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.faults.one_task import FAULTS, contradictions, scene_of

pytestmark = pytest.mark.faults

ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "WARNING", "DATABASE_TIMEOUT_SECONDS": "2"}
FAULTS_PER_TASK = 3


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT)) as running:
        yield running


async def test_some_order_of_all_calls_explains_every_answer(stack: Stack) -> None:
    """Round by round, each with a task of its own and the seed after the one before: a round is replayed by its own seed and FAULT_SECONDS=1."""
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    ends = time.monotonic() + float(os.environ.get("FAULT_SECONDS") or 60)
    while time.monotonic() < ends:
        _say(f"{ends - time.monotonic():6.1f} s  linearizability FAULT_SEED={seed}")
        rng = random.Random(seed)
        async with scene_of(stack, rng, _say) as scene:
            await scene.whole()
            assert await contradictions(scene, rng, rng.choices(FAULTS, k=FAULTS_PER_TASK)) == [], f"replay with FAULT_SEED={seed} FAULT_SECONDS=1"
        seed += 1


def _say(text: str) -> None:
    """To whoever waits for it: pytest is run with -s."""
    sys.stdout.write(f"\n{text}")
    sys.stdout.flush()
