"""The short form of the change feed's campaign: see tests/faults/feed.py. The long form is tests/faults/test_feed.py."""

import os
import time

import pytest

from devstack.stack import Stack
from tests.faults.disturbed import disturbed_campaign
from tests.faults.faults import pairs

pytestmark = pytest.mark.outage("a campaign of faults")

WRITES = 1_500
# Two rounds of two faults each, so that each of the feed's four processes is hit once.
ROUNDS = 2


async def test_whatever_goes_and_comes_back_each_watcher_is_told_of_every_change_once_and_in_order(breakable: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    contradictions = await disturbed_campaign(breakable, seed, WRITES, pairs(seed), least_rounds=ROUNDS, say=print)
    assert contradictions == [], f"replay with FAULT_SEED={seed}"
