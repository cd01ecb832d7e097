"""Limits how often passwords are tried, per account and per client address. Failed attempts count.

A successful attempt is given back, except a registration, which counts too. An account has one bucket for all unknown addresses together, and one for
each known address, from which a login succeeded in the last KNOWN_ADDRESS_DAYS. So strangers cannot lock the owner out. IPv6 addresses count by their
/64 network, which is what one customer has. If Redis is down, each process limits by itself: see servicekit.access.rate_limit.
"""

import contextlib
import hashlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from auth_service.passwords.errors import TooManyAttempts
from servicekit.access.rate_limit import Limit
from servicekit.errors import DeadlineExceeded, DependencyUnavailable, Overloaded, TimeLimitExceeded

IPV6_PREFIX_BITS: Final = 64


class Limiter(Protocol):
    """Buckets by key: see servicekit.access.rate_limit.RateLimiter."""

    async def take(self, key: str, limit: Limit) -> float:
        """Takes one unit. Returns 0, or, if the bucket is empty, the seconds to wait; then it has taken nothing."""

    async def give_back(self, key: str, limit: Limit) -> None:
        """Puts one unit back."""


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """The limits of failed attempts: a burst, then one attempt per interval."""

    per_account: Limit
    per_address: Limit


class Attempt:
    """A running attempt and the units that it has taken."""

    def __init__(self, limiter: Limiter, limits: LoginLimits) -> None:
        self._limiter = limiter
        self._limits = limits
        self._taken: list[tuple[str, Limit]] = []

    async def from_address(self, address: str) -> None:
        """Counts the attempt for the client address. Raises TooManyAttempts."""
        await self._take(f"address:{_hashed(network_of(address))}", self._limits.per_address)

    async def on_login(self, email_key: str, address: str, *, known: bool) -> None:
        """Counts the attempt for the account and the client address. Raises TooManyAttempts.

        If the address is `known` to the account, the attempt counts only in the account's bucket for this address. It does not count for the address
        itself, because other users may share the address with the owner.
        """
        key = f"account:{_hashed(email_key)}"
        if known:
            await self._take(f"{key}:{_hashed(network_of(address))}", self._limits.per_account)
        else:
            await self.from_address(address)
            await self._take(key, self._limits.per_account)

    async def on_confirmation(self, user_id: UUID) -> None:
        """Counts the attempt for a logged-in user who confirms a call with the password. Raises TooManyAttempts."""
        await self._take(f"confirmation:{user_id}", self._limits.per_account)

    def keep(self) -> None:
        """Makes the attempt count even if it succeeds."""
        self._taken.clear()

    async def give_back(self) -> None:
        """Gives back all units, so that the attempt does not count."""
        # If the call's deadline has passed, the units stay taken and the call still has its answer.
        with contextlib.suppress(DeadlineExceeded):
            while self._taken:
                await self._limiter.give_back(*self._taken.pop())

    async def _take(self, key: str, limit: Limit) -> None:
        wait = await self._limiter.take(key, limit)
        if wait > 0:
            raise TooManyAttempts(wait)
        self._taken.append((key, limit))


class LoginGuard:
    """Creates attempts."""

    def __init__(self, limiter: Limiter, limits: LoginLimits) -> None:
        self._limiter = limiter
        self._limits = limits

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[Attempt]:
        """Yields an attempt, which counts unless the body succeeds or raises Overloaded, DependencyUnavailable or TimeLimitExceeded.

        It also counts if the caller cancels the call or the call's deadline passes.
        """
        attempt = Attempt(self._limiter, self._limits)
        try:
            yield attempt
        except (Overloaded, DependencyUnavailable, TimeLimitExceeded):
            await attempt.give_back()
            raise
        await attempt.give_back()


def network_of(address: str) -> str:
    """Returns what counts as one address: the /64 network of an IPv6 address, the IPv4 address of a mapped one, any other text unchanged."""
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(address)
        if ip.version == 6:
            return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_PREFIX_BITS), strict=False))
    return address


def _hashed(text: str) -> str:
    """Hashes a key, because Redis must hold no readable emails and addresses."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
