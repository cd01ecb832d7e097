"""Says on Redis's channels that something has changed, beside the call that changed it: see servicekit.wakeups for what that means.

What comes while a saying is under way is said together, each channel once.
"""

import asyncio

from servicekit import deadline
from servicekit.redis import Redis
from servicekit.wakeups import announce


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
                channels, self._pending = self._pending, set()
                await announce(self._redis, *channels)
        finally:
            self._sending = None
