"""The bytes of large requests: a limit for each user and one for all, and every byte is given back."""

import asyncio
from uuid import UUID

import pytest

from servicekit.errors import Overloaded
from servicekit.rpc.budget import ByteBudget

ADA, BOB, EVE = (UUID(int=number) for number in (1, 2, 3))


def test_a_user_and_all_users_have_a_limit() -> None:
    budget = ByteBudget(user_bytes=10, process_bytes=15)
    budget.take(ADA, 6)
    with pytest.raises(Overloaded) as refused:
        budget.take(ADA, 5)
    assert refused.value.retry_after_seconds == 1.0
    budget.take(BOB, 9)
    with pytest.raises(Overloaded):
        budget.take(EVE, 1)
    budget.give_back(ADA, 6)
    budget.take(EVE, 6)
    budget.give_back(EVE, 6)
    budget.give_back(BOB, 9)
    assert not budget._taken
    assert budget._taken_by_all == 0


def test_one_request_is_never_too_large() -> None:
    budget = ByteBudget(user_bytes=10, process_bytes=15)
    budget.take(None, 100)
    with pytest.raises(Overloaded):
        budget.take(None, 1)


async def test_every_byte_is_given_back_whatever_happens() -> None:
    budget = ByteBudget()
    budget.take(ADA, 1)

    async def fail() -> None:
        budget.take(ADA, 5)
        try:
            await asyncio.sleep(10)
        finally:
            budget.give_back(ADA, 5)

    calls = [asyncio.create_task(fail()) for _ in range(3)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert budget._taken == {ADA: 1}
