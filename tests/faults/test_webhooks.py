"""The long form of the campaign of webhooks: see tests/faults/webhooks.py. The short form is tests/e2e/test_webhooks.py."""

import os
import sys
import time
from collections.abc import AsyncIterator

import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.faults.faults import kills
from tests.faults.webhooks import webhooks_campaign
from tests.support.outage import commit_before_answering

pytestmark = pytest.mark.faults

ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "WARNING", "DATABASE_TIMEOUT_SECONDS": "2"}
DRAIN_DELAY_SECONDS = 1.5


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(task_workers=2, environment=ENVIRONMENT, drain_delay_seconds=DRAIN_DELAY_SECONDS)) as running:
        await commit_before_answering(running)
        yield running


async def test_whatever_is_killed_each_webhook_gets_every_change_in_order_and_no_other_one_is_late(stack: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    seconds = float(os.environ.get("FAULT_SECONDS") or 60)
    _say(f"\nFAULT_SEED={seed} FAULT_SECONDS={seconds:g}\n")
    assert await webhooks_campaign(stack, seed, kills(seed), seconds, _say) == [], f"replay with FAULT_SEED={seed}"


def _say(text: str) -> None:
    """Prints progress: the campaign runs pytest with -s."""
    sys.stdout.write(text)
    sys.stdout.flush()
