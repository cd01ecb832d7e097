"""What a round has seen so far, shared by all of its connections."""

import time


class Tally:
    """Counts answers while it is told to, and failures always: none is expected at any time."""

    def __init__(self) -> None:
        self.counting = False
        self.latencies: list[int] = []
        self.failures = 0
        self.first_failure = ""

    def answered(self, began: float) -> None:
        """A call that began then, on the clock of `time.perf_counter`, was answered well."""
        if self.counting:
            self.latencies.append(round((time.perf_counter() - began) * 1e6))

    def failed(self, what: str) -> None:
        """A call, or its connection, failed."""
        self.failures += 1
        self.first_failure = self.first_failure or what
