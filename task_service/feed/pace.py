"""How fast the streams of one user may send what is in the change log, so that they leave the process, PostgreSQL and the gateway to the other users.

Contract: the streams of one user on a replica read and send one after the other, each one page at a time. A page takes at least the time that its
changes and their text have in an even flow. A client that does not read keeps its user's other streams waiting for at most TURN_SECONDS.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from servicekit.turns import Turns
from task_service.feed.domain import Change

# Of all users together. Many streams begin at once when their replica has stopped and another one takes them over.
USERS_AT_ONCE: Final = 16
# 100 streams of a user wait 4 s at most, if none of their clients reads.
TURN_SECONDS: Final = 0.04
# Measured: a change costs the service 0.12 ms and the gateway 0.08 ms, and a MiB of text 14 ms and 17 ms. So one user takes about a third of a core.
CHANGE_SECONDS: Final = 0.0003
BYTES_PER_SECOND: Final = 16 * 1024 * 1024
# Timers are no more precise than this.
LEAST_PAUSE_SECONDS: Final = 0.001


class Page:
    """What a stream sends in its turn."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sends(self, change: Change) -> None:
        """Counts a change that the stream sends."""
        self.seconds += CHANGE_SECONDS + change.subject.text_bytes / BYTES_PER_SECOND


class Pace:
    """The turns of the streams of one process."""

    def __init__(self) -> None:
        self._turns = Turns(1, USERS_AT_ONCE, seconds=TURN_SECONDS)

    @contextlib.asynccontextmanager
    async def page(self, user_id: UUID) -> AsyncIterator[Page]:
        """Waits for the turn of a stream of the user. The block reads and sends one page. It is followed by a pause if it was too fast."""
        async with self._turns.turn(user_id):
            page, began = Page(), time.monotonic()
            yield page
            pause = page.seconds - (time.monotonic() - began)
            if pause >= LEAST_PAUSE_SECONDS:
                await asyncio.sleep(pause)
