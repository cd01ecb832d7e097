"""The short form of the campaign of the change feed: see tests/faults/feed.py. Its long form is tests/faults/test_feed.py."""

import os
import time

from devstack.stack import Stack
from tests.faults.disturbed import disturbed_campaign
from tests.faults.faults import pairs

WRITES = 1_500
# Two of two: so everything is hit once.
ROUNDS = 2


async def test_whatever_goes_and_comes_back_each_watcher_is_told_of_every_change_once_and_in_order(breakable: Stack) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time())
    contradictions = await disturbed_campaign(breakable, seed, WRITES, pairs(seed), least_rounds=ROUNDS, say=print)
    assert contradictions == [], f"replay with FAULT_SEED={seed}"
