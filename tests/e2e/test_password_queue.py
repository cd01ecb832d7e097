"""A replica hashes few passwords at once, and few more may wait. It turns further ones away at once, and these do not count as attempts."""

import asyncio
import itertools
import time
from collections import Counter

import grpc.aio
import pytest

from devstack.stack import Stack
from tests.support.accounts import Account, log_in_rpc
from tests.support.errors import of_rpc, retry_delay
from tests.support.replica import Replica, replica_of
from tests.support.waiting import eventually

ACCOUNT_BURST = 3
# A replica that hashes one password at a time, slowly, with a queue of two.
HASHING = {
    "HASHING_THREADS": "1",
    "HASHING_QUEUE": "2",
    "BCRYPT_COST": "12",
    "TRUSTED_HOPS": "1",
    "LOGIN_ACCOUNT_BURST": str(ACCOUNT_BURST),
    "LOGIN_ACCOUNT_INTERVAL_SECONDS": "5",
    "LOGIN_ADDRESS_BURST": "6",
    "LOGIN_ADDRESS_INTERVAL_SECONDS": "600",
}
HASHING_BOUND = 3
AT_ONCE = 12
AT_ONCE_SECONDS = 1.0
WRONG = "wrong horse battery"

_ADDRESSES = (f"198.51.100.{low}" for low in range(1, 255))
_NUMBERS = itertools.count()


@pytest.mark.alone("measures how soon an overloaded replica answers")
async def test_more_passwords_than_can_wait_are_turned_away_at_once(breakable: Stack, breakable_account: Account) -> None:
    email = breakable_account.email
    async with replica_of(breakable, "auth-slow", settings=HASHING) as own, grpc.aio.insecure_channel(own.target) as channel:

        async def attempt(email: str) -> tuple[str, float, float]:
            began = time.monotonic()
            try:
                await log_in_rpc(channel, email, WRONG, ("x-envoy-external-address", next(_ADDRESSES)))
            except grpc.aio.AioRpcError as error:
                overloaded = of_rpc(error).reason == "OVERLOADED"
                return of_rpc(error).reason, time.monotonic() - began, retry_delay(error) if overloaded else 0
            raise AssertionError("the service accepted a wrong password")

        answers = await asyncio.gather(*(attempt(f"nobody-{next(_NUMBERS)}@example.com") for _ in range(AT_ONCE)))
        reasons = Counter(reason for reason, _, _ in answers)
        assert reasons.keys() == {"INVALID_CREDENTIALS", "OVERLOADED"}
        assert reasons["INVALID_CREDENTIALS"] >= HASHING_BOUND
        turned_away = [(seconds, delay) for reason, seconds, delay in answers if reason == "OVERLOADED"]
        assert max(seconds for seconds, _ in turned_away) < AT_ONCE_SECONDS
        assert all(delay > 0 for _, delay in turned_away)
        # A call rejected for overload does not count as an attempt.
        slow = [asyncio.create_task(attempt(f"nobody-{next(_NUMBERS)}@example.com")) for _ in range(HASHING_BOUND)]
        await eventually(lambda: _require_full(own), within=AT_ONCE_SECONDS, every=0.01)
        answers = [await attempt(email) for _ in range(2 * ACCOUNT_BURST)]
        assert {reason for reason, _, _ in answers} == {"OVERLOADED"}
        await asyncio.gather(*slow)
        assert (await attempt(email))[0] == "INVALID_CREDENTIALS"


async def _require_full(replica: Replica) -> None:
    """Fails unless the replica's hashing threads and queue are full."""
    assert await replica.metric("password_hashes_under_way") == HASHING_BOUND
