"""The counters of a round, shared by all of its connections."""

import time


class Tally:
    """Counts answers while `counting` is set, to calls that began at `since` or later. Counts failures always, because no failure is expected."""

    def __init__(self) -> None:
        self.counting = False
        self.since = 0.0
        self.latencies: list[int] = []
        self.failures = 0
        self.first_failure = ""

    def answered(self, began: float) -> None:
        """Counts a successful call that began, or should have begun, at `began` (`time.perf_counter`)."""
        if self.counting and began >= self.since:
            self.latencies.append(round((time.perf_counter() - began) * 1e6))

    def failed(self, what: str) -> None:
        """Counts a failed call or connection."""
        self.failures += 1
        self.first_failure = self.first_failure or what
