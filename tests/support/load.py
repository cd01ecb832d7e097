"""Clients that call continuously and record every outcome, for tests that cause faults."""

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
# The request id of calls before the load. Their log lines may be written late.
SETUP: Final = "setup"
# A client whose calls fail immediately must not take CPU time from the other clients.
PAUSE_AFTER_FAILURE_SECONDS: Final = 0.02

# Makes one call with the given request id. Raises CallFailed.
Operation: TypeAlias = Callable[[str], Awaitable[object]]
# The operations that a client repeats in order, each with its name.
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
    """Runs clients: `async with Load(clients) as load:` makes calls until the end of the block."""

    def __init__(self, clients: Iterable[Client], pause_seconds: float = 0) -> None:
        """`pause_seconds` is each client's pause between its calls."""
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
        """Starts the clients."""
        self._tasks = [asyncio.create_task(self._run(operations)) for operations in self._clients]

    async def stop(self) -> None:
        """Starts no more calls and waits for the running ones. Raises the exception of a client that failed."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def failures(self, operation: str = "") -> list[Outcome]:
        """Returns the failed calls of one operation, or of all."""
        return [outcome for outcome in self.outcomes if outcome.code != OK and operation in ("", outcome.operation)]

    def between(self, began: float, ended: float) -> list[Outcome]:
        """Returns the calls that began in a time span."""
        return [outcome for outcome in self.outcomes if began <= outcome.began < ended]

    def codes(self) -> Counter[str]:
        """Returns the number of calls by code."""
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
    """Returns a client that reads, changes, lists, creates and deletes tasks."""
    mine = await api.create("before", SETUP)
    made: list[str] = []

    async def create(request_id: str) -> None:
        made.append((await api.create("made under load", request_id)).id)

    async def delete(request_id: str) -> None:
        # Nothing to delete if the creations have failed.
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
    """Returns the duration of the slowest call in seconds."""
    return max((outcome.seconds for outcome in outcomes), default=0.0)
