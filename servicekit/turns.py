"""Turns: how many calls of one user, and of all users, may do the same expensive work at once, in this process. Any value can name a user."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class Line:
    """The calls of one user: those that have a turn, and those that wait for one."""

    turns: asyncio.Semaphore
    calls: int = 0


class Turn:
    """A turn that has begun."""

    __slots__ = ("_at_end", "_timer")

    def __init__(self, at_end: Callable[[], None], seconds: float | None) -> None:
        self._at_end: Callable[[], None] | None = at_end
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        """Gives the turn to the next call. Does nothing if it has ended."""
        at_end, self._at_end = self._at_end, None
        if at_end is not None:
            if self._timer is not None:
                self._timer.cancel()
            at_end()


class Turns:
    """Gives at most `at_once` turns at a time to each user, and at most `of_all` to all of them together. None means no limit.

    Calls of the same user get their turns in the order of their arrival. For the turns of all, at most `at_once` calls of each user wait, so no user
    waits behind many calls of another. If `seconds` is given, a turn lasts at most so long: then the next call gets it, although the work goes on.
    """

    def __init__(self, at_once: int, of_all: int | None, *, seconds: float | None = None) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._of_all = None if of_all is None else asyncio.Semaphore(of_all)
        self._lines: dict[Hashable, Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, user: Hashable) -> AsyncIterator[None]:
        """Waits for a turn, which lasts as long as the block. A call that waits ends at its deadline like any other: the pipeline cancels it."""
        turn = await self.begin(user)
        try:
            yield
        finally:
            turn.end()

    async def begin(self, user: Hashable) -> Turn:
        """Waits for a turn, which the caller must end."""
        line = self._lines.get(user)
        if line is None:
            line = self._lines[user] = Line(asyncio.Semaphore(self._at_once))
        line.calls += 1
        try:
            await line.turns.acquire()
            try:
                if self._of_all is not None:
                    await self._of_all.acquire()
            except BaseException:
                line.turns.release()
                raise
        except BaseException:
            self._leave(user, line)
            raise

        def end() -> None:
            line.turns.release()
            if self._of_all is not None:
                self._of_all.release()
            self._leave(user, line)

        return Turn(end, self._seconds)

    def _leave(self, user: Hashable, line: Line) -> None:
        line.calls -= 1
        if line.calls == 0:
            del self._lines[user]

    def __len__(self) -> int:
        """The number of users with a turn."""
        return len(self._lines)
