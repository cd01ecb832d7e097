"""Runs the campaign of the change feed while faults occur."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from devstack.stack import Stack
from tests.faults.faults import Fault
from tests.faults.feed import Campaign
from tests.support.outage import require_whole
from tests.support.waiting import eventually

WHOLE_WITHIN_SECONDS = 60.0
BETWEEN_ROUNDS_SECONDS = 0.5


async def disturbed_campaign(
    stack: Stack, seed: int, writes: int, rounds: Iterator[Sequence[Fault]], *, least_rounds: int, say: Callable[[str], object]
) -> list[str]:
    """Writes and watches while rounds of faults occur, at least `writes` writes and `least_rounds` rounds. Returns the contradictions."""
    async with Campaign(stack, seed) as campaign:
        disturbed = asyncio.Event()
        began = time.monotonic()
        writing = asyncio.create_task(campaign.write(writes, disturbed))
        try:
            number = 0
            while not writing.done():
                await _one(stack, next(rounds), say)
                say(f"; {campaign.writes} writes so far\n")
                number += 1
                if number == least_rounds:
                    disturbed.set()
                await asyncio.sleep(BETWEEN_ROUNDS_SECONDS)
        finally:
            disturbed.set()
            await writing
        found = await campaign.contradictions()
        say(f"{number} rounds of faults in {time.monotonic() - began:.0f} s; {campaign.report()}")
        return found


async def _one(stack: Stack, faults: Sequence[Fault], say: Callable[[str], object]) -> None:
    say("; ".join(map(str, faults)))
    await asyncio.gather(*(fault.strike(stack) for fault in faults))
    over = time.monotonic()
    await eventually(lambda: require_whole(stack), within=WHOLE_WITHIN_SECONDS)
    say(f"; all ready again after {time.monotonic() - over:.2f} s")
