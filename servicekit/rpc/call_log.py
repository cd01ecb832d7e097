"""Logs one line for each call."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import orjson
import structlog

from servicekit.rpc.call import Call
from servicekit.rpc.method import Method
from servicekit.rpc.token_log import TokenLog

# FAULTS are errors of the service: logged as errors, with a traceback. TROUBLE is logged as warnings. Any other failure is caused by the caller and
# is logged like a success, with its code.
FAULTS: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
TROUBLE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class CallLog:
    """Logs one line when a call ends. Calls of health checks and reflection are not logged.

    Only faults and trouble go through structlog. The line of any other call is built here, because structlog would take longer for it than the rest
    of the pipeline takes for the call.
    """

    def __init__(self, service: str, write: Callable[[bytes], None] | None, trace_id: Callable[[], str | None] | None) -> None:
        """`write` takes a line; None if the log shows no lines of the level info. `trace_id` is None without tracing."""
        # Bound once, not on every call.
        self._log = structlog.get_logger().bind()
        self._write = write
        self._trace_id = trace_id
        self._tokens = TokenLog()
        self._end = f',"event":"call","service":{_json(service)},"level":"info","timestamp":"'

    def ended(self, method: Method, call: Call, code: grpc.StatusCode, reason: str, seconds: float) -> None:
        """Logs the end of a call that succeeded, was cancelled, or failed because of its caller."""
        if self._write is None:
            return
        # The texts from outside are encoded; the others contain nothing that JSON must escape.
        more = f',"messages_sent":{call.messages_sent}' if method.streams else ""
        if call.caller is not None:
            more += f',"user_id":"{call.caller.user_id}"'
        if self._trace_id is not None and (trace := self._trace_id()) is not None:
            more += f',"trace_id":"{trace}"'
        if reason:
            more += f',"reason":"{reason}"'
        self._write(
            f'{{"grpc_service":"{method.service}","grpc_method":"{method.name}","grpc_code":"{code.name}","duration_ms":{_milliseconds(seconds)}'
            f',"request_id":{_json(call.request_id)}{more}{self._end}{datetime.now(UTC).isoformat(timespec="microseconds")[:-6]}Z"}}\n'.encode()
        )

    def failed(self, method: Method, call: Call, code: grpc.StatusCode, reason: str, seconds: float, error: Exception) -> None:
        """Logs the end of a call that failed. A fault is logged with its traceback, which shows the cause."""
        if code not in FAULTS and code not in TROUBLE:
            self._tokens.failed(call, reason, _cause(error))
            self.ended(method, call, code, reason, seconds)
            return
        fields: dict[str, Any] = {
            "grpc_service": method.service,
            "grpc_method": method.name,
            "grpc_code": code.name,
            "duration_ms": _milliseconds(seconds),
            "request_id": call.request_id,
        }
        if method.streams:
            fields["messages_sent"] = call.messages_sent
        if call.caller is not None:
            fields["user_id"] = str(call.caller.user_id)
        if self._trace_id is not None and (trace := self._trace_id()) is not None:
            fields["trace_id"] = trace
        fields["reason"] = reason
        if code in FAULTS:
            self._log.error("call", **fields, exc_info=error)
        else:
            self._log.warning("call", **fields, cause=_cause(error))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


def _cause(error: BaseException) -> str:
    """Returns the types of an error and its causes, without their messages, which may quote a request."""
    names = []
    current: BaseException | None = error
    while current is not None:
        names.append(type(current).__name__)
        current = current.__cause__
    return " < ".join(names)
