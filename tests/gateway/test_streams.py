"""Streaming methods over server-sent events, gRPC and gRPC-Web, and how they end. The tests use a method that the gateway does not know."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tests.gateway.errors import assert_error
from tests.gateway.grpc_web import frame, frames
from tests.gateway.planted import SERVICE, planted
from tests.gateway.stack import DESCRIPTORS, GET_TASK, Gateway, Stack, gateway_behind, wait_until
from tests.support.tiers import first_quick

PATH = "/api/v1/things:watch"
RPC = f"/{SERVICE}/WatchThings"
ORIGIN = "https://app.example"
# The idle timeout of streams in these tests (120 s in production), and the shorter limits of calls and connections, which must not apply to streams.
IDLE_SECONDS, CALL_SECONDS, CONNECTION_IDLE_SECONDS = 4.0, 2, 2.0
# A pause that is longer than the shorter limits, and much shorter than the idle timeout of streams.
SILENT_SECONDS = 2.2
SOONER = {"idle_timeout: 120s": f"idle_timeout: {IDLE_SECONDS:g}s", "stream_idle_timeout: 60s": f"stream_idle_timeout: {CONNECTION_IDLE_SECONDS:g}s"}
PINGS = {"connection_keepalive: {interval: 15s, timeout: 5s}": "connection_keepalive: {interval: 0.5s, timeout: 2s}"}
# Envoy has two workers, each with one connection to the replica. This many readers exceed the usual HTTP/2 connection window several times.
READERS_THAT_DO_NOT = 40
KIBIBYTE = 1024

# A streaming service in a process of its own, so that a test can freeze it.
PROGRAM = """
import sys, time
from pathlib import Path
from tests.gateway.stubs import Messages, StubService

messages = Messages(Path(sys.argv[1]).read_bytes())
service = StubService([], messages)

def watch(_, __):
    while True:
        yield messages.response(sys.argv[2])(id="tick")
        time.sleep(0.1)

service.behave(sys.argv[2], watch)
service.start()
print(service.port, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("planted") / "descriptors.binpb"
    file.write_bytes(planted(DESCRIPTORS.read_bytes()))
    return file


@pytest.fixture(scope="module")
def _streaming(descriptors: Path) -> Iterator[Gateway]:
    with (
        Stack.started(descriptors.parent, descriptors.read_bytes()) as stack,
        gateway_behind(stack, descriptors=descriptors, request_timeout_seconds=CALL_SECONDS, cors_allowed_origins=ORIGIN, sooner=SOONER) as gateway,
    ):
        yield gateway


@pytest.fixture
def streaming(_streaming: Gateway) -> Iterator[Gateway]:
    """A gateway with a streaming method and short timeouts."""
    yield _streaming
    _streaming.stack.reset()


class Feed:
    """The stubs' stream: `count` things, one every `seconds`, then `error` if it is set.

    If `request.id` is `flood`, it sends large things without end. If it is `stuck`, it sends one thing and is silent until the call ends.
    """

    def __init__(
        self, gateway: Gateway, count: int, seconds: float = 0.0, error: grpc.StatusCode | None = None, received: threading.Semaphore | None = None
    ) -> None:
        """With `received`, which the client releases for each thing, every thing waits until the one before has arrived."""
        self._thing = gateway.stack.messages.response(RPC)
        self._count, self._seconds, self._error, self._received = count, seconds, error, received
        self.under_way = 0
        gateway.stack.behave(RPC, self)

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.under_way += 1
        ended = threading.Event()
        context.add_callback(ended.set)
        context.add_callback(self._ended)
        if request.id == "stuck":
            yield self._thing(id="0")
            ended.wait(30)
            return
        while request.id == "flood":
            yield self._thing(title="x" * 100_000)
        for number in range(self._count):
            yield self._thing(id=str(number), title="line 1\nline 2 ☂")
            if self._received is not None:
                self._received.acquire(timeout=10)
            time.sleep(self._seconds)
        if self._error is not None:
            context.abort(self._error, "of the service")

    def _ended(self) -> None:
        self.under_way -= 1


def _grpc(gateway: Gateway, **options: Any) -> Any:
    messages = gateway.stack.messages
    call = gateway.channel.unary_stream(RPC, lambda sent: sent.SerializeToString(), messages.response(RPC).FromString)
    return call(messages.request(RPC)(), metadata=tuple(gateway.bearer().items()), **options)


def _events(body: str) -> list[Any]:
    """Returns the events of a stream. Each event must be one line of data and one blank line."""
    *events, rest = body.split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("http2", [False, True])
def test_over_rest_it_is_server_sent_events_as_they_come(streaming: Gateway, *, http2: bool) -> None:
    received, parts = threading.Semaphore(0), []
    Feed(streaming, 3, received=received)
    with (
        httpx.Client(http1=not http2, http2=http2, timeout=10) as client,
        client.stream("GET", streaming.url + PATH, headers={**streaming.bearer(), "origin": ORIGIN}) as answer,
    ):
        for part in filter(None, answer.iter_text()):
            parts.append(part)
            received.release()
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert {"content-length", "grpc-status", "grpc-message", "content-encoding"}.isdisjoint(answer.headers)
    assert [event["id"] for event in _events("".join(parts))] == ["0", "1", "2"]
    told = {name: value for name, value in _events(parts[0])[0].items() if value}
    assert told == {"id": "0", "title": "line 1\nline 2 ☂"}
    # Each event arrives alone and before the service sends the next one: the gateway does not wait for further events.
    assert [len(_events(part)) for part in parts] == [1, 1, 1]


def test_an_answer_that_is_no_stream_is_as_it_was(streaming: Gateway) -> None:
    streaming.stack.behave(GET_TASK, lambda request, _: streaming.stack.messages.response(GET_TASK)(id=request.id))
    answer = streaming.request("GET", "/api/v1/tasks/7", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["id"] == "7"


@pytest.mark.parametrize(("code", "status", "number"), [(grpc.StatusCode.OUT_OF_RANGE, 400, 11), (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 8)])
def test_an_error_before_the_first_message_is_an_ordinary_one(streaming: Gateway, code: grpc.StatusCode, status: int, number: int) -> None:
    Feed(streaming, 0, error=code)
    assert_error(streaming.request("GET", PATH), status, number)
    assert_error(streaming.request("GET", PATH, token=False), 401, 16, "TOKEN_MISSING")


def test_an_error_after_the_first_message_is_the_end(streaming: Gateway) -> None:
    Feed(streaming, 2, error=grpc.StatusCode.UNAVAILABLE)
    answer = streaming.request("GET", PATH)
    assert (answer.status_code, len(_events(answer.text))) == (200, 2)
    got = _grpc(streaming)
    with pytest.raises(grpc.RpcError) as ended:
        list(got)
    assert (ended.value.code(), ended.value.details()) == (grpc.StatusCode.UNAVAILABLE, "of the service")


def test_a_stream_that_has_begun_is_not_tried_again_and_one_that_has_not_is(streaming: Gateway) -> None:
    Feed(streaming, 1, error=grpc.StatusCode.UNAVAILABLE)
    streaming.request("GET", PATH)
    with pytest.raises(grpc.RpcError):
        list(_grpc(streaming))
    assert streaming.stack.calls(RPC) == 2
    first, second = streaming.stack.tasks
    for refusing, serving in ((first, second), (second, first)):
        Feed(streaming, 1)
        refusing.behave(RPC, lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "stopping"))
        for _ in range(4):
            assert len(_events(streaming.request("GET", PATH).text)) == 1
            assert len(list(_grpc(streaming))) == 1
        assert serving.calls[RPC] >= 8


def test_over_grpc_web(streaming: Gateway) -> None:
    received, parts = threading.Semaphore(0), []
    Feed(streaming, 3, received=received)
    headers = {**streaming.bearer(), "content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": ORIGIN}
    request = frame(streaming.stack.messages.request(RPC)())
    with streaming.http.stream("POST", RPC, content=request, headers=headers) as answer:
        for part in answer.iter_bytes():
            parts.append(part)
            received.release()
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert len(parts) >= 3
    *things, (flags, trailers) = frames(b"".join(parts))
    assert [streaming.stack.messages.response(RPC).FromString(content).id for _, content in things] == ["0", "1", "2"]
    assert (flags, b"grpc-status:0" in trailers) == (128, True)


@pytest.mark.parametrize("http2", first_quick([False, True]))
def test_it_may_be_silent_for_longer_than_a_call_or_a_connection_and_not_for_ever(streaming: Gateway, *, http2: bool) -> None:
    """The idle timeout of the gRPC path's route applies, because the transcoder replaces the REST path's route."""
    feed = Feed(streaming, 2, seconds=SILENT_SECONDS)

    def get(path: str) -> httpx.Response:
        with httpx.Client(http1=not http2, http2=http2, timeout=20) as client:
            return client.get(streaming.url + path, headers=streaming.bearer())

    # Both streams at once, to save time.
    with ThreadPoolExecutor() as threads:
        silent = threads.submit(get, PATH)
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            get(f"{PATH}?id=stuck")
        # Envoy closes an HTTP/1.1 connection up to a second later. The service would go on for 30 s.
        assert IDLE_SECONDS - 0.1 < time.monotonic() - began < IDLE_SECONDS + 10
        assert len(_events(silent.result(timeout=20).text)) == 2
    wait_until(lambda: feed.under_way == 0)


@pytest.mark.parametrize("http2", [False, True])
def test_a_client_that_leaves_is_gone_for_the_service_too(streaming: Gateway, *, http2: bool) -> None:
    feed = Feed(streaming, 1000, seconds=0.1)
    with (
        httpx.Client(http1=not http2, http2=http2, timeout=10) as client,
        client.stream("GET", streaming.url + PATH, headers=streaming.bearer()) as answer,
    ):
        parts = answer.iter_raw()
        next(parts)
        assert feed.under_way == 1
    # Without the client's end the stream goes on for 100 s.
    wait_until(lambda: feed.under_way == 0)
    call = _grpc(streaming)
    next(call)
    call.cancel()
    wait_until(lambda: feed.under_way == 0)


@pytest.mark.alone("fills the gateway's buffers, and measures what other streams wait")
def test_readers_that_do_not_read_are_in_nobodys_way_and_are_let_go_of(streaming: Gateway, descriptors: Path) -> None:
    """All streams of a gateway worker to a replica share one connection. Unread data of some streams must not use up the window of the others."""
    feed = Feed(streaming, 3)
    address, sooner = f"127.0.0.1:{streaming.stack.tasks[0].port}", {"idle_timeout: 120s": "idle_timeout: 6s"}
    with (
        gateway_behind(streaming.stack, descriptors=descriptors, task_grpc_endpoints=address, sooner=sooner) as gateway,
        contextlib.ExitStack() as readers,
    ):
        for _ in range(READERS_THAT_DO_NOT):
            readers.enter_context(_open(gateway, f"{PATH}?id=flood"))
        wait_until(lambda: feed.under_way == READERS_THAT_DO_NOT)
        # The time in which the buffers fill.
        time.sleep(2)
        for _ in range(4):
            assert len(list(_grpc(gateway, timeout=2))) == 3
            assert len(_events(httpx.get(gateway.url + PATH, headers=gateway.bearer(), timeout=2).text)) == 3
        # The gateway resets these streams although their clients are still connected.
        wait_until(lambda: feed.under_way == 0, timeout=12)


def _open(gateway: Gateway, path: str) -> socket.socket:
    """Requests a stream on a new connection and reads nothing from it."""
    reader = socket.socket()
    # A small receive buffer, so that Envoy must buffer the data.
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIBIBYTE)
    reader.connect(("127.0.0.1", gateway.settings.gateway_port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {gateway.bearer()['authorization']}\r\n\r\n".encode())
    return reader


def test_the_streams_of_a_replica_that_hangs_end(streaming: Gateway, descriptors: Path) -> None:
    command = (sys.executable, "-c", PROGRAM, str(descriptors), RPC)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as replica:
        try:
            assert replica.stdout is not None
            address = f"127.0.0.1:{int(replica.stdout.readline())}"
            sooner = {"idle_timeout: 120s": "idle_timeout: 60s", **PINGS}
            with (
                gateway_behind(streaming.stack, descriptors=descriptors, task_grpc_endpoints=address, sooner=sooner) as gateway,
                gateway.http.stream("GET", PATH, headers=gateway.bearer()) as events,
            ):
                got, lines = _grpc(gateway), events.iter_lines()
                next(got)
                next(lines)
                freezing = threading.Timer(0.5, os.kill, (replica.pid, signal.SIGSTOP))
                freezing.start()
                began = time.monotonic()
                with pytest.raises(grpc.RpcError):
                    list(got)
                with pytest.raises(httpx.TransportError):
                    list(lines)
                # The idle timeout would end them after 60 s.
                assert 0.5 < time.monotonic() - began < 20
        finally:
            replica.kill()
