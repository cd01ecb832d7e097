"""Clients that call without a pause, each outcome kept: what the tests that break something are judged by."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias
from uuid import uuid4

from tests.support.task_api import CallFailed

OK: Final = "OK"
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

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = list(clients)
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

    async def _call(self, name: str, operation: Operation) -> None:
        request_id, began = str(uuid4()), time.monotonic()
        try:
            await operation(request_id)
        except CallFailed as failed:
            self.outcomes.append(Outcome(name, request_id, began, time.monotonic() - began, failed.code, str(failed)))
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
        else:
            self.outcomes.append(Outcome(name, request_id, began, time.monotonic() - began, OK))


def worst(outcomes: Iterable[Outcome]) -> float:
    """The seconds that the slowest call took."""
    return max((outcome.seconds for outcome in outcomes), default=0.0)
