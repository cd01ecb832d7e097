"""JSON logs on standard output, one object a line: structlog, written by orjson. No token, password or body is ever logged."""

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

import grpc
import orjson
import structlog

from servicekit.call import Call
from servicekit.method import Method

LEVELS: Final = logging.getLevelNamesMapping()
# What went wrong on our side. All else that fails is the caller's doing and is logged like a success, with its code.
FAULTS: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
TROUBLE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})


def configure(level: str, service: str) -> None:
    """Sets up structlog and, through it, the standard library's loggers (asyncio, aiohttp, grpc) for this process."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda event, **_: _dumps(event).decode()),
            ],
        )
    )
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), handlers=[handler], force=True)


class CallLog:
    """One line per call, when it ends. Health checks and reflection are not calls of ours and are not logged."""

    def __init__(self, trace_id: Callable[[], str | None]) -> None:
        self._log = structlog.get_logger()
        self._trace_id = trace_id

    def write(self, method: Method, call: Call, code: grpc.StatusCode, reason: str, seconds: float, error: Exception | None) -> None:
        """Logs a call's end. A fault of ours is logged with its traceback: that is where the cause is found."""
        fields: dict[str, Any] = {
            "grpc_service": method.service,
            "grpc_method": method.name,
            "grpc_code": code.name,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": call.request_id,
        }
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
    """The types along an error's causes, without their messages, which may quote a request."""
    names = []
    current: BaseException | None = error
    while current is not None:
        names.append(type(current).__name__)
        current = current.__cause__
    return " < ".join(names)


def _dumps(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)
