"""A watcher that resumes after its stream ends, and a client whose changes it must get: each once, and in order."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self, TypeAlias

from tests.support.accounts import Account
from tests.support.load import SETUP, Client
from tests.support.task_api import Seen, TaskApi
from tests.support.watchers import CHECKPOINT, StreamEnded, Told, Way

# A task's id and version. Each change creates a new version.
Change: TypeAlias = tuple[str, int]

# The code with which a draining replica or gateway ends its streams. Clients then resume at another one with their last token.
DRAINED: Final = "UNAVAILABLE"
# The code that gRPC reports, without a reason, if the gateway resets the stream of a killed replica. The service's own INTERNAL has a reason.
RESET: Final = "INTERNAL"
PAUSE_SECONDS: Final = 0.05
# Longer than a change needs to reach the watcher, also on a busy machine.
TOLD_WITHIN_SECONDS: Final = 5.0


class Follower:
    """Watches an account's changes, as an async context manager. The block begins after the first message, which has the position."""

    def __init__(self, way: Way, account: Account) -> None:
        self._way = way
        self._account = account
        self._token = ""
        self._ends: list[str] = []
        self._written: list[Change] = []
        self._told: list[Change] = []
        self._news = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        # How often it resumed with a token.
        self.resumed = 0

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        try:
            await asyncio.wait_for(self._news.wait(), TOLD_WITHIN_SECONDS)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._leave()

    @property
    def told(self) -> int:
        """The number of changes that the watcher got."""
        return len(self._told)

    async def writing(self, api: TaskApi) -> Client:
        """Returns a client that writes changes. No other client may write for the account."""
        mine = await api.create("followed", SETUP)
        self._wrote(mine)

        async def change(request_id: str) -> None:
            self._wrote(await api.rename(mine.id, f"by {request_id}", request_id))

        return [("followed", change)]

    async def faults(self) -> list[str]:
        """Waits until the watcher has all changes, at most TOLD_WITHIN_SECONDS. Then returns one line per fault."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOLD_WITHIN_SECONDS):
                while not set(self._written) <= set(self._told):
                    self._news.clear()
                    await self._news.wait()
        return [*self._ends, *self._wrong()]

    def _wrong(self) -> Iterator[str]:
        yield from (f"watch: {change} was told {times} times" for change, times in Counter(self._told).items() if times > 1)
        told, written = dict.fromkeys(self._told), dict.fromkeys(self._written)
        yield from (f"watch: {change} was not told" for change in written if change not in told)
        # A write without an answer may still have been executed, so only changes in both lists are compared. The load counts the failed write itself.
        if [change for change in told if change in written] != [change for change in written if change in told]:
            yield "watch: changes were told in another order than they were made"

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except StreamEnded as end:
                resumable = end.code == DRAINED or (end.code == RESET and not end.reason)
                if not resumable or not self._token:
                    self._ends.append(f"watch: ended with {end}")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self) -> None:
        resuming = bool(self._token)
        async with contextlib.aclosing(self._way(self._account, self._token)) as stream:
            async for told in stream:
                self._take(told)
                self.resumed += resuming
                resuming = False

    def _take(self, told: Told) -> None:
        self._token = told.resume_token
        if told.kind != CHECKPOINT:
            self._told.append((told.task["id"], int(told.task["etag"].strip('"'))))
        self._news.set()

    def _wrote(self, seen: Seen) -> None:
        self._written.append((seen.id, seen.version))

    async def _leave(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
