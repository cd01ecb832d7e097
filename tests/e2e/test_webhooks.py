"""The short form of the campaign of webhooks: see tests/faults/webhooks.py. The long form is tests/faults/test_webhooks.py."""

import os
import time
from collections.abc import AsyncIterator

import pytest

from devstack.stack import Stack
from tests.faults.faults import kills
from tests.faults.webhooks import webhooks_campaign
from tests.support.outage import commit_before_answering

pytestmark = pytest.mark.outage("a campaign of faults")

# Enough for four faults, so that each process is killed once.
SECONDS = 12.0


@pytest.fixture
async def stack(breakable: Stack) -> AsyncIterator[Stack]:
    """A system with two workers."""
    await commit_before_answering(breakable)
    yield breakable
    await commit_before_answering(breakable, on=False)


async def test_whatever_is_killed_each_webhook_gets_every_change_in_order_and_no_other_one_is_late(stack: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    assert await webhooks_campaign(stack, seed, kills(seed), SECONDS, print) == [], f"replay with FAULT_SEED={seed}"
