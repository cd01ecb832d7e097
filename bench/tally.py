"""The counters of a round, shared by all of its connections."""

import time


class Tally:
    """Counts answers while `counting` is set. Counts failures always, because no failure is expected at any time."""

    def __init__(self) -> None:
        self.counting = False
        self.latencies: list[int] = []
        self.failures = 0
        self.first_failure = ""

    def answered(self, began: float) -> None:
        """Counts a successful call that began at `began` (`time.perf_counter`)."""
        if self.counting:
            self.latencies.append(round((time.perf_counter() - began) * 1e6))

    def failed(self, what: str) -> None:
        """Counts a failed call or connection."""
        self.failures += 1
        self.first_failure = self.first_failure or what
