"""The layers around every handler. They are applied once, at registration, and are the same for unary and streaming methods.

observe (request id, one log line, metrics: sees every outcome, including a failed authentication)
→ limit (number of running calls, duration of a call) → authenticate and authorize (`servicekit.rpc.admission`) → receive (`servicekit.rpc.receiving`)
→ limit (bytes of large requests: `servicekit.rpc.budget`; large answers: `servicekit.rpc.answers`) → validate → handler.

All layers of a call are one coroutine, in which each layer is a context. A coroutine for each layer would cost more than what the layers do.

A stream has only the deadline that its client sets. The service's default deadline limits only its admission. After that, the client's reading
limits the stream: if the client takes longer than `slow_reader_seconds` to read a message, the pipeline ends the stream. The pipeline asks the
handler for the next message only after the transport has accepted the previous one.

Outside of the pipeline, `servicekit.rpc.server` adapts grpc's context, traces, and is the only place that aborts a call.
"""

import contextlib
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias
from uuid import UUID

import grpc
from google.protobuf.message import Message
from taskmanager.rpc.v1 import access_pb2
from uuid_utils import uuid4

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, Overloaded, SlowReader
from servicekit.rpc.admission import Authorization, Verifier, authorization, validation
from servicekit.rpc.answers import Answers
from servicekit.rpc.budget import LARGE_BYTES, ByteBudget
from servicekit.rpc.call import Call, Check, Handler, Send, StreamHandler
from servicekit.rpc.call_log import CallLog
from servicekit.rpc.method import Method
from servicekit.rpc.metrics import CallMetrics, MethodMeter, UnderWay
from servicekit.rpc.receiving import Read, Receiving
from servicekit.rpc.status import failure_of
from servicekit.rpc.text import parser
from servicekit.rpc.time_limits import TimeLimits

# The largest difference between the timers of two clocks.
DEADLINE_MARGIN_SECONDS: Final = 0.02
# An error may keep a request of this size in memory for a while.
_SMALL_BYTES: Final = 1024
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")

# A handler with the layers around it. It raises any error of the handler as Failure, and CancelledError unchanged.
Unary: TypeAlias = Callable[[Read, Call], Awaitable[Message | bytes]]
Stream: TypeAlias = Callable[[Read, Call, Send], Awaitable[None]]
# Returns the validated request of bytes. Raises MalformedRequest and InvalidField.
_Open: TypeAlias = Callable[[bytes, Call], Any]


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
    limits: TimeLimits = field(default_factory=TimeLimits)
    receiving: Receiving = field(default_factory=Receiving)
    budget: ByteBudget = field(default_factory=ByteBudget)
    answers: Answers = field(default_factory=Answers)

    def __post_init__(self) -> None:
        self.metrics.bound(self.max_concurrent_calls, self.max_concurrent_streams)

    def wrap(self, method: Method, handler: Handler, check: Check | None = None) -> Unary:
        """Returns the handler with all layers around it. `check` is the method's own check of its requests."""
        authorize, open_ = authorization(method, self.verifier, self.service_tokens), _opening(method, check)
        place = _Places(self.metrics.under_way, _most(method, self.max_concurrent_calls))
        meter, call_log, at_most, receive = self.metrics.of(method), self.call_log, self.limits.at_most, self.receiving.receive
        default_seconds = self.default_deadline_seconds
        if method.answers_many and method.access == access_pb2.ACCESS_AUTHENTICATED:
            handler = self.answers.limit(method, handler)

        async def layered(read: Read, call: Call) -> Message | bytes:
            seconds = default_seconds if call.time_remaining is None else call.time_remaining
            with _Observed(method, meter, call_log, call), place:
                deadline.begin(seconds)
                with at_most(seconds, DeadlineExceeded):
                    waiting = authorize(call)
                    if waiting is not None:
                        await waiting
                    data = await receive(read, call)
                    call.request_bytes = len(data)
                    if call.request_bytes > LARGE_BYTES:
                        # This frame keeps no reference, since an error's traceback would keep the frame.
                        received, data = [data], b""
                        return await self._run_large(handler, open_, received, call)
                    answer: Message | bytes = await handler(open_(data, call), call)
                    return answer

        return layered

    async def _run_large(self, handler: Handler, open_: _Open, received: list[bytes], call: Call) -> Message | bytes:
        """Runs the handler of the large request that is in `received`, and takes it from there.

        Raises Overloaded if the large requests of unfinished calls already use up the budget.
        """
        data = received.pop()
        user_id, size = _user_of(call), len(data)
        self.budget.take(user_id, size)
        try:
            request = open_(data, call)
            del data
            answer: Message | bytes = await handler(request, call)
        except BaseException:
            self.budget.give_back(user_id, size)
            raise
        call.at_end += (partial(self.budget.give_back, user_id, size),)
        return answer

    def wrap_stream(self, method: Method, handler: StreamHandler, check: Check | None = None) -> Stream:
        """As `wrap`, for a streaming method. However a stream ends, its handler is closed before the end is logged and sent to the client."""
        authorize, open_ = authorization(method, self.verifier, self.service_tokens), _opening(method, check)
        place = _Places(self.metrics.streams_under_way, _most(method, self.max_concurrent_streams))
        meter, at_most = self.metrics.of(method), self.limits.at_most

        async def layered(read: Read, call: Call, send: Send) -> None:
            with _Observed(method, meter, self.call_log, call), place, at_most(call.time_remaining, DeadlineExceeded):
                data = await self._admit(authorize, read, call)
                with self.budget.hold(_user_of(call), call.request_bytes):
                    async with contextlib.aclosing(handler(open_(data, call), call)) as messages:
                        async for message in messages:
                            with at_most(self.slow_reader_seconds, SlowReader):
                                await send(message)
                            call.messages_sent += 1
                            meter.sent()

        return layered

    async def _admit(self, authorize: Authorization, read: Read, call: Call) -> bytes:
        """Returns the request of a stream, within the default deadline. After that, only the database's own timeout limits each of its statements."""
        deadline.begin(self.default_deadline_seconds)
        with self.limits.at_most(self.default_deadline_seconds, DeadlineExceeded):
            waiting = authorize(call)
            if waiting is not None:
                await waiting
            data = await self.receiving.receive(read, call)
        deadline.clear()
        call.request_bytes = len(data)
        return data


def _user_of(call: Call) -> UUID | None:
    return None if call.caller is None else call.caller.user_id


def _opening(method: Method, check: Check | None) -> _Open:
    parse, validate = parser(method.request_type), validation(method, check)

    def open_(data: bytes, call: Call) -> Any:
        request = parse(data)
        validate(request, call)
        return request

    return open_


class _Observed:
    """Gives a call its request id, counts and logs it. Raises any error inside of it as Failure, and CancelledError unchanged."""

    __slots__ = ("_call", "_call_log", "_meter", "_method", "_started")

    def __init__(self, method: Method, meter: MethodMeter, call_log: CallLog, call: Call) -> None:
        self._method = method
        self._meter = meter
        self._call_log = call_log
        self._call = call
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        self._call.request_id = _request_id(self._call.metadata.get("x-request-id"))
        self._meter.started.inc()

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        seconds = time.perf_counter() - self._started
        if isinstance(error, Exception):
            failure = failure_of(error)
            self._meter.handled(failure.code, seconds)
            self._call_log.failed(self._method, self._call, failure.code, failure.reason, seconds, error)
            if self._call.request_bytes > _SMALL_BYTES:
                # Even a few KiB can be tens of thousands of empty messages. grpc's own error refers to itself, so it keeps the frames, and what they
                # refer to, until a garbage collection.
                traceback.clear_frames(error.__traceback__)
            raise failure from error
        code = grpc.StatusCode.OK
        if error is not None:
            code = grpc.StatusCode.DEADLINE_EXCEEDED if _is_over(self._call, seconds) else grpc.StatusCode.CANCELLED
        self._meter.handled(code, seconds)
        self._call_log.ended(self._method, self._call, code, "", seconds)


def _is_over(call: Call, seconds: float) -> bool:
    """Whether a cancelled call had reached its deadline: grpc's core may notice the deadline before our timer does."""
    return call.time_remaining is not None and seconds >= call.time_remaining - DEADLINE_MARGIN_SECONDS


class _Places:
    """Limits the running calls, or the running streams. grpc's `maximum_concurrent_rpcs` would count probes, calls and streams together."""

    __slots__ = ("_most", "_under_way")

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


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid4())
