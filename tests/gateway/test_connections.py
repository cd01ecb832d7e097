"""What a client's connection may hold: nothing for long without a call, and no answer for long that the client does not read."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway.stack import Gateway, Stack, gateway_behind
from tests.support.rawhttp import connected
from tests.support.unread import unread

GET_TASK, TASK = "/taskmanager.task.v1.TaskService/GetTask", "/api/v1/tasks/1"
# Envoy closes an idle connection after its drain_timeout.
IDLE_SECONDS, DRAIN_SECONDS, CALL_SECONDS, FLUSH_SECONDS = 1, 5, 3, 1
# More than Envoy sends into the window of a connection.
TEXT = "x" * 1_000_000


@pytest.fixture(scope="module")
def impatient(_stack: Stack) -> Iterator[Gateway]:
    sooner = {"stream_flush_timeout: 30s": f"stream_flush_timeout: {FLUSH_SECONDS}s"}
    with gateway_behind(_stack, sooner=sooner, connection_idle_seconds=IDLE_SECONDS) as gateway:
        yield gateway


@pytest.mark.parametrize("request_sent", [b"", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"], ids=["unused", "used"])
def test_a_connection_without_a_call_is_closed(impatient: Gateway, request_sent: bytes) -> None:
    with connected(impatient.url) as raw:
        raw.settimeout(10)
        raw.sendall(request_sent)
        began, answer = time.monotonic(), b""
        while data := raw.recv(65536):
            answer += data
        assert IDLE_SECONDS - 0.1 < time.monotonic() - began < IDLE_SECONDS + DRAIN_SECONDS + 5
        assert answer.startswith(b"HTTP/1.1 200") == bool(request_sent)


def test_a_connection_with_a_call_is_not_idle(impatient: Gateway, stack: Stack) -> None:
    def slow(_: Any, __: Any) -> Any:
        time.sleep(CALL_SECONDS)
        return stack.messages.response(GET_TASK)()

    stack.behave(GET_TASK, slow)
    assert httpx.get(impatient.url + TASK, headers=impatient.bearer(), timeout=10).status_code == 200


def test_an_answer_that_is_not_read_is_given_up(impatient: Gateway, stack: Stack) -> None:
    """Over HTTP/2. Over HTTP/1.1 the connection is idle."""
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(description=TEXT))

    async def ask() -> float:
        async with unread("127.0.0.1", impatient.settings.gateway_port) as client:
            began = time.monotonic()
            client.ask({":method": "GET", ":path": TASK, **impatient.bearer()})
            while not client.ends["reset"]:
                await asyncio.sleep(0.01)
            assert client.ends == {"200": 1, "reset": 1}
            return time.monotonic() - began

    assert FLUSH_SECONDS - 0.1 < asyncio.run(asyncio.wait_for(ask(), 10)) < FLUSH_SECONDS + 5
