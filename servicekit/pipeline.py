"""What happens around every handler. Applied once, at registration, and the same for methods that answer once and for those that stream.

observe (request id, one log line, metrics: sees every outcome, also a failed authentication)
→ limit (how many at once, and for how long) → admit (authenticate, authorize, validate: `servicekit.admission`) → handler.

A stream has no deadline but its client's: the service's own bounds its admission alone. What bounds it after that is its reader: who takes longer
than `slow_reader_seconds` over one message is cut off, and until a message is taken the handler is not asked for the next.

Outside of this, `servicekit.server` adapts grpc's context, traces, and is the only place that aborts a call.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import grpc
from google.protobuf.message import Message
from taskmanager.rpc.v1 import access_pb2
from uuid_utils import uuid4

from servicekit import deadline
from servicekit.admission import Verifier, admission
from servicekit.call import Call, Handler, Send, Stream, StreamHandler
from servicekit.call_log import CallLog
from servicekit.errors import DeadlineExceeded, Overloaded, SlowReader
from servicekit.method import Method
from servicekit.metrics import CallMetrics, MethodMeter, UnderWay
from servicekit.status import failure_of

P = ParamSpec("P")
R = TypeVar("R")

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the layers need. `default_deadline_seconds` is for calls that come without one.

    More than `max_concurrent_calls` are refused, and more than `max_concurrent_streams`, which are counted apart: a call is over soon, a stream is
    not. Whoever has one of `service_tokens` is one of the system's own services.
    """

    verifier: Verifier
    service_tokens: Sequence[str]
    metrics: CallMetrics
    call_log: CallLog
    default_deadline_seconds: float
    max_concurrent_calls: int
    max_concurrent_streams: int
    slow_reader_seconds: float

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """The handler with all layers around it. What the handler raises leaves it as Failure, and CancelledError as it is."""
        admit = admission(method, self.verifier, self.service_tokens)
        place = _Places(self.metrics.under_way, _most(method, self.max_concurrent_calls))

        async def admitted(request: Any, call: Call) -> Message:
            await admit(request, call)
            return await handler(request, call)

        async def limited(request: Any, call: Call) -> Message:
            with place:
                return await _within(self.default_deadline_seconds if call.time_remaining is None else call.time_remaining, admitted, request, call)

        return self._observe(method, self.metrics.of(method), limited)

    def wrap_stream(self, method: Method, handler: StreamHandler) -> Stream:
        """As `wrap`, for a method that streams. However a stream ends, its handler is closed before that is told."""
        admit = admission(method, self.verifier, self.service_tokens)
        place = _Places(self.metrics.streams_under_way, _most(method, self.max_concurrent_streams))
        meter = self.metrics.of(method)

        async def admitted(request: Any, call: Call, send: Send) -> None:
            await _within(self.default_deadline_seconds, admit, request, call)
            # From now on each statement has the time that the database gives it, however long the stream lasts.
            deadline.clear()
            async with contextlib.aclosing(handler(request, call)) as messages:
                async for message in messages:
                    await self._hand_over(message, send)
                    call.messages_sent += 1
                    meter.sent()

        async def limited(request: Any, call: Call, send: Send) -> None:
            with place:
                await _within(call.time_remaining, admitted, request, call, send)

        return self._observe(method, meter, limited)

    async def _hand_over(self, message: Message, send: Send) -> None:
        """Waits until the transport has taken the message. Raises SlowReader."""
        try:
            async with asyncio.timeout(self.slow_reader_seconds) as timeout:
                await send(message)
        except TimeoutError as error:
            raise (SlowReader() if timeout.expired() else error) from error

    def _observe(
        self, method: Method, meter: MethodMeter, inner: Callable[Concatenate[Any, Call, P], Awaitable[R]]
    ) -> Callable[Concatenate[Any, Call, P], Awaitable[R]]:
        async def observed(request: Any, call: Call, /, *args: P.args, **kwargs: P.kwargs) -> R:
            call.request_id = _request_id(call.metadata.get("x-request-id"))
            started = time.perf_counter()
            meter.started.inc()
            code, error, reason = grpc.StatusCode.OK, None, ""
            try:
                return await inner(request, call, *args, **kwargs)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as cause:
                failure, error = failure_of(cause), cause
                code, reason = failure.code, failure.reason
                raise failure from cause
            finally:
                seconds = time.perf_counter() - started
                meter.handled(code, seconds)
                self.call_log.write(method, call, code, reason, seconds, error)

        return observed


class _Places:
    """As many as may be under way at once: `maximum_concurrent_rpcs` would count probes too, and streams and calls together."""

    def __init__(self, under_way: UnderWay, most: int | None) -> None:
        self._under_way = under_way
        self._most = most

    def __enter__(self) -> None:
        """Raises Overloaded."""
        if self._most is not None and self._under_way.count >= self._most:
            raise Overloaded
        self._under_way.count += 1

    def __exit__(self, *_: object) -> None:
        self._under_way.count -= 1


def _most(method: Method, most: int) -> int | None:
    """The system's own services are few, and what they ask must not wait for what strangers do."""
    return None if method.access == access_pb2.ACCESS_INTERNAL else most


async def _within(
    seconds: float | None, work: Callable[Concatenate[Any, Call, P], Awaitable[R]], request: Any, call: Call, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Does the work within the time, if there is a bound, and has all that it waits for know of it. Raises DeadlineExceeded."""
    if seconds is not None:
        deadline.begin(seconds)
    try:
        async with asyncio.timeout(seconds) as timeout:
            return await work(request, call, *args, **kwargs)
    except TimeoutError as error:
        raise (DeadlineExceeded() if timeout.expired() else error) from error


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid4())
