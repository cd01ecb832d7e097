"""Log lines: each is one JSON object, whatever it contains. A write that fails does not end the log."""

import asyncio
import io
import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from servicekit.process.logging import JOIN_SECONDS, UNDECODABLE, JoinedLines


class Failing(io.BytesIO):
    """A file whose next write fails."""

    failing = False

    def write(self, data: object) -> int:
        if self.failing:
            self.failing = False
            raise BlockingIOError
        return super().write(data)  # type: ignore[arg-type]  # bytes


FORGED = '"}\n{"event": "forged"}\r\n\x1b[31m\x00\u2028'
PROGRAM = f"""
import structlog
from servicekit.process import logging
logging.configure("INFO", "test")
structlog.get_logger().info({FORGED!r}, value={FORGED!r})
"""


def test_a_line_stays_one_line_and_says_when_where_and_what() -> None:
    """OWASP ASVS 5 §16.2.1, §16.2.2, §16.2.4, §16.4.1."""
    ran = subprocess.run((sys.executable, "-c", PROGRAM), capture_output=True, check=True)
    assert ran.stderr == b""
    (line,) = ran.stdout.splitlines()
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("timestamp")).utcoffset() == timedelta(0)
    assert entry == {"service": "test", "level": "info", "event": FORGED, "value": FORGED}


LIBRARIES = f"""
import logging as library
from servicekit.process import logging
logging.configure("INFO", "test")
try:
    raise ValueError("secret")
except ValueError:
    for name in ("grpc._cython.cygrpc", "aiohttp.server", "some.library"):
        library.getLogger(name).exception("Failed with %s", b"secret")
        library.getLogger(name).exception({UNDECODABLE!r}, b"secret")
    library.getLogger("asyncio").exception("Failed with %s", "what operators must see")
"""


def test_a_library_logs_no_part_of_a_request() -> None:
    """grpc logs each header that it cannot decode, and aiohttp each request that it cannot parse."""
    ran = subprocess.run((sys.executable, "-c", LIBRARIES), capture_output=True, check=True)
    *libraries, loop = [json.loads(line) for line in ran.stdout.splitlines()]
    assert not [entry for entry in libraries if "secret" in str(entry)]
    assert [entry["event"] for entry in libraries] == ["Failed with %s"] * 3
    assert [entry["exception"].splitlines()[-1] for entry in libraries] == ["ValueError"] * 3
    assert (loop["event"], loop["exception"].splitlines()[-1]) == ("Failed with what operators must see", "ValueError: secret")


def _log(lines: JoinedLines, *texts: bytes) -> None:
    for text in texts:
        lines.write(text)
        lines.flush()


async def test_lines_of_one_moment_are_one_write() -> None:
    file = io.BytesIO()
    lines = JoinedLines(file)
    _log(lines, b"a\n", b"b\n")
    assert file.getvalue() == b""
    await asyncio.sleep(JOIN_SECONDS * 3)
    assert file.getvalue() == b"a\nb\n"


def test_outside_of_a_loop_a_line_is_written_at_once() -> None:
    file = io.BytesIO()
    _log(JoinedLines(file), b"a\n", b"b\n")
    assert file.getvalue() == b"a\nb\n"


async def test_a_write_that_fails_does_not_end_the_log() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    file = Failing()
    lines = JoinedLines(file)
    file.failing = True
    _log(lines, b"a\n", b"b\n")
    await asyncio.sleep(JOIN_SECONDS * 3)
    loop.set_exception_handler(before)
    assert len(failures) == 1
    _log(lines, b"c\n")
    await asyncio.sleep(JOIN_SECONDS * 3)
    assert file.getvalue().endswith(b"c\n")


@pytest.fixture(autouse=True)
def _no_exit_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atexit.register", lambda _: None)
