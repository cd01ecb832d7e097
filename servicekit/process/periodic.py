"""A piece of work done again and again in the background, and at once when somebody asks for it. Decides when, never what."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog
from prometheus_client import CollectorRegistry, Gauge

from servicekit import deadline
from servicekit.errors import ServiceError

log = structlog.get_logger()


class Periodic:
    """A Resource. Contract: rounds never overlap, and a round that fails is logged and tried again.

    Between the end of a round and the next are `interval_seconds`, or `retry_seconds` (the interval if None) after a failure. A failure is logged
    when it is another than the one before, and so is the recovery.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[object]], *, interval_seconds: float, retry_seconds: float | None = None) -> None:
        """`name` is for the log and the metrics."""
        self.name = name
        self._work = work
        self._interval_seconds = interval_seconds
        self._retry_seconds = interval_seconds if retry_seconds is None else retry_seconds
        self._woken = asyncio.Event()
        self._failure: type[Exception] | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._succeeded_at = time.monotonic()

    def age_seconds(self) -> float:
        """The time since a round last succeeded; before the first one, since this was made."""
        return time.monotonic() - self._succeeded_at

    async def start(self) -> None:
        """Begins the first round at once, and does not wait for it."""
        self._running = asyncio.create_task(self._run(), name=f"periodic {self.name}")

    async def close(self) -> None:
        """Cancels the round under way and waits until it has ended. No other begins."""
        self._closed = True
        # Work may swallow the cancellation (Python 3.11's wait_for does now and then): the pause that follows must end at once all the same.
        self.wake()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def wake(self) -> None:
        """Has the next round begin at once, or right after the one under way. Waking it many times before that is as good as once."""
        self._woken.set()

    async def _run(self) -> None:
        deadline.clear()
        while not self._closed:
            # Before the round: what is said during it may come too late for it.
            self._woken.clear()
            await self._round()
            await self._pause(self._interval_seconds if self._failure is None else self._retry_seconds)

    async def _round(self) -> None:
        try:
            await self._work()
        except ServiceError as error:
            if self._differs(error):
                log.warning("periodic_failed", name=self.name, error=type(error).__name__)
        except Exception as error:
            if self._differs(error):
                log.exception("periodic_failed", name=self.name, error=type(error).__name__)
        else:
            if self._failure is not None:
                log.info("periodic_recovered", name=self.name)
            self._failure = None
            self._succeeded_at = time.monotonic()

    def _differs(self, error: Exception) -> bool:
        before, self._failure = self._failure, type(error)
        return self._failure is not before

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()


def measure(works: Iterable[Periodic], registry: CollectorRegistry) -> None:
    """One metric for all works of a process."""
    age = Gauge("periodic_success_age_seconds", "Time since a round of this work succeeded.", ["work"], registry=registry)
    for work in works:
        age.labels(work.name).set_function(work.age_seconds)
