"""Limits how often passwords are tried, per account and per address. What counts are attempts that fail: one that succeeds is given back.

An account has a bucket for all strangers together, and one for each address that it was logged in to from lately; so strangers cannot lock the owner
out. IPv6 addresses count by their /64, which is what one customer has. While Redis is away each process limits by itself: see
servicekit.access.rate_limit.
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
from servicekit.errors import DeadlineExceeded, DependencyUnavailable, Overloaded

IPV6_PREFIX_BITS: Final = 64


class Limiter(Protocol):
    """Buckets by key: see servicekit.access.rate_limit.RateLimiter."""

    async def take(self, key: str, limit: Limit) -> float:
        """0 if there was one to take, else the seconds to wait."""

    async def give_back(self, key: str, limit: Limit) -> None:
        """Puts one back."""


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How many failed attempts there may be at once, and then one in how many seconds."""

    per_account: Limit
    per_address: Limit


class Attempt:
    """An attempt under way, and what it has taken."""

    def __init__(self, limiter: Limiter, limits: LoginLimits) -> None:
        self._limiter = limiter
        self._limits = limits
        self._taken: list[tuple[str, Limit]] = []

    async def from_address(self, address: str) -> None:
        """Counts it for the address. Raises TooManyAttempts."""
        await self._take(f"address:{_hashed(network_of(address))}", self._limits.per_address)

    async def on_login(self, email_key: str, address: str, *, known: bool) -> None:
        """Counts it for the account, and the address. One that is `known` to the account counts apart from all others. Raises TooManyAttempts.

        It then does not count for what others behind the address do, either: they share it with the owner.
        """
        key = f"account:{_hashed(email_key)}"
        if known:
            await self._take(f"{key}:{_hashed(network_of(address))}", self._limits.per_account)
        else:
            await self.from_address(address)
            await self._take(key, self._limits.per_account)

    async def on_confirmation(self, user_id: UUID) -> None:
        """Counts it for a user who is logged in and says the password again. Raises TooManyAttempts."""
        await self._take(f"confirmation:{user_id}", self._limits.per_account)

    def keep(self) -> None:
        """It shall count even if it succeeds."""
        self._taken.clear()

    async def give_back(self) -> None:
        """It shall not count."""
        # A call whose time is over has its answer all the same.
        with contextlib.suppress(DeadlineExceeded):
            while self._taken:
                await self._limiter.give_back(*self._taken.pop())

    async def _take(self, key: str, limit: Limit) -> None:
        wait = await self._limiter.take(key, limit)
        if wait > 0:
            raise TooManyAttempts(wait)
        self._taken.append((key, limit))


class LoginGuard:
    """Makes attempts."""

    def __init__(self, limiter: Limiter, limits: LoginLimits) -> None:
        self._limiter = limiter
        self._limits = limits

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[Attempt]:
        """An attempt that counts unless the body succeeds, or fails for a reason of ours. A caller who leaves or runs out of time has still tried."""
        attempt = Attempt(self._limiter, self._limits)
        try:
            yield attempt
        except (Overloaded, DependencyUnavailable):
            await attempt.give_back()
            raise
        await attempt.give_back()


def network_of(address: str) -> str:
    """What counts as one address: an IPv6 address' /64."""
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(address)
        if ip.version == 6:
            return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_PREFIX_BITS), strict=False))
    return address


def _hashed(text: str) -> str:
    """Redis shall hold no emails and no addresses that can be read."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
