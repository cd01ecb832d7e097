"""The way to the services: health, balance, retries, time limits, and replicas that come and go."""

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


def _once_unavailable(stack: Stack, path: str, *, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
    """The method fails on its first call, whichever replica gets it, and then works."""
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


def test_replicas_share_the_calls_of_one_connection(gateway: Gateway, stack: Stack) -> None:
    for _ in range(1000):
        gateway.call(GET_TASK)
    assert all(400 <= service.calls[GET_TASK] <= 600 for service in stack.tasks)


def _slow(stack: Stack, path: str, seconds: float) -> None:
    def behave(_: Any, __: Any) -> Any:
        time.sleep(seconds)
        return stack.messages.response(path)()

    stack.behave(path, behave)


def test_a_call_that_takes_too_long(gateway: Gateway, stack: Stack) -> None:
    """Envoy tells the service of the deadline, so at that moment either of the two may be the first to give up: the code counts."""
    _slow(stack, CREATE_TASK, 3)
    begun = time.monotonic()
    answer = gateway.request("POST", "/api/v1/tasks", json={})
    assert (answer.status_code, answer.json()["code"]) == (504, 4)
    assert 1.8 < time.monotonic() - begun < 2.9
    for deadline in (None, 60):  # no deadline, and one that is longer than the gateway's
        begun = time.monotonic()
        assert gateway.failure(CREATE_TASK, timeout=deadline).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 1.8 < time.monotonic() - begun < 2.9
    begun = time.monotonic()
    answer = gateway.request("POST", "/api/v1/tasks", json={}, headers={"grpc-timeout": "300m"})
    assert (answer.status_code, answer.json()["code"]) == (504, 4)
    assert time.monotonic() - begun < 1


def test_a_service_that_accepts_and_says_nothing(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with gateway_behind(stack, ready=False, task_grpc_endpoints=f"127.0.0.1:{port}", request_timeout_seconds=1) as gateway:
            status = gateway.request("GET", TASK).status_code
            assert status in (503, 504)  # before and after the health check has found out
            wait_until(lambda: gateway.request("GET", TASK).status_code == 503)
            assert_error(gateway.request("GET", TASK), 503, 14, "DEPENDENCY_UNAVAILABLE")


def test_ready_follows_each_service_and_calls_fail_fast(gateway: Gateway, stack: Stack) -> None:
    for services, path in ((stack.tasks, TASK), ([stack.auth], "/api/v1/users/me")):
        for service in services:
            service.set_health(serving=False)
        wait_until(lambda: gateway.http.get("/ready").status_code == 503, timeout=5)
        assert_error(gateway.http.get("/ready"), 503, 14, "DEPENDENCY_UNAVAILABLE")
        assert gateway.http.get("/health").json() == {"status": "healthy"}
        assert gateway.http.get(f"{gateway.ops}/readyz").status_code == 200
        wait_until(lambda path=path: gateway.request("GET", path).status_code == 503, timeout=5)
        assert_error(gateway.request("GET", path), 503, 14, "DEPENDENCY_UNAVAILABLE")
        for service in services:
            service.set_health(serving=True)
        wait_until(lambda: gateway.http.get("/ready").status_code == 200, timeout=5)
        assert gateway.http.get("/ready").json() == {"status": "ready"}


def test_one_replica_is_enough(gateway: Gateway, stack: Stack) -> None:
    stack.tasks[0].set_health(serving=False)
    wait_until(lambda: _none_of_ten(gateway, stack), timeout=5)
    assert gateway.http.get("/ready").status_code == 200
    stack.tasks[0].set_health(serving=True)
    wait_until(lambda: not _none_of_ten(gateway, stack), timeout=5)


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
        assert gateway.request("GET", "/api/v1/users/me").status_code == 200
        assert gateway.http.get("/ready").status_code == 503


@pytest.mark.parametrize("announced", [True, False])
def test_no_call_fails_while_a_replica_drains(tmp_path: Path, *, announced: bool) -> None:
    """With or without a word to the health check before: the rest is GOAWAY's and the retries' work, for writes too."""
    with Stack.started(tmp_path) as stack, gateway_behind(stack) as gateway:
        stack.behave(CREATE_TASK, lambda _, __: time.sleep(0.01) or stack.messages.response(CREATE_TASK)())
        failures: list[grpc.RpcError] = []
        done = threading.Event()
        calls = 0

        def load() -> None:
            nonlocal calls
            while not done.is_set():
                try:
                    gateway.call(CREATE_TASK)
                    calls += 1
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(service.calls[CREATE_TASK] > 50 for service in stack.tasks))
        if announced:
            stack.tasks[0].set_health(serving=False)
            time.sleep(2)
        stack.tasks[0].stop(grace=5)
        survived = calls
        wait_until(lambda: calls > survived + 100)
        done.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]


@pytest.fixture(scope="module")
def planted_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("planted")
    file = folder / "descriptors.binpb"
    file.write_bytes(planted(DESCRIPTORS.read_bytes()))
    with Stack.started(folder, file.read_bytes()) as stack, gateway_behind(stack, descriptors=file, request_timeout_seconds=1) as gateway:
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


def test_a_stream_outlives_the_time_limit_of_calls(planted_gateway: Gateway) -> None:
    gateway, path = planted_gateway, f"/{SERVICE}/WatchThings"
    messages = gateway.stack.messages

    def watch(_: Any, __: Any) -> Iterator[Any]:
        for number in range(3):
            yield messages.response(path)(id=str(number))
            time.sleep(0.8)

    gateway.stack.behave(path, watch)
    call = gateway.channel.unary_stream(path, lambda sent: sent.SerializeToString(), messages.response(path).FromString)
    got = call(messages.request(path)(), metadata=tuple(gateway.bearer().items()))
    assert [message.id for message in got] == ["0", "1", "2"]
    events = gateway.request("GET", "/api/v1/things:watch")
    assert events.headers["content-type"] == "text/event-stream"
    assert [json.loads(line.removeprefix("data: "))["id"] for line in events.text.splitlines() if line] == ["0", "1", "2"]
    with pytest.raises(grpc.RpcError) as late:
        list(call(messages.request(path)(), timeout=1, metadata=tuple(gateway.bearer().items())))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # a reset by Envoy would be INTERNAL
