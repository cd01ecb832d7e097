"""Time limits of calls, beside asyncio.timeout, which does the same with a timer of its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from servicekit.errors import DeadlineExceeded, SlowReader
from servicekit.rpc.time_limits import CLEAN_ENTRIES, TimeLimits

WITHIN_SECONDS = 5.0


async def forever() -> None:
    await asyncio.Event().wait()


async def limited(limits: TimeLimits, seconds: float | None, work: Callable[[], Awaitable[object]] = forever) -> str:
    """Runs `work` within the limit. Returns how it ended."""
    try:
        with limits.at_most(seconds, DeadlineExceeded):
            await work()
    except DeadlineExceeded:
        return "expired"
    return "returned"


async def test_each_call_ends_at_its_own_limit() -> None:
    limits = TimeLimits()
    began = time.monotonic()
    ended: dict[float, float] = {}

    async def call(seconds: float) -> str:
        outcome = await limited(limits, seconds)
        ended[seconds] = time.monotonic() - began
        return outcome

    # Not in the order of the limits, so that a later call moves the timer.
    given = (0.3, 0.1, 0.2, 0.1)
    async with asyncio.timeout(WITHIN_SECONDS):
        assert await asyncio.gather(*map(call, given)) == ["expired"] * 4
    assert list(ended) == sorted(set(given))
    # uvloop's timers fire up to 1 ms early.
    assert all(seconds - 0.002 <= took for seconds, took in ended.items())


async def test_a_call_that_returns_is_not_cancelled_later() -> None:
    limits = TimeLimits()
    assert await limited(limits, 0.05, lambda: asyncio.sleep(0)) == "returned"
    await asyncio.sleep(0.1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_without_seconds_there_is_no_limit() -> None:
    assert await limited(TimeLimits(), None, lambda: asyncio.sleep(0.01)) == "returned"


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_left_ends_a_call_at_its_first_wait(seconds: float) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        assert await limited(TimeLimits(), seconds) == "expired"


async def test_a_cancellation_from_elsewhere_is_not_the_limits() -> None:
    call = asyncio.create_task(limited(TimeLimits(), 1000.0))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_cancellation_from_elsewhere_wins_over_the_limit() -> None:
    started = asyncio.Event()

    async def stubborn() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            # The limit has cancelled the call. Now somebody else cancels it too.
            asyncio.get_running_loop().call_soon(call.cancel)
            await asyncio.sleep(10)

    call = asyncio.create_task(limited(TimeLimits(), 0.01, stubborn))
    async with asyncio.timeout(WITHIN_SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_an_error_of_the_work_stays_when_the_time_has_come() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await limited(TimeLimits(), 0.01, fails)


async def test_a_timeout_of_the_work_passes() -> None:
    async def times_out() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await limited(TimeLimits(), 10.0, times_out)


@pytest.mark.parametrize(("inner", "outer", "expected"), [(0.01, 10.0, SlowReader), (10.0, 0.01, DeadlineExceeded)])
async def test_the_shorter_of_two_nested_limits_ends_the_work(inner: float, outer: float, expected: type[Exception]) -> None:
    limits = TimeLimits()
    async with asyncio.timeout(WITHIN_SECONDS):
        with pytest.raises(expected), limits.at_most(outer, DeadlineExceeded), limits.at_most(inner, SlowReader):
            await asyncio.Event().wait()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0001, 0.001, 0.01])
def test_it_works_on_the_loop_that_the_services_use(seconds: float) -> None:
    """uvloop runs a timer without delay in another way, and others up to 1 ms early."""

    async def calls() -> list[str]:
        limits = TimeLimits()
        return await asyncio.gather(*(limited(limits, seconds) for _ in range(20)), *(limited(limits, seconds * 2) for _ in range(20)))

    assert uvloop.run(asyncio.wait_for(calls(), WITHIN_SECONDS)) == ["expired"] * 40


async def test_ended_limits_do_not_pile_up_and_the_running_ones_stay() -> None:
    limits = TimeLimits()
    running = asyncio.create_task(limited(limits, 0.5))
    await asyncio.sleep(0)
    for _ in range(CLEAN_ENTRIES * 5):
        with limits.at_most(1000.0, DeadlineExceeded):
            pass
    assert len(limits._entries) <= CLEAN_ENTRIES + 1
    async with asyncio.timeout(WITHIN_SECONDS):
        assert await running == "expired"
