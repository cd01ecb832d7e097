"""Logs one line for each call."""

from collections.abc import Callable
from typing import Any, Final

import grpc
import structlog

from servicekit.rpc.call import Call
from servicekit.rpc.method import Method

# FAULTS are errors of the service: logged as errors, with a traceback. TROUBLE is logged as warnings. Any other failure is caused by the caller and
# is logged like a success, with its code.
FAULTS: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
TROUBLE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class CallLog:
    """Logs one line when a call ends. Calls of health checks and reflection are not logged."""

    def __init__(self, trace_id: Callable[[], str | None]) -> None:
        # Bound once, not on every call.
        self._log = structlog.get_logger().bind()
        self._trace_id = trace_id

    def write(self, method: Method, call: Call, code: grpc.StatusCode, reason: str, seconds: float, error: Exception | None) -> None:
        """Logs the end of a call. A fault is logged with its traceback, which shows the cause."""
        fields: dict[str, Any] = {
            "grpc_service": method.service,
            "grpc_method": method.name,
            "grpc_code": code.name,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": call.request_id,
        }
        if method.streams:
            fields["messages_sent"] = call.messages_sent
        if call.caller is not None:
            fields["user_id"] = str(call.caller.user_id)
        if (trace := self._trace_id()) is not None:
            fields["trace_id"] = trace
        if error is None:
            self._log.info("call", **fields)
            return
        fields["reason"] = reason
        if code in FAULTS:
            self._log.error("call", **fields, exc_info=error)
        elif code in TROUBLE:
            self._log.warning("call", **fields, cause=_cause(error))
        else:
            self._log.info("call", **fields)


def _cause(error: BaseException) -> str:
    """Returns the types of an error and its causes, without their messages, which may quote a request."""
    names = []
    current: BaseException | None = error
    while current is not None:
        names.append(type(current).__name__)
        current = current.__cause__
    return " < ".join(names)
