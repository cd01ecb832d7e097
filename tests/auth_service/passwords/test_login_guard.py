"""The limits of failed attempts: what counts, what is given back, and what has a bucket of its own.

The buckets are in memory. Those in Redis have their own tests.
"""

import asyncio
from uuid import uuid4

import pytest

from auth_service.passwords.errors import TooManyAttempts
from auth_service.passwords.login_guard import LoginGuard, LoginLimits
from auth_service.sessions.errors import InvalidCredentials
from servicekit.access.rate_limit import Limit, LocalBuckets
from servicekit.errors import DependencyUnavailable, Overloaded, TimeLimitExceeded

ACCOUNT, ADDRESS = Limit(burst=2, interval_seconds=60), Limit(burst=5, interval_seconds=10)
HOME, ELSEWHERE = "203.0.113.7", "198.51.100.1"


class Limiter:
    """Buckets in memory, with a clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.buckets = LocalBuckets(1000, lambda: self.now)
        self.keys: set[str] = set()

    async def take(self, key: str, limit: Limit) -> float:
        self.keys.add(key)
        return self.buckets.take(key, limit)

    async def give_back(self, key: str, limit: Limit) -> None:
        self.buckets.give_back(key, limit)


class Guarded:
    """A guard, and a method that makes attempts."""

    def __init__(self) -> None:
        self.limiter = Limiter()
        self.guard = LoginGuard(self.limiter, LoginLimits(per_account=ACCOUNT, per_address=ADDRESS))

    async def attempt(self, address: str, account: str, *, known: bool = False, ends: type[BaseException] | None = InvalidCredentials) -> bool:
        """Makes an attempt, which raises `ends` if the guard accepts it. Returns whether the guard accepted it."""
        try:
            async with self.guard.attempt() as attempt:
                await attempt.on_login(account, address, known=known)
                if ends is DependencyUnavailable:
                    raise DependencyUnavailable("PostgreSQL")
                if ends is not None:
                    raise ends
        except TooManyAttempts as error:
            return error.retry_after_seconds <= 0
        except (InvalidCredentials, Overloaded, DependencyUnavailable, TimeLimitExceeded, asyncio.CancelledError):
            pass
        return True


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


async def test_an_account_is_limited_from_all_addresses_together(guarded: Guarded) -> None:
    assert [await guarded.attempt(f"198.51.100.{i}", "ada") for i in range(4)] == [True, True, False, False]
    assert await guarded.attempt(HOME, "bob")
    guarded.limiter.now += 60
    assert [await guarded.attempt(f"192.0.2.{i}", "ada") for i in range(2)] == [True, False]


async def test_an_address_is_limited_over_all_accounts(guarded: Guarded) -> None:
    assert [await guarded.attempt(HOME, f"user {i}") for i in range(7)] == [True] * 5 + [False] * 2
    assert await guarded.attempt(ELSEWHERE, "user 0")
    guarded.limiter.now += 10
    assert [await guarded.attempt(HOME, f"other {i}") for i in range(2)] == [True, False]


async def test_strangers_do_not_lock_out_whom_the_account_knows(guarded: Guarded) -> None:
    for i in range(4):
        await guarded.attempt(f"198.51.100.{i}", "ada")
    assert not await guarded.attempt(ELSEWHERE, "ada")
    assert await guarded.attempt(HOME, "ada", known=True, ends=None)
    # The known address has a limit of its own.
    assert [await guarded.attempt(HOME, "ada", known=True) for _ in range(3)] == [True, True, False]
    assert await guarded.attempt("203.0.113.8", "ada", known=True)


async def test_what_others_do_at_the_owners_address_does_not_lock_the_owner_out(guarded: Guarded) -> None:
    for i in range(6):
        await guarded.attempt(HOME, f"user {i}")
    assert not await guarded.attempt(HOME, "bob")
    assert await guarded.attempt(HOME, "ada", known=True, ends=None)


async def test_who_logs_in_as_a_users_id_takes_no_confirmation_from_the_user(guarded: Guarded) -> None:
    user_id = uuid4()
    for i in range(4):
        await guarded.attempt(f"198.51.100.{i}", str(user_id))
    async with guarded.guard.attempt() as attempt:
        await attempt.on_confirmation(user_id)


async def test_what_is_kept_counts_although_it_succeeds(guarded: Guarded) -> None:
    async def register() -> None:
        async with guarded.guard.attempt() as attempt:
            await attempt.from_address(HOME)
            attempt.keep()

    for _ in range(5):
        await register()
    with pytest.raises(TooManyAttempts):
        await register()


async def test_all_addresses_of_an_ipv6_network_are_one(guarded: Guarded) -> None:
    attempts = [await guarded.attempt(f"2001:db8:1:2:{i:x}::{i:x}", f"user {i}") for i in range(6)]
    assert attempts == [True] * 5 + [False]
    assert await guarded.attempt("2001:db8:1:3::1", "user")


async def test_an_ipv4_address_is_the_same_in_ipv6(guarded: Guarded) -> None:
    for i in range(5):
        await guarded.attempt(f"::ffff:{HOME}", f"user {i}")
    assert not await guarded.attempt(HOME, "user")
    assert await guarded.attempt(f"::ffff:{ELSEWHERE}", "user")


@pytest.mark.parametrize("address", ["", "unix", "fe80::1%eth0", "not an address"])
async def test_what_is_no_address_counts_as_it_is(guarded: Guarded, address: str) -> None:
    assert [await guarded.attempt(address, f"user {i}") for i in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize("ends", [None, Overloaded, DependencyUnavailable, TimeLimitExceeded])
async def test_what_succeeds_or_fails_by_our_fault_is_given_back(guarded: Guarded, ends: type[BaseException] | None) -> None:
    assert all([await guarded.attempt(HOME, "ada", ends=ends) for _ in range(20)])
    assert len(guarded.limiter.buckets) == 0


@pytest.mark.parametrize("ends", [InvalidCredentials, asyncio.CancelledError])
async def test_what_fails_otherwise_counts(guarded: Guarded, ends: type[BaseException]) -> None:
    """Includes a caller that cancels the call as soon as the answer takes longer than that of a successful login."""
    assert [await guarded.attempt(HOME, "ada", ends=ends) for _ in range(3)] == [True, True, False]


async def test_an_attempt_that_the_account_refuses_counts_for_the_address(guarded: Guarded) -> None:
    for _ in range(5):
        await guarded.attempt(HOME, "ada")
    assert not await guarded.attempt(HOME, "bob")


async def test_redis_is_told_neither_addresses_nor_accounts(guarded: Guarded) -> None:
    await guarded.attempt(HOME, "ada@example.com", known=True)
    await guarded.attempt("2001:db8::1", "ada@example.com")
    keys = " ".join(guarded.limiter.keys)
    assert not any(text in keys for text in ("ada", "example", HOME, "2001", "db8"))
