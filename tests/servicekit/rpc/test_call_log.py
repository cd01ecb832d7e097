"""The line of a call: one JSON object on one line, the same fields by either path, and nothing that a client sent as it is."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from servicekit.errors import DependencyUnavailable, InternalError, Overloaded
from servicekit.identity import Identity
from servicekit.process.logging import shows_info
from servicekit.rpc.call import Call
from servicekit.rpc.call_log import FAULTS, TROUBLE, CallLog
from servicekit.rpc.method import methods_of
from tests.servicekit.rpc.feeds import feed_service
from tests.servicekit.rpc.serving import USER_ID

METHODS = {method.name: method for method in methods_of(feed_service())}
IDENTITY = Identity(user_id=USER_ID, session_id=USER_ID, token_id="t", expires_at=2**31)


def call(request_id: str = "asked", *, caller: Identity | None = IDENTITY) -> Call:
    return Call({}, None, request_id=request_id, caller=caller, messages_sent=7)


def ended(method: str, made: Call, code: grpc.StatusCode = grpc.StatusCode.OK, reason: str = "", trace: str | None = None) -> dict[str, Any]:
    lines: list[bytes] = []
    CallLog('a "service"', lines.append, lambda: trace).ended(METHODS[method], made, code, reason, 0.0123456)
    (line,) = lines
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_a_line_says_who_called_what_when_and_how_it_ended() -> None:
    entry = ended("Get", call(), trace="0af7651916cd43dd8448eb211c80319c")
    moment = datetime.fromisoformat(entry.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=10)
    assert entry == {
        "grpc_service": "planted.Feed",
        "grpc_method": "Get",
        "grpc_code": "OK",
        "duration_ms": 12.346,
        "request_id": "asked",
        "user_id": str(USER_ID),
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "event": "call",
        "service": 'a "service"',
        "level": "info",
    }


def test_what_does_not_apply_is_left_out() -> None:
    entry = ended("Get", call(caller=None))
    assert not {"user_id", "trace_id", "reason", "messages_sent"} & entry.keys()


def test_the_line_of_a_stream_has_its_messages() -> None:
    assert ended("Watch", call())["messages_sent"] == 7


@pytest.mark.parametrize("request_id", ['"},{"event":"forged"}', "\\", "\\u0022", "{}", "%s", "'"])
def test_a_request_id_cannot_forge_a_field(request_id: str) -> None:
    assert ended("Get", call(request_id))["request_id"] == request_id


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code not in FAULTS | TROUBLE])
def test_a_failure_that_the_caller_caused_is_logged_with_its_reason(code: grpc.StatusCode) -> None:
    lines: list[bytes] = []
    with capture_logs() as logs:
        CallLog("test", lines.append, None).failed(METHODS["Get"], call(), code, "SOME_REASON", 0.001, ZeroDivisionError("a secret"))
    assert logs == []
    (entry,) = map(json.loads, lines)
    assert (entry["grpc_code"], entry["reason"], entry["level"]) == (code.name, "SOME_REASON", "info")
    assert "secret" not in str(entry)


@pytest.mark.parametrize(
    ("code", "level"), [(code, "error" if code in FAULTS else "warning") for code in grpc.StatusCode if code in FAULTS | TROUBLE]
)
def test_faults_and_trouble_are_logged_with_their_cause(code: grpc.StatusCode, level: str) -> None:
    lines: list[bytes] = []
    with capture_logs() as logs:
        log = CallLog("test", lines.append, lambda: "a-trace")
        try:
            raise Overloaded from ZeroDivisionError("a secret")
        except Overloaded as error:
            log.failed(METHODS["Watch"], call(), code, "SOME_REASON", 0.001, error)
    assert lines == []
    (entry,) = logs
    cause = entry.pop("exc_info" if level == "error" else "cause")
    assert isinstance(cause, Overloaded) if level == "error" else cause == "Overloaded < ZeroDivisionError"
    assert entry == {
        "grpc_service": "planted.Feed",
        "grpc_method": "Watch",
        "grpc_code": code.name,
        "duration_ms": 1.0,
        "request_id": "asked",
        "messages_sent": 7,
        "user_id": str(USER_ID),
        "trace_id": "a-trace",
        "reason": "SOME_REASON",
        "event": "call",
        "log_level": level,
    }


def test_a_log_without_infos_has_only_the_lines_of_trouble() -> None:
    assert {level for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") if shows_info(level)} == {"DEBUG", "INFO"}
    log = CallLog("test", None, None)
    with capture_logs() as logs:
        log.ended(METHODS["Get"], call(), grpc.StatusCode.OK, "", 0.001)
        log.failed(METHODS["Get"], call(), grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND", 0.001, ZeroDivisionError())
        log.failed(METHODS["Get"], call(), grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", 0.001, DependencyUnavailable("PostgreSQL"))
        log.failed(METHODS["Get"], call(), grpc.StatusCode.INTERNAL, "INTERNAL_ERROR", 0.001, InternalError())
    assert [entry["log_level"] for entry in logs] == ["warning", "error"]


def test_both_paths_have_the_same_fields_in_the_same_order() -> None:
    """structlog's processors add the last four."""
    file = io.BytesIO()
    log = structlog.wrap_logger(
        structlog.BytesLogger(file), processors=[structlog.processors.JSONRenderer(serializer=lambda event, **_: json.dumps(event).encode())]
    )
    call_log = CallLog("test", None, None)
    call_log._log = log
    call_log.failed(METHODS["Watch"], call(), grpc.StatusCode.UNAVAILABLE, "A", 0.001, Overloaded())
    by_structlog = [name for name in json.loads(file.getvalue()) if name != "cause"]
    assert list(ended("Watch", call(), grpc.StatusCode.NOT_FOUND, "A"))[: len(by_structlog)] == by_structlog
