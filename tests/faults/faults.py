"""The faults of the campaign, and the seeded schedule by which they come."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from signal import SIGKILL, SIGTERM

from devstack.stack import Stack
from tests.support.outage import freeze, thaw

PROCESSES = ("valkey", "postgres", "task-1", "task-2", "gateway")
# What a change comes by on its way to those who watch, besides PostgreSQL.
FEED = ("valkey", "task-1", "task-2", "gateway")
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 2.5
# Of rounds, those in which a second process is hit while the first is down.
TWO_AT_ONCE = 0.35


class Way(Enum):
    """How a process is hit."""

    KILL = "killed"
    TERMINATE = "told to stop"
    FREEZE = "frozen"


@dataclass(frozen=True, slots=True)
class Fault:
    """One process hit in one way, `after_seconds` from the round's begin, for `seconds`."""

    process: str
    way: Way
    after_seconds: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.process} {self.way.value} at {self.after_seconds:.2f} s for {self.seconds:.2f} s"

    async def strike(self, stack: Stack) -> None:
        """Does it, and undoes it."""
        await asyncio.sleep(self.after_seconds)
        if self.way is Way.FREEZE:
            freeze(stack, self.process)
            await asyncio.sleep(self.seconds)
            thaw(stack, self.process)
            return
        await stack.kill(self.process, SIGKILL if self.way is Way.KILL else SIGTERM)
        await asyncio.sleep(self.seconds)
        await stack.start_process(self.process)


def schedule(seed: int) -> Iterator[Sequence[Fault]]:
    """The faults of each round, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        hit = rng.sample(PROCESSES, 2 if rng.random() < TWO_AT_ONCE else 1)
        yield [_fault(rng, process) for process in hit]


def pairs(seed: int) -> Iterator[Sequence[Fault]]:
    """Rounds in which two of the feed's processes are hit, each once before one is hit again; the same for the same seed."""
    rng = random.Random(seed)
    while True:
        processes = rng.sample(FEED, len(FEED))
        for pair in (processes[:2], processes[2:]):
            yield [_fault(rng, process, killed=2) for process in pair]


def _fault(rng: random.Random, process: str, killed: int = 1) -> Fault:
    """`killed`: how many times as often as in another way."""
    # SIGTERM to PostgreSQL waits for its clients, which is no fault; to the gateway it is what SIGKILL is, only slower.
    ways = [*[Way.KILL] * killed, Way.FREEZE, *([Way.TERMINATE] if process.startswith("task") else [])]
    return Fault(process, rng.choice(ways), rng.uniform(0, 1), rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
