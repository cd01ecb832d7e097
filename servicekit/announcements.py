"""Says on Redis's channels that something has changed, beside the call that changed it: see servicekit.wakeups for what that means.

What comes within a moment is said together, each channel once: a command for each write would cost a good part of the write.
"""

import asyncio
from typing import Final

from servicekit import deadline
from servicekit.redis import Redis
from servicekit.wakeups import announce

# Nobody who watches sees it, and at a thousand writes a second ten go together.
GATHER_SECONDS: Final = 0.01


class Announcements:
    """A Resource. Nothing here fails or waits: who polls finds out without it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pending: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def announce(self, channel: str) -> None:
        """Soon, on this channel."""
        self._pending.add(channel)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Waits for what is being said."""
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _send(self) -> None:
        # It is no part of the call that it began in.
        deadline.clear()
        try:
            while self._pending:
                await asyncio.sleep(GATHER_SECONDS)
                channels, self._pending = self._pending, set()
                await announce(self._redis, *channels)
        finally:
            self._sending = None
