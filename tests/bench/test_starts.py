"""The schedule of an open loop, and the latencies that the load generator reports when a server stalls."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from itertools import takewhile

import pytest

from bench.jobs import Job, Request, Round
from bench.load import run
from bench.starts import AtRate, Immediately


def test_a_closed_loop_begins_a_call_whenever_a_caller_is_free() -> None:
    starts = Immediately()
    assert [starts.take(now) for now in (1.0, 1.0, 2.5)] == [1.0, 1.0, 2.5]


def test_calls_are_due_at_equal_intervals_and_not_before() -> None:
    starts = AtRate(rate=4, began=100.0, settle_seconds=0.5, seconds=1)
    assert starts.take(99.9) is None
    assert [starts.take(now) for now in (100.0, 100.0, 100.24, 100.25, 100.6)] == [100.0, None, None, 100.25, 100.5]


def test_a_late_call_keeps_its_intended_time() -> None:
    starts = AtRate(rate=4, began=100.0, settle_seconds=0, seconds=1)
    # No caller was free for a second: all four calls are due, and none later than the end of the schedule.
    assert list(takewhile(lambda start: start is not None, (starts.take(101.0) for _ in range(9)))) == [100.0, 100.25, 100.5, 100.75]


@pytest.mark.parametrize(("rate", "settle", "seconds", "total", "first"), [(100, 0.2, 1.0, 120, 20), (3, 0.5, 1.0, 5, 2), (0.5, 0, 3, 2, 0)])
def test_only_calls_after_the_settling_are_counted(rate: float, settle: float, seconds: float, total: int, first: int) -> None:
    starts = AtRate(rate, 7.0, settle, seconds)
    assert (starts.total, starts.first_counted) == (total, first)
    assert starts.at(first) >= 7.0 + settle
    assert starts.at(total) >= 7.0 + settle + seconds


def test_the_pace_wakes_once_for_each_call_when_it_is_due() -> None:
    starts, woken = AtRate(200, time.perf_counter(), 0.0, 0.1), []
    starts.pace(lambda: woken.append(time.perf_counter()))
    assert len(woken) == starts.total == 20
    assert all(at >= starts.at(number) for number, at in enumerate(woken))


@contextlib.asynccontextmanager
async def server(stall_seconds: float, *, first: int = 1) -> AsyncIterator[int]:
    """An HTTP server that answers at once, except that it stalls completely after `first` calls, for some time."""
    calls = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                calls += 1
                if calls == first:
                    stalled.set_result(None)
                    await asyncio.sleep(stall_seconds)
                    free.set()
                elif stalled.done():
                    await free.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    stalled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    free = asyncio.Event()
    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def measured(port: int, rate: float | None, seconds: float = 1.0) -> Round:
    return await run(Job("http", port, 2, 0.0, seconds, {}, {"user": "token"}, (Request("GET", "/", "user"),), rate))


async def test_an_open_loop_shows_a_stall_in_all_calls_that_should_have_run_meanwhile() -> None:
    async with server(stall_seconds=0.4, first=20) as port:
        result = await measured(port, rate=100)
    assert (len(result.latencies), result.failures, result.unanswered) == (100, 0, 0)
    # 40 calls should have begun during the stall of 0.4 s. They waited between 0 and 0.4 s, although only two callers could observe it.
    slow = sorted(latency for latency in result.latencies if latency > 50_000)
    # The bounds are wide, because other tests use the machine too.
    assert 30 <= len(slow) <= 70
    assert slow[-1] >= 350_000
    assert 100_000 < slow[len(slow) // 2] < 350_000


async def test_a_closed_loop_hides_the_same_stall() -> None:
    async with server(stall_seconds=0.4, first=20) as port:
        result = await measured(port, rate=None)
    assert 2 <= len([latency for latency in result.latencies if latency > 50_000]) < 10


async def test_calls_without_an_answer_count_with_the_time_that_they_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.DRAIN_SECONDS", 0.2)
    async with server(stall_seconds=30, first=11) as port:
        result = await measured(port, rate=100, seconds=0.5)
    assert result.unanswered == 40
    assert sorted(result.latencies)[-40:] == [200_000] * 40
