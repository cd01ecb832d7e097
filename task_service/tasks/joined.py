"""Joins the writes of one user: while a statement of the user runs, further writes of the user wait, and the next statement executes them together.

PostgreSQL executes the writes of one user one after the other in any case. Joined, they share the round trip, the lock and the commit. Each caller
keeps its own answer, error and deadline: a caller that leaves does not end the writes of others. One process sends at most one statement with writes
of one user at a time.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, TimeLimitExceeded
from servicekit.identity import acting_user
from task_service.tasks.writes import Operations, Written

# PostgreSQL keeps 64 subtransactions of a transaction in shared memory, and each joined write is one.
MAX_WRITES: Final = 32
# A larger batch is sent alone, so that nobody waits for more than one. 100 operations take PostgreSQL about 10 ms.
MAX_OPERATIONS: Final = 100


class Write(Protocol):
    """A write with everything that its execution needs."""

    @property
    def operations(self) -> Operations:
        """The operations, all of which are executed or none."""


W = TypeVar("W", bound=Write)
WriteOne = Callable[[UUID, W, Callable[[], None]], Awaitable[Written]]
WriteAll = Callable[[UUID, Sequence[W], Callable[[], None]], Awaitable[Sequence[Written | Exception]]]


@dataclass(eq=False, slots=True)
class _Waiting(Generic[W]):
    """A write whose caller waits for the answer, or has left: then the answer is cancelled."""

    write: W
    on_failed: Callable[[], None]
    answer: asyncio.Future[Written]


class JoinedWrites(Generic[W]):
    """Executes writes by `write_one`, or several of one user by `write_all`, whose answer has a result or an error for each of them.

    Both call their last argument if they raise, once nothing is running any more (see servicekit.stores.postgres). In the same way `execute` calls
    its `on_failed`. `timeout_seconds` limits the wait of a caller without a deadline.
    """

    def __init__(self, write_one: WriteOne[W], write_all: WriteAll[W], timeout_seconds: float) -> None:
        self._write_one = write_one
        self._write_all = write_all
        self._timeout_seconds = timeout_seconds
        # The users with a running statement, with the writes that wait for its end.
        self._lines: dict[UUID, deque[_Waiting[W]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def execute(self, user_id: UUID, write: W, on_failed: Callable[[], None]) -> Written:
        """Executes the write, alone or with others, and returns its own answer or raises its own error."""
        line = self._lines.get(user_id)
        if line is not None:
            return await self._wait(line, write, on_failed)
        self._lines[user_id] = deque()
        try:
            return await self._write_one(user_id, write, on_failed)
        finally:
            self._next(user_id)

    async def _wait(self, line: deque[_Waiting[W]], write: W, on_failed: Callable[[], None]) -> Written:
        """Waits until the write was executed, at most until the deadline. A write that nobody waits for any more is not sent."""
        try:
            seconds = deadline.bound(self._timeout_seconds)
        except DeadlineExceeded:
            on_failed()
            raise
        waiting = _Waiting(write, on_failed, asyncio.get_running_loop().create_future())
        line.append(waiting)
        try:
            async with asyncio.timeout(seconds):
                return await waiting.answer
        except BaseException as error:
            if waiting in line:
                line.remove(waiting)
                on_failed()
            elif _was_answered(waiting.answer):
                # The caller is cancelled at the moment of the answer.
                on_failed()
            if isinstance(error, TimeoutError):
                raise (DeadlineExceeded() if seconds < self._timeout_seconds else TimeLimitExceeded()) from error
            raise

    def _next(self, user_id: UUID) -> None:
        """Sends the waiting writes of the user, as many as one statement may have."""
        line = self._lines[user_id]
        if not line:
            del self._lines[user_id]
            return
        group = [line.popleft()]
        operations = len(group[0].write.operations)
        while line and len(group) < MAX_WRITES and (operations := operations + len(line[0].write.operations)) <= MAX_OPERATIONS:
            group.append(line.popleft())
        # In an empty context, because the deadline and the trace of the call that ran before are not those of these writes.
        running = asyncio.create_task(self._send(user_id, group), context=contextvars.Context())
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _send(self, user_id: UUID, group: Sequence[_Waiting[W]]) -> None:
        """Executes the writes of a group and answers their callers. Does not send a write whose caller has left meanwhile."""
        acting_user.set(user_id)
        for waiting in group:
            if waiting.answer.cancelled():
                waiting.on_failed()
        group = [waiting for waiting in group if not waiting.answer.cancelled()]
        try:
            outcomes = await self._execute(user_id, group) if group else []
        except BaseException as error:
            for waiting in group:
                if not waiting.answer.cancelled():
                    waiting.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                _answer(waiting, outcome)
        finally:
            self._next(user_id)

    async def _execute(self, user_id: UUID, group: Sequence[_Waiting[W]]) -> Sequence[Written | Exception]:
        if len(group) == 1:
            return [await self._write_one(user_id, group[0].write, group[0].on_failed)]

        def on_failed() -> None:
            for waiting in group:
                waiting.on_failed()

        return await self._write_all(user_id, [waiting.write for waiting in group], on_failed)


def _answer(waiting: _Waiting[W], outcome: Written | Exception) -> None:
    """Gives the outcome to the caller, if the caller still waits. The statement has ended."""
    if isinstance(outcome, Exception) or waiting.answer.cancelled():
        waiting.on_failed()
    if waiting.answer.cancelled():
        return
    if isinstance(outcome, Exception):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)


def _was_answered(answer: asyncio.Future[Written]) -> bool:
    return answer.done() and not answer.cancelled() and answer.exception() is None
