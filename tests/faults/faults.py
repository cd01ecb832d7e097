"""The faults of the campaign, and their seeded schedule."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from signal import SIGKILL, SIGTERM

from devstack.stack import Stack
from tests.support.outage import freeze, thaw

PROCESSES = ("valkey", "postgres", "task-1", "task-2", "gateway")
# The processes, besides PostgreSQL, that a change passes on its way to the watchers.
FEED = ("valkey", "task-1", "task-2", "gateway")
# The processes, besides the services, that a change passes on its way to a webhook, and Valkey, which it does not need.
SENDING = ("task-worker-1", "task-worker-2", "postgres", "valkey")
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 2.5
# The share of rounds in which faults hit two processes at the same time.
TWO_AT_ONCE = 0.35


class Way(Enum):
    """The kind of a fault."""

    KILL = "killed"
    TERMINATE = "terminated"
    FREEZE = "frozen"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one process. It starts `after_seconds` after the start of the round and lasts `seconds`."""

    process: str
    way: Way
    after_seconds: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.process} {self.way.value} at {self.after_seconds:.2f} s for {self.seconds:.2f} s"

    async def strike(self, stack: Stack) -> None:
        """Causes the fault, waits, and ends it."""
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
    """Yields the faults of each round. The same seed gives the same faults."""
    rng = random.Random(seed)
    while True:
        hit = rng.sample(PROCESSES, 2 if rng.random() < TWO_AT_ONCE else 1)
        yield [_fault(rng, process) for process in hit]


def pairs(seed: int) -> Iterator[Sequence[Fault]]:
    """Yields rounds in which faults hit two of the feed's processes; two rounds hit all four. The same seed gives the same rounds."""
    rng = random.Random(seed)
    while True:
        processes = rng.sample(FEED, len(FEED))
        for pair in (processes[:2], processes[2:]):
            yield [_fault(rng, process, killed=2) for process in pair]


def kills(seed: int) -> Iterator[Fault]:
    """Yields faults that kill one of SENDING; four in a row kill each of them. The same seed gives the same faults."""
    rng = random.Random(seed)
    while True:
        for process in rng.sample(SENDING, len(SENDING)):
            yield Fault(process, Way.KILL, rng.uniform(0, 1), rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))


def _fault(rng: random.Random, process: str, killed: int = 1) -> Fault:
    """`killed` is the weight of KILL; every other way has weight 1."""
    # After SIGTERM PostgreSQL waits for its clients, which is no fault. For the gateway SIGTERM has the same effect as SIGKILL, but takes longer.
    ways = [*[Way.KILL] * killed, Way.FREEZE, *([Way.TERMINATE] if process.startswith("task") else [])]
    return Fault(process, rng.choice(ways), rng.uniform(0, 1), rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
