"""Watchers that follow a user's changes during outages and record every change that they receive."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tests.faults.writers import User
from tests.support.task_api import CONNECTION
from tests.support.watchers import CHECKPOINT, OVER, StreamEnded, Told, Way

# The codes with which a stream, or the attempt to open one, may end; any other code is a defect. INTERNAL: gRPC reports it when the gateway resets a
# stream whose replica is down. UNAUTHENTICATED: the stream's token has expired, and the user has a new one.
ENDS: Final = {CONNECTION, OVER, "UNAVAILABLE", "INTERNAL", "UNAUTHENTICATED", "DEADLINE_EXCEEDED", "CANCELLED"}
PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as a watcher received it and as the log has it."""

    kind: str
    task_id: str
    version: int
    title: str


class Follower:
    """A watcher that resumes from the last token that it received. Now and then it also closes its stream by itself."""

    def __init__(self, name: str, user: User, ways: Iterator[Way], rng: random.Random) -> None:
        self.name = name
        self._user = user
        self._ways = ways
        self._rng = rng
        self._token = ""
        self.seen: list[Change] = []
        self.tasks: dict[str, tuple[str, str, int, int, bool]] = {}
        # The seconds from each change's commit to its receipt.
        self.seconds: list[float] = []
        self.ends: Counter[str] = Counter()
        self.begun = asyncio.Event()

    async def follow(self) -> None:
        """Reads streams until it is cancelled."""
        while True:
            try:
                await self._read()
                self.ends["left"] += 1
            except StreamEnded as end:
                self.ends[end.code] += 1
                if end.code not in ENDS:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self) -> None:
        """Reads one stream. Raises StreamEnded; returns if the follower closes the stream first."""
        leaves_after, messages = self._messages_to_read(), 0
        async with contextlib.aclosing(next(self._ways)(self._user.account, self._token)) as stream:
            async for told in stream:
                assert messages or told.kind == CHECKPOINT, f"{self.name}: a stream began with {told}"
                self._take(told)
                messages += 1
                if messages == leaves_after:
                    return

    def _messages_to_read(self) -> int:
        """Returns how many messages to read: only the first, some, or 0 for all."""
        return self._rng.choice((1, self._rng.randint(2, 20), self._rng.randint(20, 200), 0))

    def _take(self, told: Told) -> None:
        self._token = told.resume_token
        self.begun.set()
        if told.kind == CHECKPOINT:
            return
        task = told.task
        version = int(task["etag"].strip('"'))
        self.seen.append(Change(told.kind, task["id"], version, task["title"]))
        self.tasks[task["id"]] = (task["title"], task["status"], task["priority"], version, "deleted_at" in task)
        self.seconds.append(told.at - datetime.fromisoformat(task["updated_at"]).timestamp())
