"""Times as whole microseconds since 1970, which is how the cache and the page tokens carry them."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(time: datetime) -> int:
    """Exact for every time that Python can say."""
    return (time - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The time, in UTC. Raises OverflowError for one that Python cannot say."""
    return EPOCH + timedelta(microseconds=micros)
