"""Slots of a pool, which its users share fairly: when slots are scarce, the owners of the waiting work get them in turns.

Without turns, one user with a thousand calls would make every other user wait behind all of them.
"""

import asyncio
from collections import OrderedDict, deque
from uuid import UUID

from servicekit.identity import acting_user


class Slots:
    """A number of slots. The work of the user in `acting_user` waits in a line of that user's own; work without a user shares one line."""

    def __init__(self, count: int) -> None:
        self._free = count
        # By owner, in the order of their turns. A line in here is not empty, except for waiters that have just been cancelled.
        self._lines: OrderedDict[UUID | None, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self) -> None:
        """Takes a slot, at once if one is free."""
        if self._free > 0:
            self._free -= 1
            return
        owner = acting_user.get()
        waiting = asyncio.get_running_loop().create_future()
        self._lines.setdefault(owner, deque()).append(waiting)
        try:
            await waiting
        except BaseException:
            if waiting.cancelled():
                self._leave(owner, waiting)
            else:
                # The waiter was cancelled at the moment in which it got the slot.
                self.give_back()
            raise

    def give_back(self) -> None:
        """Gives the slot to the next waiter, or makes it free."""
        while self._lines:
            owner, line = next(iter(self._lines.items()))
            waiting = line.popleft()
            if line:
                self._lines.move_to_end(owner)
            else:
                del self._lines[owner]
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1

    def _leave(self, owner: UUID | None, waiting: asyncio.Future[None]) -> None:
        line = self._lines.get(owner)
        if line is not None and waiting in line:
            line.remove(waiting)
            if not line:
                del self._lines[owner]
