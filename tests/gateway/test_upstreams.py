"""The gateway's connections to the services: health, load balancing, retries, timeouts, and replicas that start and stop."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.routes import read_routes
from tests.gateway.errors import assert_error, reason_of
from tests.gateway.planted import SERVICE, planted
from tests.gateway.stack import CREATE_TASK, DESCRIPTORS, GET_TASK, Gateway, Stack, gateway_behind, wait_until

TASK = "/api/v1/tasks/1"
WATCH = "/api/v1/things:watch"
MEBIBYTE = 1024 * 1024
# Longer than the pauses of the streams below.
STREAM_IDLE_SECONDS = 4
# Shorter than a stream of three messages with pauses.
CALL_SECONDS, PAUSE_SECONDS = 2, 0.9
# Together their unread data exceeds the windows of all connections to the services. The number is smaller than a stub's number of threads.
SLOW_READERS = 48
CALLERS = 4


def _once_unavailable(stack: Stack, path: str, *, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
    """Makes the method fail on its first call, on any replica, and succeed afterwards."""
    failed = threading.Event()

    def behave(_: Any, context: grpc.ServicerContext) -> Any:
        if not failed.is_set():
            failed.set()
            context.abort(code, "away")
        return stack.messages.response(path)()

    stack.behave(path, behave)


def test_a_read_is_tried_again_elsewhere(gateway: Gateway, stack: Stack) -> None:
    _once_unavailable(stack, GET_TASK)
    assert gateway.request("GET", TASK).status_code == 200
    assert [service.calls[GET_TASK] for service in stack.tasks] == [1, 1]
    _once_unavailable(stack, GET_TASK)
    gateway.call(GET_TASK)
    assert stack.calls(GET_TASK) == 4


def test_a_write_is_not_tried_again(gateway: Gateway, stack: Stack) -> None:
    _once_unavailable(stack, CREATE_TASK)
    assert_error(gateway.request("POST", "/api/v1/tasks", json={}), 503, 14)
    assert stack.calls(CREATE_TASK) == 1


def test_another_error_of_a_read_is_not_tried_again(gateway: Gateway, stack: Stack) -> None:
    _once_unavailable(stack, GET_TASK, code=grpc.StatusCode.INTERNAL)
    assert_error(gateway.request("GET", TASK), 500, 13)
    assert stack.calls(GET_TASK) == 1


@pytest.mark.parametrize("caller", ["REST", "gRPC"])
def test_all_tries_of_a_read_share_one_time_limit(gateway: Gateway, stack: Stack, caller: str) -> None:
    """The gateway's time limit of 2 s, or the caller's. Three tries would take 4.5 s."""

    def behave(_: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(1.5)
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    stack.behave(GET_TASK, behave)
    begun = time.monotonic()
    if caller == "REST":
        assert gateway.request("GET", TASK).status_code == 504
    else:
        assert gateway.failure(GET_TASK, timeout=1.8).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 1.7 < time.monotonic() - begun < 4
    assert stack.calls(GET_TASK) == 2


def test_a_read_that_took_too_long_is_not_tried_again(gateway: Gateway, stack: Stack) -> None:
    _once_unavailable(stack, GET_TASK, code=grpc.StatusCode.DEADLINE_EXCEEDED)
    assert_error(gateway.request("GET", TASK), 504, 4)
    assert stack.calls(GET_TASK) == 1


@pytest.mark.slow("a thousand calls")
def test_replicas_share_the_calls_of_one_connection(gateway: Gateway, stack: Stack) -> None:
    for _ in range(1000):
        gateway.call(GET_TASK)
    assert all(400 <= service.calls[GET_TASK] <= 600 for service in stack.tasks)


def _slow(stack: Stack, path: str, seconds: float) -> list[float]:
    """Makes the method wait for so long, or until the call has ended. Returns a list that gets the time that each call had left."""
    left: list[float] = []

    def behave(_: Any, context: grpc.ServicerContext) -> Any:
        ended = threading.Event()
        context.add_callback(ended.set)
        left.append(context.time_remaining())
        ended.wait(seconds)
        return stack.messages.response(path)()

    stack.behave(path, behave)
    return left


@pytest.mark.slow("waits for the timeout of calls, several times")
def test_a_call_that_takes_too_long(gateway: Gateway, stack: Stack) -> None:
    """Envoy passes the deadline to the service, so either of them may time out first. The test therefore checks only the code."""
    left = _slow(stack, CREATE_TASK, 20)
    begun = time.monotonic()
    answer = gateway.request("POST", "/api/v1/tasks", json={})
    assert (answer.status_code, answer.json()["code"]) == (504, 4)
    assert 1.8 < time.monotonic() - begun < 9
    for deadline in (None, 60):  # no deadline, and a deadline longer than the gateway's
        begun = time.monotonic()
        assert gateway.failure(CREATE_TASK, timeout=deadline).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 1.8 < time.monotonic() - begun < 9
    assert len(left) == 3
    assert all(1 < each <= 2 for each in left)
    begun = time.monotonic()
    answer = gateway.request("POST", "/api/v1/tasks", json={}, headers={"grpc-timeout": "300m"})
    assert (answer.status_code, answer.json()["code"]) == (504, 4)
    # Before the gateway's own timeout.
    assert time.monotonic() - begun < 1.8
    wait_until(lambda: len(left) == 4)
    assert left[3] <= 0.3


def test_a_service_that_accepts_and_says_nothing(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with gateway_behind(stack, ready=False, task_grpc_endpoints=f"127.0.0.1:{port}", request_timeout_seconds=1) as gateway:
            status = gateway.request("GET", TASK).status_code
            assert status in (503, 504)  # before and after the health check fails
            wait_until(lambda: gateway.request("GET", TASK).status_code == 503)
            assert_error(gateway.request("GET", TASK), 503, 14, "DEPENDENCY_UNAVAILABLE")


def test_ready_follows_each_service_and_calls_fail_fast(gateway: Gateway, stack: Stack) -> None:
    for services, path in ((stack.tasks, TASK), ([stack.auth], "/api/v1/users/me")):
        for service in services:
            service.set_health(serving=False)
        wait_until(lambda: gateway.http.get("/ready").status_code == 503)
        assert_error(gateway.http.get("/ready"), 503, 14, "DEPENDENCY_UNAVAILABLE")
        assert gateway.http.get("/health").json() == {"status": "healthy"}
        assert gateway.http.get(f"{gateway.ops}/readyz").status_code == 200
        wait_until(lambda path=path: gateway.request("GET", path).status_code == 503)
        assert_error(gateway.request("GET", path), 503, 14, "DEPENDENCY_UNAVAILABLE")
        for service in services:
            service.set_health(serving=True)
        wait_until(lambda: gateway.http.get("/ready").status_code == 200)
        assert gateway.http.get("/ready").json() == {"status": "ready"}


def test_one_replica_is_enough(gateway: Gateway, stack: Stack) -> None:
    stack.tasks[0].set_health(serving=False)
    wait_until(lambda: _none_of_ten(gateway, stack))
    assert gateway.http.get("/ready").status_code == 200
    stack.tasks[0].set_health(serving=True)
    wait_until(lambda: not _none_of_ten(gateway, stack))


def _none_of_ten(gateway: Gateway, stack: Stack) -> bool:
    before = stack.tasks[0].calls[GET_TASK]
    for _ in range(10):
        gateway.call(GET_TASK)
    return stack.tasks[0].calls[GET_TASK] == before


def test_a_service_that_is_not_there(stack: Stack) -> None:
    with gateway_behind(stack, ready=False, task_grpc_endpoints="127.0.0.1:1") as gateway:
        assert_error(gateway.request("GET", TASK), 503, 14, "DEPENDENCY_UNAVAILABLE")
        error = gateway.failure(GET_TASK)
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        # The other service can be called as soon as its first health check has succeeded.
        wait_until(lambda: gateway.request("GET", "/api/v1/users/me").status_code == 200)
        assert gateway.http.get("/ready").status_code == 503


@pytest.mark.slow("waits for Envoy's health checks")
def test_no_call_fails_while_a_replica_drains(tmp_path: Path) -> None:
    """The replica first reports NOT_SERVING. After that, GOAWAY and retries keep every call from failing, writes included."""
    answered, failures = _while_one_stops(tmp_path, announced=True)
    assert failures == []
    assert answered > 100


def test_a_replica_that_stops_unannounced_loses_no_call_that_began(tmp_path: Path) -> None:
    """No replica of this system stops unannounced. grpc's core sometimes resets a call that no handler has seen. The gateway cannot know that."""
    answered, failures = _while_one_stops(tmp_path, announced=False)
    assert {failure.code() for failure in failures} <= {grpc.StatusCode.CANCELLED}, failures[0]
    assert len(failures) <= CALLERS  # the calls that were running at that moment
    assert answered > 100


def _while_one_stops(folder: Path, *, announced: bool) -> tuple[int, list[grpc.RpcError]]:
    """Returns the number of successful writes, and the errors of the others. No handler saw a failed write."""
    with Stack.started(folder) as stack, gateway_behind(stack) as gateway:
        stack.behave(CREATE_TASK, lambda _, __: time.sleep(0.01) or stack.messages.response(CREATE_TASK)())
        failures: list[grpc.RpcError] = []
        done = threading.Event()
        answered: list[Any] = []

        def load() -> None:
            while not done.is_set():
                try:
                    answered.append(gateway.call(CREATE_TASK))
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(service.calls[CREATE_TASK] > 50 for service in stack.tasks))
        if announced:
            stack.tasks[0].set_health(serving=False)
            time.sleep(2)
        stack.tasks[0].stop(grace=5)
        survived = len(answered)
        wait_until(lambda: len(answered) > survived + 100)
        done.set()
        for thread in threads:
            thread.join()
        assert stack.calls(CREATE_TASK) == len(answered)
        return len(answered), failures


@pytest.fixture(scope="module")
def planted_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("planted")
    file = folder / "descriptors.binpb"
    file.write_bytes(planted(DESCRIPTORS.read_bytes()))
    with (
        Stack.started(folder, file.read_bytes()) as stack,
        gateway_behind(stack, descriptors=file, request_timeout_seconds=CALL_SECONDS, stream_idle_timeout_seconds=STREAM_IDLE_SECONDS) as gateway,
    ):
        yield gateway


def test_a_new_rpc_works_at_once(planted_gateway: Gateway) -> None:
    gateway = planted_gateway
    assert gateway.request("POST", "/api/v1/things", json={}).status_code == 201
    assert gateway.request("POST", "/api/v1/things", token=False).status_code == 401
    assert gateway.request("GET", "/api/v1/things/1", token=False).status_code == 200
    assert gateway.failure(f"/{SERVICE}/CreateThing", token=False).code() is grpc.StatusCode.UNAUTHENTICATED
    gateway.call(f"/{SERVICE}/FindThing", token=False)
    _once_unavailable(gateway.stack, f"/{SERVICE}/FindThing")
    assert gateway.request("GET", "/api/v1/things/1", token=False).status_code == 200


def test_an_internal_method_of_a_routed_service_cannot_be_reached(planted_gateway: Gateway) -> None:
    assert f"/{SERVICE}/PurgeThings" not in {rpc.path for rpc in read_routes(planted(DESCRIPTORS.read_bytes())).rpcs}
    assert_error(planted_gateway.request("POST", "/api/v1/things:purge", json={}), 404, 5)
    assert planted_gateway.failure(f"/{SERVICE}/PurgeThings").code() is grpc.StatusCode.UNIMPLEMENTED
    assert planted_gateway.failure(f"/{SERVICE}/PurgeThings", token=False).code() is grpc.StatusCode.UNAUTHENTICATED
    assert planted_gateway.stack.calls(f"/{SERVICE}/PurgeThings") == 0


@pytest.mark.slow("waits longer than the timeout of calls")
def test_a_stream_outlives_the_time_limit_of_calls(planted_gateway: Gateway) -> None:
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    messages = gateway.stack.messages

    def watch(_: Any, __: Any) -> Iterator[Any]:
        for number in range(3):
            yield messages.response(path)(id=str(number))
            time.sleep(PAUSE_SECONDS)

    gateway.stack.behave(path, watch)
    call = gateway.channel.unary_stream(path, lambda sent: sent.SerializeToString(), messages.response(path).FromString)
    got = call(messages.request(path)(), metadata=tuple(gateway.bearer().items()))
    assert [message.id for message in got] == ["0", "1", "2"]
    assert [event["id"] for event in events(gateway.request("GET", WATCH).text)] == ["0", "1", "2"]
    with pytest.raises(grpc.RpcError) as late:
        list(call(messages.request(path)(), timeout=1, metadata=tuple(gateway.bearer().items())))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # a reset by Envoy would give INTERNAL


def events(text: str) -> list[Any]:
    """Returns the data of a text/event-stream (HTML living standard §9.2) whose events have one line each."""
    assert all(event.startswith("data: ") for event in text.split("\n\n") if event), text
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]


def test_a_stream_over_rest_is_events_that_come_as_they_are_sent(planted_gateway: Gateway) -> None:
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    thing, go_on = gateway.stack.messages.response(path), threading.Event()

    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.send_initial_metadata((("x-given", "by the service"),))
        yield thing(id="first")
        go_on.wait(10)
        yield thing(id="second")

    gateway.stack.behave(path, watch)
    with gateway.http.stream("GET", WATCH, headers=gateway.bearer()) as answer:
        assert (answer.status_code, answer.headers["content-type"], answer.headers["x-given"]) == (200, "text/event-stream", "by the service")
        assert not [name for name in answer.headers if name.startswith("grpc-")]
        assert "content-length" not in answer.headers
        chunks = answer.iter_text()
        assert [event["id"] for event in events(next(chunks))] == ["first"]
        go_on.set()
        assert [event["id"] for event in events("".join(chunks))] == ["second"]


def test_a_stream_may_be_longer_than_an_answer(planted_gateway: Gateway) -> None:
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    thing = gateway.stack.messages.response(path)
    gateway.stack.behave(path, lambda _, __: (thing(title="x" * MEBIBYTE) for _number in range(8)))
    assert len(events(gateway.request("GET", WATCH).text)) == 8


def test_an_error_before_the_first_message_is_an_answer_like_any_other(planted_gateway: Gateway) -> None:
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"

    def refuse(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.OUT_OF_RANGE, "too far")
        yield

    gateway.stack.behave(path, refuse)
    assert_error(gateway.request("GET", WATCH), 400, 11)


def test_a_stream_that_a_replica_would_not_begin_begins_elsewhere(planted_gateway: Gateway) -> None:
    """A draining replica does this. After the first message, the client itself must resume on another replica."""
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    thing = gateway.stack.messages.response(path)
    gateway.stack.tasks[0].behave(path, _drained)
    gateway.stack.tasks[1].behave(path, lambda _, __: iter([thing(id="elsewhere")]))
    for _ in range(4):
        assert [event["id"] for event in events(gateway.request("GET", WATCH).text)] == ["elsewhere"]


def _drained(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
    yield


@pytest.mark.alone("fills the gateway's buffers, and measures when a stream that is not read ends")
def test_a_stream_that_is_not_read_is_reset(planted_gateway: Gateway) -> None:
    """grpc cannot reset such a stream, because the service's status waits behind the unread messages."""
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    thing, ended = gateway.stack.messages.response(path), threading.Event()

    def flood(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        while context.is_active():
            yield thing(title="x" * 64 * 1024)

    gateway.stack.behave(path, flood)
    with _unread(gateway, WATCH):
        assert not ended.wait(STREAM_IDLE_SECONDS / 2)
        assert ended.wait(STREAM_IDLE_SECONDS * 2)


@contextlib.contextmanager
def _unread(gateway: Gateway, path: str) -> Iterator[None]:
    """A client that sends a request and does not read the answer."""
    request = f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: {gateway.bearer()['authorization']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.settings.gateway_port)) as client:
        client.sendall(request.encode())
        yield


@pytest.mark.alone("fills the gateway's buffers, and measures what other streams wait")
def test_clients_that_do_not_read_hold_up_no_other_stream(planted_gateway: Gateway) -> None:
    """The streams of all clients share a few connections to a replica. Unread messages use up the windows of these connections."""
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    thing = gateway.stack.messages.response(path)

    sent: list[int] = []

    def flood(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        while context.is_active() and request.id == "flood":
            sent.append(1)
            yield thing(title="x" * 64 * 1024)
        yield thing(id="done")

    gateway.stack.behave(path, flood)
    with contextlib.ExitStack() as slow:
        for _ in range(SLOW_READERS):
            slow.enter_context(_unread(gateway, f"{WATCH}?id=flood"))
        wait_until(lambda: gateway.stack.calls(path) >= SLOW_READERS)
        before = -1
        while before != len(sent):  # until all buffers are full
            before = len(sent)
            time.sleep(0.5)
        for _ in range(4):
            assert [event["id"] for event in events(gateway.request("GET", WATCH).text)] == ["done"]
