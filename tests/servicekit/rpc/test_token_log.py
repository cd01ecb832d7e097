"""Calls whose token was rejected are logged, with a limit on the number of lines."""

from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from servicekit.identity import Identity
from servicekit.rpc.call import Call
from servicekit.rpc.token_log import LINES, PERIOD_SECONDS, TokenLog


def _call(*, caller: Identity | None = None) -> Call:
    return Call({"x-envoy-external-address": "192.0.2.1", "authorization": "Bearer secret"}, None, request_id="r", caller=caller)


@pytest.mark.parametrize("reason", ["TOKEN_INVALID", "ACCESS_DENIED"])
def test_a_rejected_token_is_logged_with_its_address_and_not_with_the_token(reason: str) -> None:
    with capture_logs() as logs:
        TokenLog().failed(_call(), reason, "TokenInvalid < ExpiredSignatureError")
    expected = {"event": "security", "security_event": "token_rejected", "address": "192.0.2.1", "request_id": "r", "log_level": "warning"}
    assert logs == [{**expected, "cause": "TokenInvalid < ExpiredSignatureError"}]


def test_what_is_no_rejected_token_is_not_logged() -> None:
    tokens = TokenLog()
    with capture_logs() as logs:
        for reason in ("TOKEN_MISSING", "TASK_NOT_FOUND", "WRONG_PASSWORD"):
            tokens.failed(_call(), reason, "")
        # A stream that ends with its token.
        tokens.failed(_call(caller=Identity(uuid4(), uuid4(), "t", 0)), "TOKEN_INVALID", "")
    assert logs == []


def test_many_rejected_tokens_are_counted() -> None:
    seconds = 0.0
    tokens = TokenLog(lambda: seconds)
    with capture_logs() as logs:
        for _ in range(1000):
            tokens.failed(_call(), "TOKEN_INVALID", "")
        assert len(logs) == LINES
        seconds = PERIOD_SECONDS
        for _ in range(2):
            tokens.failed(_call(), "TOKEN_INVALID", "")
    assert [line.get("suppressed") for line in logs[LINES:]] == [1000 - LINES, None]
