"""Runs a piece of work in the background, periodically and on request. Decides when the work runs, never what it does."""

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
    """A Resource. Contract: rounds never overlap, and a failed round is logged and tried again.

    The next round starts `interval_seconds` after the end of a round, or `retry_seconds` (if None, the interval) after the end of a failed one. A
    failure is logged if its type differs from that of the round before. A recovery is logged too.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[object]], *, interval_seconds: float, retry_seconds: float | None = None) -> None:
        """`name` identifies the work in the log and the metrics."""
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
        """Returns the time since the last successful round; before the first one, the time since this object was created."""
        return time.monotonic() - self._succeeded_at

    async def start(self) -> None:
        """Starts the first round at once and does not wait for it."""
        self._running = asyncio.create_task(self._run(), name=f"periodic {self.name}")

    async def close(self) -> None:
        """Cancels the running round and waits until it has ended. No other round starts."""
        self._closed = True
        # Work may swallow the cancellation (Python 3.11's wait_for sometimes does). Then the pause that follows must still end at once.
        self.wake()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def wake(self) -> None:
        """Starts the next round at once, or right after the running one. Several calls before that round have the effect of one."""
        self._woken.set()

    async def _run(self) -> None:
        deadline.clear()
        while not self._closed:
            # Before the round, because a wake-up during the round may come too late for it and must start another one.
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
    """Registers one metric for all periodic work of a process."""
    age = Gauge("periodic_success_age_seconds", "Time since the last successful round of this work.", ["work"], registry=registry)
    for work in works:
        age.labels(work.name).set_function(work.age_seconds)
