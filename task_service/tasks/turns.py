"""Turns: how many calls of one user, and of all users, may do the same expensive work at once, in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import UUID


@dataclass(slots=True)
class Line:
    """The calls of one user: those that have a turn, and those that wait for one."""

    turns: asyncio.Semaphore
    calls: int = 0


class _Turn:
    """A turn that has begun. Its end gives it to the next call, once."""

    def __init__(self, *semaphores: asyncio.Semaphore) -> None:
        self._semaphores = semaphores

    @contextlib.contextmanager
    def at_most(self, seconds: float | None) -> Iterator[None]:
        """Ends the turn at the end of the block, or after `seconds`."""
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._end)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self._end()

    def _end(self) -> None:
        for semaphore in self._semaphores:
            semaphore.release()
        self._semaphores = ()


class Turns:
    """Gives at most `at_once` turns at a time to each user, and at most `of_all` to all of them together.

    Calls of the same user get their turns in the order of their arrival. For the turns of all, at most `at_once` calls of each user wait, so no user
    waits behind many calls of another. If `seconds` is given, a turn lasts at most so long: then the next call gets it, although the block goes on.
    """

    def __init__(self, at_once: int, of_all: int, *, seconds: float | None = None) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._of_all = asyncio.Semaphore(of_all)
        self._lines: dict[UUID, Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, user_id: UUID) -> AsyncIterator[None]:
        """Waits for a turn, which lasts as long as the block. A call that waits ends at its deadline like any other: the pipeline cancels it."""
        line = self._lines.get(user_id)
        if line is None:
            line = self._lines[user_id] = Line(asyncio.Semaphore(self._at_once))
        line.calls += 1
        try:
            await line.turns.acquire()
            try:
                await self._of_all.acquire()
            except BaseException:
                line.turns.release()
                raise
            turn = _Turn(line.turns, self._of_all)
            with turn.at_most(self._seconds):
                yield
        finally:
            line.calls -= 1
            if line.calls == 0:
                del self._lines[user_id]

    def __len__(self) -> int:
        """The number of users with a turn."""
        return len(self._lines)
