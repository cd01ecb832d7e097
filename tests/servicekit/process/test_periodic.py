"""When rounds of work start, and that only `close` ends them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit import deadline
from servicekit.errors import DependencyUnavailable
from servicekit.process.periodic import Periodic, measure
from tests.support.waiting import eventually

# Longer than any test runs.
NEVER_SECONDS = 1000.0
SOON_SECONDS = 0.01
# Long enough that a round that must not start would have started.
A_WHILE_SECONDS = 0.1

PeriodicFactory: TypeAlias = Callable[..., Awaitable[Periodic]]


class Work:
    """Counts its rounds. A round ends only when the gate is open."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.cancelled = 0
        self.most_at_once = 0
        self.errors: Iterator[Exception | None] = iter(())
        self.gate = asyncio.Event()
        self.gate.set()
        self._under_way = 0

    async def __call__(self) -> None:
        self.begun += 1
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            await asyncio.sleep(0.001)
            await self.gate.wait()
            error = next(self.errors, None)
            if error is not None:
                raise error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._under_way -= 1
            self.ended += 1

    async def has_begun(self, rounds: int) -> None:
        async def check() -> None:
            assert self.begun >= rounds

        await eventually(check, within=5, every=0.005)

    async def has_ended(self, rounds: int) -> None:
        async def check() -> None:
            assert self.ended >= rounds

        await eventually(check, within=5, every=0.005)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def started(work: Work) -> AsyncIterator[PeriodicFactory]:
    """Starts periodic work, and closes it after the test."""
    made: list[Periodic] = []

    async def start(does: Callable[[], Awaitable[object]] = work, **seconds: float) -> Periodic:
        made.append(Periodic("test", does, **{"interval_seconds": NEVER_SECONDS, **seconds}))
        await made[-1].start()
        return made[-1]

    yield start
    for periodic in made:
        await periodic.close()


async def test_it_begins_at_once_and_goes_on(started: PeriodicFactory, work: Work) -> None:
    await started(interval_seconds=SOON_SECONDS)
    await work.has_ended(3)


async def test_starting_does_not_wait_for_the_first_round(started: PeriodicFactory, work: Work) -> None:
    work.gate.clear()
    await started()
    await work.has_begun(1)
    assert work.ended == 0


async def test_between_rounds_is_the_interval(started: PeriodicFactory, work: Work) -> None:
    await started()
    await work.has_ended(1)
    await asyncio.sleep(A_WHILE_SECONDS)
    assert work.begun == 1


async def test_a_wake_ends_the_pause(started: PeriodicFactory, work: Work) -> None:
    periodic = await started()
    for rounds in range(1, 5):
        await work.has_ended(rounds)
        periodic.wake()
    await work.has_ended(5)


async def test_wakes_during_a_round_are_one_round_after_it(started: PeriodicFactory, work: Work) -> None:
    work.gate.clear()
    periodic = await started()
    await work.has_begun(1)
    for _ in range(5):
        periodic.wake()
    work.gate.set()
    await work.has_ended(2)
    await asyncio.sleep(A_WHILE_SECONDS)
    assert work.begun == 2


async def test_a_wake_by_the_round_itself_is_not_lost(started: PeriodicFactory, work: Work) -> None:
    async def more() -> None:
        await work()
        if work.ended < 3:
            periodic.wake()

    periodic = await started(more)
    await work.has_ended(3)
    await asyncio.sleep(A_WHILE_SECONDS)
    assert work.begun == 3


async def test_rounds_never_overlap(started: PeriodicFactory, work: Work) -> None:
    periodic = await started(interval_seconds=0.0)
    while work.ended < 20:
        periodic.wake()
        await asyncio.sleep(0)
    assert work.most_at_once == 1


async def test_a_round_that_failed_is_tried_again(started: PeriodicFactory, work: Work) -> None:
    work.errors = iter([OSError(), ZeroDivisionError(), DependencyUnavailable("postgres")])
    await started(retry_seconds=SOON_SECONDS)
    await work.has_ended(4)
    await asyncio.sleep(A_WHILE_SECONDS)
    assert work.begun == 4


async def test_unless_told_otherwise_it_is_tried_again_after_the_interval(started: PeriodicFactory, work: Work) -> None:
    work.errors = iter([OSError()])
    periodic = await started()
    await work.has_ended(1)
    await asyncio.sleep(A_WHILE_SECONDS)
    assert work.begun == 1
    periodic.wake()
    await work.has_ended(2)


async def test_work_that_fails_before_it_can_be_awaited_is_tried_again(started: PeriodicFactory, work: Work) -> None:
    def wrong() -> Awaitable[None]:
        if work.begun == 0:
            work.begun += 1
            raise ZeroDivisionError
        return work()

    await started(wrong, retry_seconds=SOON_SECONDS)
    await work.has_ended(1)


async def test_only_changes_are_logged(started: PeriodicFactory, work: Work) -> None:
    away, wrong = DependencyUnavailable("postgres"), ZeroDivisionError()
    work.errors = iter([away, away, wrong, wrong, away, None, None, away])
    with capture_logs() as logs:
        await started(interval_seconds=SOON_SECONDS)
        await work.has_ended(10)
    assert [_essence(line) for line in logs] == [
        ("periodic_failed", "test", "warning", "DependencyUnavailable", False),
        ("periodic_failed", "test", "error", "ZeroDivisionError", True),
        ("periodic_failed", "test", "warning", "DependencyUnavailable", False),
        ("periodic_recovered", "test", "info", None, False),
        ("periodic_failed", "test", "warning", "DependencyUnavailable", False),
        ("periodic_recovered", "test", "info", None, False),
    ]


def _essence(line: Any) -> tuple[Any, ...]:
    return (line["event"], line["name"], line["log_level"], line.get("error"), bool(line.get("exc_info")))


async def test_closing_cancels_the_round_and_waits_for_its_end(started: PeriodicFactory, work: Work) -> None:
    work.gate.clear()
    before = asyncio.all_tasks()
    with capture_logs() as logs:
        periodic = await started()
        await work.has_begun(1)
        await periodic.close()
    assert (work.ended, work.cancelled) == (1, 1)
    assert asyncio.all_tasks() == before
    assert logs == []


async def test_closing_ends_the_pause_and_nothing_begins_after(started: PeriodicFactory, work: Work) -> None:
    periodic = await started()
    await work.has_ended(1)
    await periodic.close()
    periodic.wake()
    await asyncio.sleep(A_WHILE_SECONDS)
    assert work.begun == 1


async def test_work_that_swallows_its_cancellation_is_ended_all_the_same(started: PeriodicFactory, work: Work) -> None:
    async def stubborn() -> None:
        try:
            await work()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    work.gate.clear()
    periodic = await started(stubborn)
    await work.has_begun(1)
    async with asyncio.timeout(5):
        await periodic.close()
    assert work.begun == 1


async def test_what_was_never_started_can_be_closed(work: Work) -> None:
    await Periodic("test", work, interval_seconds=NEVER_SECONDS).close()
    assert work.begun == 0


async def test_no_calls_deadline_is_inherited(started: PeriodicFactory, work: Work) -> None:
    bounds: list[float] = []

    async def look() -> None:
        bounds.append(deadline.bound(NEVER_SECONDS))
        await work()

    async def call() -> float:
        deadline.begin(50.0)
        await started(look)
        await work.has_ended(1)
        return deadline.bound(NEVER_SECONDS)

    assert await asyncio.create_task(call()) <= 50.0
    assert bounds == [NEVER_SECONDS]


async def test_the_time_since_the_last_success_is_measured(started: PeriodicFactory, work: Work) -> None:
    """The age of failing work grows. Before the first round, the age counts from the creation of the object."""
    work.errors = iter([None, *[DependencyUnavailable("postgres")] * 1000])
    registry = CollectorRegistry()
    failing, idle = await started(interval_seconds=SOON_SECONDS), Periodic("idle", work, interval_seconds=NEVER_SECONDS)
    measure([failing, idle], registry)

    def age(name: str) -> float:
        return registry.get_sample_value("periodic_success_age_seconds", {"work": name}) or 0

    await work.has_ended(1)
    assert age("test") < 10
    before, rounds = age("test"), work.ended
    await work.has_ended(rounds + 5)
    assert age("test") > before + 3 * SOON_SECONDS
    # The younger one is read first, because time passes in between.
    assert age("test") <= age("idle")
