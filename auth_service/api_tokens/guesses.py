"""Limits how many unknown API tokens a client address sends.

Nobody can guess 256 random bits; the limit keeps those who try from loading the database and the log. Only different tokens count, because a script
that goes on with a deleted token guesses nothing. While the limit of an address is reached, this replica looks up no API token for it, so it also
refuses a valid token that it does not keep. If Redis is down, each process limits by itself: see servicekit.access.rate_limit.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol
from uuid import uuid4

from auth_service.passwords.errors import TooManyAttempts
from auth_service.passwords.login_guard import hashed, network_of
from servicekit.access.rate_limit import Limit, Wait

# The most addresses that a replica remembers as limited.
CAPACITY: Final = 10_000


class Limiter(Protocol):
    """Buckets by key: see servicekit.access.rate_limit.RateLimiter."""

    async def take(self, key: str, limit: Limit, holder: str) -> Wait:
        """Takes one unit and reserves it for the holder, or takes nothing and returns how long to wait."""

    async def spend(self, key: str, holder: str) -> None:
        """Ends the reservation of the holder's unit, which stays taken."""


class Guesses:
    """Counts by client address. `limit` is for one address; IPv6 addresses count by their /64."""

    def __init__(self, limiter: Limiter, limit: Limit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = limiter
        self._limit = limit
        self._clock = clock
        # By network: the time on this replica's clock until which it may send no unknown token.
        self._limited: OrderedDict[str, float] = OrderedDict()

    def require_allowed(self, address: str) -> None:
        """Raises TooManyAttempts if the address has sent too many unknown tokens."""
        if self._limited and (left := self._limited.get(network_of(address), 0.0) - self._clock()) > 0:
            raise TooManyAttempts(left)

    async def failed(self, address: str) -> None:
        """Counts an unknown token. Raises TooManyAttempts, DeadlineExceeded."""
        network, holder = network_of(address), str(uuid4())
        key = f"api-token:{hashed(network)}"
        wait = await self._limiter.take(key, self._limit, holder)
        if wait.seconds == 0:
            await self._limiter.spend(key, holder)
            return
        self._limited[network] = self._clock() + wait.seconds
        self._limited.move_to_end(network)
        if len(self._limited) > CAPACITY:
            self._limited.popitem(last=False)
        raise TooManyAttempts(wait.seconds)
