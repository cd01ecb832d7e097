"""JSON logs on standard output, one object per line: structlog, serialized by orjson. Tokens, passwords and bodies are never logged.

Libraries that read requests put parts of them into their messages and exceptions: grpc logs a header that it cannot decode, and aiohttp a request
that it cannot parse. So of a library's record the log has only what the library's programmers wrote.
"""

import asyncio
import atexit
import logging
import sys
import traceback
from typing import Any, BinaryIO, Final, cast

import orjson
import structlog

LEVELS: Final = logging.getLevelNamesMapping()
JOIN_SECONDS: Final = 0.05
# grpc logs this twice for each header that it cannot decode. The call's own line has the outcome.
UNDECODABLE: Final = "Invalid encoding on %s"
# The libraries that see no part of a request. Their records are logged whole: the event loop, and the exporters of telemetry.
WHOLE: Final = ("asyncio", "opentelemetry.exporter", "opentelemetry.sdk")


class JoinedLines:
    """A log file that collects lines for `JOIN_SECONDS` and writes them with one system call.

    One system call per line would be a large part of a small call's cost. A process that is killed loses the last `JOIN_SECONDS` of its log. A
    process that ends or fails by itself loses nothing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: list[bytes] = []
        self._scheduled = False
        atexit.register(self._write_out)

    def add(self, line: bytes) -> None:
        """Logs a line: `write`, then `flush`."""
        self.write(line)
        self.flush()

    def write(self, line: bytes) -> int:
        """Buffers a line."""
        self._lines.append(line)
        return len(line)

    def flush(self) -> None:
        """Schedules a write of the buffered lines in `JOIN_SECONDS`. Outside of an event loop, writes them at once."""
        if self._scheduled:
            return
        try:
            asyncio.get_running_loop().call_later(JOIN_SECONDS, self._write_out)
        except RuntimeError:
            self._write_out()
        else:
            self._scheduled = True

    def _write_out(self) -> None:
        self._scheduled = False
        lines, self._lines = self._lines, []
        self._file.write(b"".join(lines))
        self._file.flush()


def shows_info(level: str) -> bool:
    """Whether a log of this level has lines of the level info."""
    return LEVELS[level] <= logging.INFO


def configure(level: str, service: str) -> JoinedLines:
    """Sets up structlog and, through it, the standard library's loggers (asyncio, aiohttp, grpc) for this process. Returns structlog's file."""
    lines = JoinedLines(sys.stdout.buffer)

    def name_service(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    shared: list[structlog.types.Processor] = [
        name_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", lines)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_without_values, *shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda event, **_: _dumps(event).decode()),
            ],
        )
    )
    handler.addFilter(lambda record: record.msg != UNDECODABLE)
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), handlers=[handler], force=True)
    return lines


def _without_values(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replaces a library's message by its template, and its exception by the exception's type and places, because both can quote a header."""
    record: logging.LogRecord = event["_record"]
    if record.name.startswith(WHOLE):
        return event
    event["event"] = str(record.msg)
    event.pop("exc_info", None)
    if record.exc_info and record.exc_info[0] is not None:
        event["exception"] = "".join([*traceback.format_tb(record.exc_info[2]), record.exc_info[0].__qualname__])
    return event


def _dumps(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)
