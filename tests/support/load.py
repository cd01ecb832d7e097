"""Clients that call without a pause, each outcome kept: what the tests that break something are judged by."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias
from uuid import uuid4

from tests.support.task_api import CallFailed, TaskApi

OK: Final = "OK"
# The request id of calls before the load, whose lines can be written late.
SETUP: Final = "setup"
# A client whose call failed at once must not take the processor from those that have something to do.
PAUSE_AFTER_FAILURE_SECONDS: Final = 0.02

# Makes one call under the request id that it is given. Raises CallFailed.
Operation: TypeAlias = Callable[[str], Awaitable[object]]
# What a client does in turn, each thing with its name.
Client: TypeAlias = Sequence[tuple[str, Operation]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `began` is on the clock of time.monotonic."""

    operation: str
    request_id: str
    began: float
    seconds: float
    code: str
    message: str = ""


class Load:
    """`async with Load(clients) as load:` calls until the end of the block."""

    def __init__(self, clients: Iterable[Client], pause_seconds: float = 0) -> None:
        """The pause is that of each client between its calls."""
        self._clients = list(clients)
        self._pause_seconds = pause_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.outcomes: list[Outcome] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begins to call."""
        self._tasks = [asyncio.create_task(self._run(operations)) for operations in self._clients]

    async def stop(self) -> None:
        """Begins no more calls and waits for those under way. Raises what a client stumbled over."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def failures(self, operation: str = "") -> list[Outcome]:
        """The calls that did not end well, of one operation or of all."""
        return [outcome for outcome in self.outcomes if outcome.code != OK and operation in ("", outcome.operation)]

    def between(self, began: float, ended: float) -> list[Outcome]:
        """The calls that began in a span of time."""
        return [outcome for outcome in self.outcomes if began <= outcome.began < ended]

    def codes(self) -> Counter[str]:
        """How often calls ended in which way."""
        return Counter(outcome.code for outcome in self.outcomes)

    async def _run(self, operations: Client) -> None:
        turn = 0
        while not self._stopping:
            name, operation = operations[turn % len(operations)]
            turn += 1
            await self._call(name, operation)
            await asyncio.sleep(self._pause_seconds)

    async def _call(self, name: str, operation: Operation) -> None:
        request_id, began = str(uuid4()), time.monotonic()
        try:
            await operation(request_id)
        except CallFailed as failed:
            self.outcomes.append(Outcome(name, request_id, began, time.monotonic() - began, failed.code, str(failed)))
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
        else:
            self.outcomes.append(Outcome(name, request_id, began, time.monotonic() - began, OK))


async def mixed_client(api: TaskApi) -> Client:
    """A client that reads, changes, lists, makes and deletes."""
    mine = await api.create("before", SETUP)
    made: list[str] = []

    async def create(request_id: str) -> None:
        made.append((await api.create("made under load", request_id)).id)

    async def delete(request_id: str) -> None:
        # What could not be made cannot be deleted.
        if made:
            await api.delete(made.pop(), request_id)

    return [
        ("get", lambda request_id: api.get(mine.id, request_id)),
        ("rename", lambda request_id: api.rename(mine.id, f"by {request_id}", request_id)),
        ("list", api.list),
        ("create", create),
        ("delete", delete),
    ]


def worst(outcomes: Iterable[Outcome]) -> float:
    """The seconds that the slowest call took."""
    return max((outcome.seconds for outcome in outcomes), default=0.0)
