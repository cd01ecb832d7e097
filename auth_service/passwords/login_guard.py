"""Limits how often passwords are tried, per account and per client address, and how many accounts one client address registers.

Failed attempts and successful registrations count, each in buckets of their own. An account has one bucket for all unknown addresses together, and
one for each known address, from which a login succeeded in the last KNOWN_ADDRESS_DAYS. So strangers cannot lock the owner out. IPv6 addresses count
by their /64 network, which is what one customer has. If Redis is down, each process limits by itself: see servicekit.access.rate_limit.

An attempt takes its units before it is known how it ends, so that attempts made at once are limited too. What is under way has not failed: if only
attempts under way use up a bucket, the next one is told to come back shortly.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID, uuid4

from auth_service.passwords.errors import AttemptsUnderWay, LimitReached, TooManyAttempts, TooManyRegistrations
from servicekit import deadline
from servicekit.access.rate_limit import Limit, Wait
from servicekit.completion import run_to_completion
from servicekit.errors import DeadlineExceeded, DependencyUnavailable, Overloaded, TimeLimitExceeded

IPV6_PREFIX_BITS: Final = 64


class Limiter(Protocol):
    """Buckets by key: see servicekit.access.rate_limit.RateLimiter."""

    async def take(self, key: str, limit: Limit, holder: str) -> Wait:
        """Takes one unit and reserves it for the holder, or takes nothing and returns how long to wait."""

    async def give_back(self, key: str, limit: Limit, holder: str) -> None:
        """Puts the holder's unit back."""

    async def spend(self, key: str, holder: str) -> None:
        """Ends the reservation of the holder's unit, which stays taken."""


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """The limits of failed attempts per account and per address, and of registrations per address: a burst, then one per interval."""

    per_account: Limit
    per_address: Limit
    registrations: Limit


class Attempt:
    """A running attempt and the units that it has taken: those that count if it fails, and those that count if it succeeds."""

    def __init__(self, limiter: Limiter, limits: LoginLimits) -> None:
        self._limiter = limiter
        self._limits = limits
        self._holder = str(uuid4())
        self._for_failure: list[tuple[str, Limit]] = []
        self._for_success: list[tuple[str, Limit]] = []

    async def on_registration(self, address: str) -> None:
        """Counts the registration for the client address: as a registration if it succeeds, as a failed attempt if it fails.

        Raises TooManyRegistrations, TooManyAttempts, AttemptsUnderWay.
        """
        network = hashed(network_of(address))
        self._for_success.append(await self._take(f"registration:{network}", self._limits.registrations, TooManyRegistrations))
        await self._from_address(network)

    async def on_login(self, email_key: str, address: str, *, known: bool) -> None:
        """Counts the attempt for the account and the client address. Raises TooManyAttempts, AttemptsUnderWay.

        If the address is `known` to the account, the attempt counts only in the account's bucket for this address. It does not count for the address
        itself, because other users may share the address with the owner.
        """
        key, network = f"account:{hashed(email_key)}", hashed(network_of(address))
        if known:
            await self._on_account(f"{key}:{network}")
        else:
            await self._from_address(network)
            await self._on_account(key)

    async def on_confirmation(self, user_id: UUID) -> None:
        """Counts the attempt for a logged-in user who confirms a call with the password. Raises TooManyAttempts, AttemptsUnderWay."""
        await self._on_account(f"confirmation:{user_id}")

    async def succeeded(self) -> None:
        """Gives the units of a failure back."""
        await self._end(give_back=self._for_failure, spend=self._for_success)

    async def failed(self) -> None:
        """Gives the units of a success back."""
        await self._end(give_back=self._for_success, spend=self._for_failure)

    async def undone(self) -> None:
        """Gives all units back, so that the attempt does not count."""
        await self._end(give_back=[*self._for_failure, *self._for_success], spend=[])

    async def abandoned(self) -> None:
        """Gives no unit back. Does not depend on the call's deadline, which may have passed."""
        deadline.clear()
        await self._end(give_back=[], spend=[*self._for_failure, *self._for_success])

    async def _from_address(self, network: str) -> None:
        self._for_failure.append(await self._take(f"address:{network}", self._limits.per_address, TooManyAttempts))

    async def _on_account(self, key: str) -> None:
        self._for_failure.append(await self._take(key, self._limits.per_account, TooManyAttempts))

    async def _take(self, key: str, limit: Limit, reached: type[LimitReached]) -> tuple[str, Limit]:
        wait = await self._limiter.take(key, limit, self._holder)
        if wait.least_seconds > 0:
            raise reached(wait.least_seconds)
        if wait.seconds > 0:
            raise AttemptsUnderWay
        return key, limit

    async def _end(self, *, give_back: list[tuple[str, Limit]], spend: list[tuple[str, Limit]]) -> None:
        # If the call's deadline has passed, the units stay taken and the call still has its answer.
        with contextlib.suppress(DeadlineExceeded):
            for key, limit in give_back:
                await self._limiter.give_back(key, limit, self._holder)
            for key, _ in spend:
                await self._limiter.spend(key, self._holder)


class LoginGuard:
    """Creates attempts."""

    def __init__(self, limiter: Limiter, limits: LoginLimits) -> None:
        self._limiter = limiter
        self._limits = limits

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[Attempt]:
        """Yields an attempt, which succeeds if the body does.

        If the body raises Overloaded, DependencyUnavailable or TimeLimitExceeded, the attempt does not count.
        If the caller cancels the call or the call's deadline passes, the outcome may be unknown, so the attempt counts as failed and as successful.
        """
        attempt = Attempt(self._limiter, self._limits)
        try:
            yield attempt
        except (Overloaded, DependencyUnavailable, TimeLimitExceeded):
            await attempt.undone()
            raise
        except asyncio.CancelledError:
            await run_to_completion(attempt.abandoned())
            raise
        except Exception:
            await attempt.failed()
            raise
        await attempt.succeeded()


def network_of(address: str) -> str:
    """Returns what counts as one address: the /64 network of an IPv6 address, the IPv4 address of a mapped one, any other text unchanged."""
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(address)
        if ip.version == 6:
            return str(ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_PREFIX_BITS), strict=False))
    return address


def hashed(text: str) -> str:
    """Returns the hash of a key, because Redis must hold no readable emails and addresses."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
