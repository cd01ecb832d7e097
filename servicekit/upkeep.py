"""Removes what has served its time. Any replica does it, and two at once do no harm: each takes rows that the other has not locked."""

from typing import Final, Protocol

INTERVAL_SECONDS: Final = 10.0
BATCH: Final = 1000


class Leftovers(Protocol):
    """Where it lies. Raises DependencyUnavailable."""

    async def remove(self, limit: int) -> int:
        """Removes at most so much of each kind. Returns how much it was of the kind that there was most of."""


class Upkeep:
    """One round removes all there is, a batch at a time."""

    def __init__(self, leftovers: Leftovers) -> None:
        self._leftovers = leftovers

    async def round(self) -> None:
        """See the class."""
        while await self._leftovers.remove(BATCH) == BATCH:
            pass
