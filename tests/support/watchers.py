"""Follows a user's changes as clients do: the same stream over gRPC and over server-sent events, with one exception for all ends."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import grpc.aio
import httpx
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from tests.support.accounts import Account
from tests.support.calls import as_dict
from tests.support.errors import of_response, of_rpc
from tests.support.task_api import CONNECTION

PATH: Final = "/api/v1/tasks:watch"
CHECKPOINT: Final = "CHECKPOINT"
# The code of a stream that ends without an error. Over server-sent events a client cannot see an error after the stream has begun.
OVER: Final = "OVER"
# Much longer than any wait without its own limit takes.
WITHIN_SECONDS: Final = 10.0
# No read timeout: a silent stream is not an error, and each test limits its own wait.
_TIMEOUT: Final = httpx.Timeout(10, read=None)


@dataclass(frozen=True, slots=True)
class Told:
    """One message. The task has the JSON form of the gateway and is empty in a CHECKPOINT. `at` is the time of receipt by time.time."""

    kind: str
    task: Mapping[str, Any]
    resume_token: str
    at: float


class StreamEnded(Exception):
    """Raised at the end of every stream. `code` is the name of a gRPC status, CONNECTION or OVER."""

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


# Watches an account's tasks from a resume token, or from now if it is empty. The caller must close the generator. Raises StreamEnded.
Way: TypeAlias = Callable[[Account, str], AsyncGenerator[Told, None]]


def over_grpc(channel: grpc.aio.Channel) -> Way:
    """Returns a Way that calls WatchTasks on that channel."""
    stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]

    async def watch(account: Account, resume_token: str) -> AsyncGenerator[Told, None]:
        call = stub.WatchTasks(task_service_pb2.WatchTasksRequest(resume_token=resume_token), metadata=account.metadata)
        try:
            async for message in call:
                yield _told(as_dict(message))
        except grpc.aio.AioRpcError as error:
            end = of_rpc(error)
            raise StreamEnded(end.status, end.reason) from error
        finally:
            call.cancel()
        raise StreamEnded(OVER)

    return watch


def over_sse(client: httpx.AsyncClient) -> Way:
    """Returns a Way that reads server-sent events through the client's gateway."""

    async def watch(account: Account, resume_token: str) -> AsyncGenerator[Told, None]:
        query = {"resume_token": resume_token} if resume_token else {}
        try:
            async with client.stream("GET", PATH, params=query, headers=account.headers, timeout=_TIMEOUT) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    error = of_response(response)
                    raise StreamEnded(error.status, error.reason)
                assert response.headers["content-type"] == "text/event-stream"
                async for data in _events(response):
                    yield _told(json.loads(data))
        except httpx.TransportError as error:
            raise StreamEnded(CONNECTION, repr(error)) from error
        raise StreamEnded(OVER)

    return watch


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """Yields the data of each event. The server's events have exactly one data line and no other fields. A truncated event is dropped."""
    lines = response.aiter_lines()
    async for line in lines:
        assert line.startswith("data: "), line
        async for blank in lines:
            assert blank == "", blank
            yield line.removeprefix("data: ")
            break


def _told(event: Mapping[str, Any]) -> Told:
    return Told(event["kind"], event.get("task", {}), event["resume_token"], time.time())


class Watcher:
    """Reads a stream in the background. An `async with` block begins when the first message, a CHECKPOINT, has arrived."""

    def __init__(self, way: Way, account: Account, resume_token: str = "") -> None:
        self._stream = way(account, resume_token)
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self.told: list[Told] = []
        self.end: StreamEnded | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        try:
            await self.until(lambda: bool(self.told))
            assert self.told[0].kind == CHECKPOINT
        except BaseException:
            await self.leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Closes the stream, as a client does that closes its window."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    @property
    def changes(self) -> list[Told]:
        """The received messages without checkpoints."""
        return [told for told in self.told if told.kind != CHECKPOINT]

    @property
    def resume_token(self) -> str:
        """The resume token of the last message."""
        return self.told[-1].resume_token

    async def changed(self, count: int, within: float = WITHIN_SECONDS) -> Sequence[Told]:
        """Waits until at least `count` changes have arrived, and returns all changes."""
        await self.until(lambda: len(self.changes) >= count, within)
        return self.changes

    async def ended(self, within: float = WITHIN_SECONDS) -> StreamEnded:
        """Waits until the stream has ended, and returns how."""
        await self.until(lambda: self.end is not None, within, though_ended=True)
        assert self.end is not None
        return self.end

    async def until(self, condition: Callable[[], bool], within: float = WITHIN_SECONDS, *, though_ended: bool = False) -> None:
        """Waits until the condition holds. Fails if the time runs out or the stream ends first."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    assert self.end is None or though_ended, f"the stream ended: {self.end}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within} s; {len(self.changes)} changes arrived, end of the stream: {self.end}") from None

    async def _read(self) -> None:
        async with contextlib.aclosing(self._stream) as stream:
            try:
                async for told in stream:
                    self.told.append(told)
                    self._news.set()
            except StreamEnded as end:
                self.end = end
                self._news.set()


async def refusal(way: Way, account: Account, resume_token: str = "") -> StreamEnded:
    """Returns the error with which the server rejects a stream. Fails if the stream begins."""
    async with contextlib.aclosing(way(account, resume_token)) as stream:
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                first = await anext(stream)
        except StreamEnded as end:
            return end
    raise AssertionError(f"the stream began: {first}")
