"""The long form of the change feed's campaign: see tests/faults/feed.py. The short form is tests/e2e/test_feed.py."""

import os
import sys
import time
from collections.abc import AsyncIterator

import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.faults.disturbed import disturbed_campaign
from tests.faults.faults import pairs

pytestmark = pytest.mark.faults

ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "WARNING", "DATABASE_TIMEOUT_SECONDS": "2"}
DRAIN_DELAY_SECONDS = 1.5
WRITES = 20_000
# Determines the number of writes if FAULT_SECONDS is set.
WRITES_PER_SECOND = 100


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(task_replicas=2, environment=ENVIRONMENT, drain_delay_seconds=DRAIN_DELAY_SECONDS)) as running:
        yield running


async def test_whatever_goes_and_comes_back_each_watcher_is_told_of_every_change_once_and_in_order(stack: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    seconds = os.environ.get("FAULT_SECONDS")
    writes = min(WRITES, int(float(seconds) * WRITES_PER_SECOND)) if seconds else WRITES
    _say(f"\nFAULT_SEED={seed}, {writes} writes\n")
    contradictions = await disturbed_campaign(stack, seed, writes, pairs(seed), least_rounds=2, say=_say)
    assert contradictions == [], f"replay with FAULT_SEED={seed}"


def _say(text: str) -> None:
    """Prints progress: the campaign runs pytest with -s."""
    sys.stdout.write(text)
    sys.stdout.flush()
