"""The layers around every handler. They are applied once, at registration, and are the same for unary and streaming methods.

observe (request id, one log line, metrics: sees every outcome, including a failed authentication)
→ limit (number of running calls, duration of a call) → admit (authenticate, authorize, validate: `servicekit.rpc.admission`) → handler.

A stream has only the deadline that its client sets. The service's default deadline limits only its admission. After that, the client's reading
limits the stream: if the client takes longer than `slow_reader_seconds` to read a message, the pipeline ends the stream. The pipeline asks the
handler for the next message only after the transport has accepted the previous one.

Outside of the pipeline, `servicekit.rpc.server` adapts grpc's context, traces, and is the only place that aborts a call.
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
from servicekit.errors import DeadlineExceeded, Overloaded, ServiceError, SlowReader
from servicekit.rpc.admission import Admission, Verifier, admission
from servicekit.rpc.call import Call, Handler, Send, Stream, StreamHandler
from servicekit.rpc.call_log import CallLog
from servicekit.rpc.method import Method
from servicekit.rpc.metrics import CallMetrics, MethodMeter, UnderWay
from servicekit.rpc.status import failure_of

P = ParamSpec("P")
R = TypeVar("R")

# The largest difference between the timers of two clocks.
DEADLINE_MARGIN_SECONDS: Final = 0.02
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The dependencies and limits of the layers. `default_deadline_seconds` is for calls without a deadline.

    The pipeline rejects calls beyond `max_concurrent_calls` and streams beyond `max_concurrent_streams`. It counts the two separately, because calls
    are short and streams are long. A caller with one of `service_tokens` is one of the system's own services.
    """

    verifier: Verifier
    service_tokens: Sequence[str]
    metrics: CallMetrics
    call_log: CallLog
    default_deadline_seconds: float
    max_concurrent_calls: int
    max_concurrent_streams: int
    slow_reader_seconds: float

    def __post_init__(self) -> None:
        self.metrics.bound(self.max_concurrent_calls, self.max_concurrent_streams)

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Returns the handler with all layers around it. It raises any error of the handler as Failure, and CancelledError unchanged."""
        admit = admission(method, self.verifier, self.service_tokens)
        place = _Places(self.metrics.under_way, _most(method, self.max_concurrent_calls))

        async def limited(request: Any, call: Call) -> Message | bytes:
            seconds = self.default_deadline_seconds if call.time_remaining is None else call.time_remaining
            with place:
                deadline.begin(seconds)
                async with _AtMost(seconds, DeadlineExceeded):
                    await admit(request, call)
                    answer: Message | bytes = await handler(request, call)
                    return answer

        return self._observe(method, self.metrics.of(method), limited)

    def wrap_stream(self, method: Method, handler: StreamHandler) -> Stream:
        """As `wrap`, for a streaming method. However a stream ends, its handler is closed before the end is logged and sent to the client."""
        admit = admission(method, self.verifier, self.service_tokens)
        place = _Places(self.metrics.streams_under_way, _most(method, self.max_concurrent_streams))
        meter = self.metrics.of(method)

        async def limited(request: Any, call: Call, send: Send) -> None:
            with place:
                async with _AtMost(call.time_remaining, DeadlineExceeded):
                    await self._admit(admit, request, call)
                    async with contextlib.aclosing(handler(request, call)) as messages:
                        async for message in messages:
                            async with _AtMost(self.slow_reader_seconds, SlowReader):
                                await send(message)
                            call.messages_sent += 1
                            meter.sent()

        return self._observe(method, meter, limited)

    async def _admit(self, admit: Admission, request: Any, call: Call) -> None:
        """Admits a stream within the default deadline. After that, only the database's own timeout limits each statement of the stream."""
        deadline.begin(self.default_deadline_seconds)
        async with _AtMost(self.default_deadline_seconds, DeadlineExceeded):
            await admit(request, call)
        deadline.clear()

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
                code = grpc.StatusCode.DEADLINE_EXCEEDED if _is_over(call, time.perf_counter() - started) else grpc.StatusCode.CANCELLED
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


def _is_over(call: Call, seconds: float) -> bool:
    """Whether a cancelled call had reached its deadline: grpc's core may notice the deadline before our timer does."""
    return call.time_remaining is not None and seconds >= call.time_remaining - DEADLINE_MARGIN_SECONDS


class _Places:
    """Limits the running calls, or the running streams. grpc's `maximum_concurrent_rpcs` would count probes, calls and streams together."""

    def __init__(self, under_way: UnderWay, most: int | None) -> None:
        self._under_way = under_way
        self._most = most

    def __enter__(self) -> None:
        """Raises Overloaded if the limit is reached."""
        if self._most is not None and self._under_way.count >= self._most:
            raise Overloaded
        self._under_way.count += 1

    def __exit__(self, *_: object) -> None:
        self._under_way.count -= 1


def _most(method: Method, most: int) -> int | None:
    """Returns None for internal methods: the system's own services are few, and the load of clients must not get their calls rejected."""
    return None if method.access == access_pb2.ACCESS_INTERNAL else most


class _AtMost:
    """Like asyncio.timeout, but raises one of our errors. A TimeoutError that is raised inside of it passes through unchanged."""

    def __init__(self, seconds: float | None, error: type[ServiceError]) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._error = error

    def __aenter__(self) -> Awaitable[object]:
        return self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:  # noqa: PYI036 - passed on to asyncio.timeout
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError as error:
            raise self._error from error


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid4())
