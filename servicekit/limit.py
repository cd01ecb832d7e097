"""What a rate limit is. Apart from what enforces it (servicekit.rate_limit), so that a use case can name one without knowing Redis."""

from dataclasses import dataclass
from typing import Final

MICROSECONDS: Final = 1_000_000
# A hundred years. Lua has only doubles, which are exact up to 2**53: in microseconds that is the year 2255, and no bucket may be full later.
MAX_REFILL_SECONDS: Final = 100 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` at once, then one each `interval_seconds`."""

    burst: int
    interval_seconds: float

    def __post_init__(self) -> None:
        if self.burst < 1 or not 1 / MICROSECONDS <= self.interval_seconds <= MAX_REFILL_SECONDS / self.burst:
            raise ValueError(f"{self}: burst must be at least 1, the interval at least a microsecond, and both together at most a hundred years")

    @property
    def microseconds(self) -> tuple[int, int]:
        """The interval, and the time in which an empty bucket is refilled."""
        interval = round(self.interval_seconds * MICROSECONDS)
        return interval, interval * self.burst
