"""Turns: how many calls of one user, and of all users, may do the same expensive work at once, in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID


@dataclass(slots=True)
class Line:
    """The calls of one user: those that have a turn, and those that wait for one."""

    turns: asyncio.Semaphore
    calls: int = 0


class Turns:
    """Gives at most `at_once` turns at a time to each user, and at most `of_all` to all of them together.

    Calls of the same user get their turns in the order of their arrival. For the turns of all, at most `at_once` calls of each user wait, so no user
    waits behind many calls of another.
    """

    def __init__(self, at_once: int, of_all: int) -> None:
        self._at_once = at_once
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
            async with line.turns, self._of_all:
                yield
        finally:
            line.calls -= 1
            if line.calls == 0:
                del self._lines[user_id]

    def __len__(self) -> int:
        """The number of users with a turn."""
        return len(self._lines)
