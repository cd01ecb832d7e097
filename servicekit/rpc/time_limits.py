"""Time limits of calls: like asyncio.timeout, but one timer of the event loop serves all limits of a process.

Nearly every call ends long before its limit. A timer for each call would be set and cancelled for nothing. Here a limit is an entry in a heap. An
ended limit stays in the heap until its time comes, or until most entries have ended.
"""

import asyncio
from heapq import heapify, heappop, heappush
from typing import Any, Final

from servicekit.errors import ServiceError

# The heap is cleaned when it has more than this number of entries and more than half of them have ended.
CLEAN_ENTRIES: Final = 1024


class TimeLimits:
    """All limits of one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        # By time. The number makes entries with the same time comparable.
        self._entries: list[tuple[float, int, TimeLimit]] = []
        self._number = 0
        self._running = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = float("inf")

    def at_most(self, seconds: float | None, error: type[ServiceError]) -> "TimeLimit":
        """Returns a context for the current task. After `seconds` it cancels what runs inside of it and raises `error`. None means no limit."""
        return TimeLimit(self, seconds, error)

    def begin(self, limit: "TimeLimit", seconds: float) -> None:
        """Cancels the limit's task in `seconds`, unless it ends before."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        at = loop.time() + seconds
        self._number += 1
        self._running += 1
        heappush(self._entries, (at, self._number, limit))
        if at < self._timer_at:
            self._set_timer(loop)

    def end(self) -> None:
        """Counts a limit that has ended before its time."""
        self._running -= 1
        if len(self._entries) > CLEAN_ENTRIES and self._running < len(self._entries) // 2:
            self._entries = [entry for entry in self._entries if entry[2].runs]
            heapify(self._entries)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, float("inf")
        if self._entries:
            self._timer_at = self._entries[0][0]
            self._timer = loop.call_at(self._timer_at, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancels the tasks whose time has come, and sets the timer for the next one."""
        # uvloop's timers fire up to 1 ms early. The limit that the timer was set for ends now.
        now = max(loop.time(), self._timer_at)
        while self._entries and (self._entries[0][0] <= now or not self._entries[0][2].runs):
            limit = heappop(self._entries)[2]
            if limit.runs:
                self._running -= 1
                limit.expire()
        self._set_timer(loop)


class TimeLimit:
    """One limit: a context that is used once. A CancelledError or TimeoutError from elsewhere passes through it unchanged."""

    __slots__ = ("_cancellations", "_error", "_expired", "_limits", "_seconds", "_task")

    def __init__(self, limits: TimeLimits, seconds: float | None, error: type[ServiceError]) -> None:
        self._limits = limits
        self._seconds = seconds
        self._error = error
        self._expired = False
        self._task: asyncio.Task[Any] | None = None
        self._cancellations = 0

    @property
    def runs(self) -> bool:
        """Whether the task is inside of the context and the time has not come."""
        return self._task is not None and not self._expired

    def expire(self) -> None:
        """Cancels the task, because the time has come."""
        assert self._task is not None
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._cancellations = task.cancelling()
        self._limits.begin(self, self._seconds)

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: object) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        if not self._expired:
            self._limits.end()
        # More cancellations than before, without ours: somebody else has cancelled the task too.
        elif task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:
            raise self._error from raised
