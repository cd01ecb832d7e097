"""The remaining time of a call, as the code that waits reads it."""

import asyncio

import pytest

from servicekit import deadline
from servicekit.errors import DeadlineExceeded


async def test_outside_of_any_call_there_is_no_deadline() -> None:
    deadline.clear()
    assert deadline.bound(5.0) == 5.0


async def test_the_sooner_counts() -> None:
    deadline.begin(100.0)
    assert deadline.bound(50.0) == 50.0
    assert 50.0 < deadline.bound(1000.0) <= 100.0
    deadline.clear()


async def test_no_time_left_raises() -> None:
    deadline.begin(0.0)
    with pytest.raises(DeadlineExceeded):
        deadline.bound(5.0)
    deadline.clear()


async def test_calls_beside_one_another_have_their_own() -> None:
    async def call(seconds: float) -> float:
        deadline.begin(seconds)
        await asyncio.sleep(0.01)
        return deadline.bound(10_000.0)

    short, long = await asyncio.gather(asyncio.create_task(call(100.0)), asyncio.create_task(call(1000.0)))
    assert short < 100.0 < long
    assert deadline.bound(10_000.0) == 10_000.0
