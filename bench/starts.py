"""When the calls of a load begin: in a closed loop as soon as a caller is free, in an open loop at a fixed rate."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Starts(Protocol):
    """Tells a free caller whether to begin a call."""

    def take(self, now: float) -> float | None:
        """Returns the time at which the next call begins, or should have begun. None means that no call is due. Times are `time.perf_counter`'s."""


class Immediately:
    """A closed loop: each caller begins its next call as soon as the last one is answered."""

    def take(self, now: float) -> float:
        """Returns `now`."""
        return now


@dataclass(slots=True)
class AtRate:
    """An open loop: the calls should begin at equal intervals, whether or not the calls before them are answered.

    If no caller is free when a call is due, the next free one begins it. Its latency still counts from the intended time. Otherwise a service that
    stalls would delay the calls that would have observed the stall, and the percentiles would not show it ("coordinated omission").
    The schedule begins at `began` and lasts `settle_seconds` and then `seconds`; only calls of the second part are counted.
    """

    rate: float
    began: float
    settle_seconds: float
    seconds: float
    _taken: int = field(default=0, init=False)

    @property
    def total(self) -> int:
        """The number of calls."""
        return math.ceil((self.settle_seconds + self.seconds) * self.rate)

    @property
    def first_counted(self) -> int:
        """The number of the first call that is counted; the calls have numbers from 0."""
        return math.ceil(self.settle_seconds * self.rate)

    def at(self, number: int) -> float:
        """Returns the intended time of a call."""
        return self.began + number / self.rate

    def take(self, now: float) -> float | None:
        """See Starts.take."""
        if self._taken >= self.total or (intended := self.at(self._taken)) > now:
            return None
        self._taken += 1
        return intended

    def pace(self, wake: Callable[[], None]) -> None:
        """Calls `wake` whenever a call is due, and returns at the end. It runs in a thread, because uvloop's timers are accurate to 1 ms only."""
        for number in range(self.total):
            delay = self.at(number) - time.perf_counter()
            if delay > 0:
                time.sleep(delay)
            wake()
