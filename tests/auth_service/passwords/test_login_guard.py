"""The limits of failed attempts: what counts, what is given back, and what has a bucket of its own.

The buckets are in memory. Those in Redis have their own tests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from auth_service.passwords.errors import AttemptsUnderWay, TooManyAttempts, TooManyRegistrations
from auth_service.passwords.login_guard import Attempt, LoginGuard, LoginLimits
from auth_service.sessions.errors import InvalidCredentials
from auth_service.users.errors import EmailTaken
from servicekit import deadline
from servicekit.access.rate_limit import Limit, LocalBuckets, Wait
from servicekit.errors import DependencyUnavailable, Overloaded, TimeLimitExceeded

ACCOUNT, ADDRESS, REGISTRATIONS = Limit(burst=2, interval_seconds=60), Limit(burst=5, interval_seconds=10), Limit(burst=3, interval_seconds=30)
HOME, ELSEWHERE = "203.0.113.7", "198.51.100.1"


class Limiter:
    """Buckets in memory, with a clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.buckets = LocalBuckets(1000, lambda: self.now)
        self.keys: set[str] = set()

    async def take(self, key: str, limit: Limit, holder: str) -> Wait:
        self.keys.add(key)
        return self.buckets.take(key, limit, holder)

    async def give_back(self, key: str, limit: Limit, holder: str) -> None:
        self.buckets.give_back(key, limit, holder)

    async def spend(self, key: str, holder: str) -> None:
        deadline.bound(1)
        self.buckets.spend(key, holder)


class Guarded:
    """A guard, and a method that makes attempts."""

    def __init__(self) -> None:
        self.limiter = Limiter()
        self.guard = LoginGuard(self.limiter, LoginLimits(ACCOUNT, ADDRESS, REGISTRATIONS))

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

    async def register(self, address: str, *, ends: type[Exception] | None = None) -> None:
        """Makes a registration, which raises `ends` if the guard accepts it."""
        async with self.guard.attempt() as attempt:
            await attempt.on_registration(address)
            if ends is DependencyUnavailable:
                raise DependencyUnavailable("PostgreSQL")
            if ends is not None:
                raise ends


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


async def test_registrations_and_failed_attempts_have_limits_of_their_own(guarded: Guarded) -> None:
    for _ in range(3):
        await guarded.register(HOME)
    with pytest.raises(TooManyRegistrations) as limited:
        await guarded.register(HOME)
    assert (limited.value.reason, limited.value.retry_after_seconds) == ("TOO_MANY_REGISTRATIONS", 30)
    await guarded.register(ELSEWHERE)
    # No registration has failed, so all attempts to log in are left.
    assert [await guarded.attempt(HOME, f"user {i}") for i in range(6)] == [True] * 5 + [False]
    guarded.limiter.now += 30
    # Now the failed attempts are too many. A registration that they prevent is none.
    for _ in range(3):
        await guarded.attempt(HOME, "user")
    with pytest.raises(TooManyAttempts):
        await guarded.register(HOME)
    guarded.limiter.now += 10
    await guarded.register(HOME)
    with pytest.raises(TooManyRegistrations):
        await guarded.register(HOME)


async def test_an_email_that_is_taken_is_a_failed_attempt_and_no_registration(guarded: Guarded) -> None:
    for _ in range(5):
        with pytest.raises(EmailTaken):
            await guarded.register(HOME, ends=EmailTaken)
    assert not await guarded.attempt(HOME, "user")
    with pytest.raises(TooManyAttempts):
        await guarded.register(HOME)
    guarded.limiter.now += 10
    await guarded.register(HOME)


@pytest.mark.parametrize("ends", [Overloaded, DependencyUnavailable])
async def test_a_registration_that_fails_by_our_fault_does_not_count(guarded: Guarded, ends: type[Exception]) -> None:
    for _ in range(20):
        with pytest.raises(ends):
            await guarded.register(HOME, ends=ends)
    assert len(guarded.limiter.buckets) == 0


class UnderWay:
    """Attempts that have begun and not ended."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded
        self._end = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, number: int, act: Callable[[Attempt], Awaitable[None]], *, ends: type[Exception] | None = None) -> None:
        """Begins attempts, which raise `ends` when they end."""
        begun = asyncio.Semaphore(0)

        async def attempt() -> None:
            async with self._guarded.guard.attempt() as attempt:
                await act(attempt)
                begun.release()
                await self._end.wait()
                if ends is not None:
                    raise ends

        self._tasks += [asyncio.create_task(attempt()) for _ in range(number)]
        for _ in range(number):
            await begun.acquire()

    async def end(self) -> None:
        self._end.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)


USER = uuid4()
# What an attempt counts for, how many of them fit, and what limits them when they have failed, or have succeeded.
KINDS: list[tuple[Callable[[Attempt], Awaitable[None]], int]] = [
    (lambda attempt: attempt.on_login("ada", HOME, known=True), ACCOUNT.burst),
    (lambda attempt: attempt.on_login("ada", ELSEWHERE, known=False), ACCOUNT.burst),
    (lambda attempt: attempt.on_login(str(uuid4()), HOME, known=False), ADDRESS.burst),
    (lambda attempt: attempt.on_confirmation(USER), ACCOUNT.burst),
    (lambda attempt: attempt.on_registration(HOME), REGISTRATIONS.burst),
]


@pytest.mark.parametrize(("act", "fit"), KINDS, ids=["known address", "account", "address", "confirmation", "registration"])
async def test_what_is_under_way_has_not_failed(guarded: Guarded, act: Callable[[Attempt], Awaitable[None]], fit: int) -> None:
    under_way = UnderWay(guarded)
    await under_way.begin(fit, act)
    for _ in range(3):
        with pytest.raises(AttemptsUnderWay) as refused:
            async with guarded.guard.attempt() as attempt:
                await act(attempt)
        assert (refused.value.reason, refused.value.retry_after_seconds) == ("OVERLOADED", 1)
    await under_way.end()
    if act is not KINDS[-1][0]:
        # All have succeeded, and the refused ones have left nothing.
        assert len(guarded.limiter.buckets) == 0


@pytest.mark.parametrize("failing", [1, 2])
async def test_wrong_passwords_at_once_are_limited_as_one_after_the_other(guarded: Guarded, failing: int) -> None:
    under_way = UnderWay(guarded)
    await under_way.begin(failing, lambda attempt: attempt.on_login("ada", HOME, known=False), ends=InvalidCredentials)
    await under_way.begin(2 - failing, lambda attempt: attempt.on_login("ada", HOME, known=False))
    await under_way.end()
    assert [await guarded.attempt(HOME, "ada") for _ in range(2)] == [failing == 1, False]


async def test_the_wait_is_that_of_the_failed_attempts(guarded: Guarded) -> None:
    for i in range(4):
        await guarded.attempt(HOME, f"user {i}")
    under_way = UnderWay(guarded)
    await under_way.begin(1, lambda attempt: attempt.on_login("ada", HOME, known=False))
    with pytest.raises(AttemptsUnderWay):
        async with guarded.guard.attempt() as attempt:
            await attempt.on_login("bob", HOME, known=False)
    await under_way.end()
    assert await guarded.attempt(HOME, "user")
    with pytest.raises(TooManyAttempts) as limited:
        async with guarded.guard.attempt() as attempt:
            await attempt.on_login("bob", HOME, known=False)
    assert limited.value.retry_after_seconds == ADDRESS.interval_seconds


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


async def test_an_attempt_that_is_cancelled_after_its_deadline_counts_at_once(guarded: Guarded) -> None:
    async def attempt() -> None:
        deadline.begin(0)
        await guarded.attempt(HOME, "ada", ends=asyncio.CancelledError)

    for _ in range(2):
        await asyncio.create_task(attempt())
    with pytest.raises(TooManyAttempts):
        async with guarded.guard.attempt() as refused:
            await refused.on_login("ada", ELSEWHERE, known=False)


async def test_an_attempt_that_the_account_refuses_counts_for_the_address(guarded: Guarded) -> None:
    for _ in range(5):
        await guarded.attempt(HOME, "ada")
    assert not await guarded.attempt(HOME, "bob")


async def test_redis_is_told_neither_addresses_nor_accounts(guarded: Guarded) -> None:
    await guarded.attempt(HOME, "ada@example.com", known=True)
    await guarded.attempt("2001:db8::1", "ada@example.com")
    keys = " ".join(guarded.limiter.keys)
    assert not any(text in keys for text in ("ada", "example", HOME, "2001", "db8"))
