"""The layers around a handler, and their order."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from taskmanager.rpc.v1 import access_pb2
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit import deadline
from servicekit.errors import AccessDenied, DeadlineExceeded, ServiceError
from servicekit.rpc.call import Call
from servicekit.rpc.method import Method, methods_of
from servicekit.rpc.status import Failure
from tests.servicekit.rpc.serving import GOOD, SERVICE_TOKENS, TASK_ID, TASKS, USER_ID, Limits, Serving, Tasks, pipeline, serving
from tests.support.errors import ApiError

INVALID = task_service_pb2.GetTaskRequest(id="not-an-id")


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with serving() as made:
        yield made


def reason(answer: Any) -> str:
    assert isinstance(answer, ApiError), answer
    return answer.reason


async def test_a_good_call_reaches_the_handler_with_its_caller(server: Serving) -> None:
    answer = await server.get_task()
    assert (answer.id, answer.title) == (TASK_ID, "Found")
    (call,) = server.tasks.calls
    assert call.identity.user_id == USER_ID


@pytest.mark.parametrize(
    ("metadata", "expected"), [((), "TOKEN_MISSING"), ((("authorization", "Bearer bad"),), "TOKEN_INVALID"), (GOOD, "INVALID_FIELD")]
)
async def test_who_may_not_call_learns_nothing_of_what_is_valid(server: Serving, metadata: Any, expected: str) -> None:
    """Authorization comes before validation (AIP-211)."""
    assert reason(await server.get_task(INVALID, metadata)) == expected
    assert server.tasks.calls == []


@pytest.mark.parametrize(("metadata", "expected"), [((), "TOKEN_MISSING"), (GOOD, "MALFORMED_REQUEST")])
async def test_bytes_that_are_no_message_are_looked_at_last(server: Serving, metadata: Any, expected: str) -> None:
    assert reason(await server.get_task(b"\xff\xff", metadata)) == expected
    assert server.tasks.calls == []


async def test_every_outcome_is_counted_and_logged(server: Serving) -> None:
    async def fault(_: Any, __: Call) -> None:
        raise ZeroDivisionError("a secret")

    with capture_logs() as logs:
        await server.get_task()
        await server.get_task(metadata=())
        await server.get_task(INVALID)
        server.tasks.behaviour = fault
        answer = await server.get_task()
    assert (answer.code, answer.reason) == (13, "INTERNAL_ERROR")
    assert "secret" not in answer.message
    assert [server.handled(code) for code in ("OK", "Unauthenticated", "InvalidArgument", "Internal", "NotFound")] == [1, 1, 1, 1, 0]
    calls = [line for line in logs if line["event"] == "call"]
    assert [line["grpc_code"] for line in calls] == ["OK", "UNAUTHENTICATED", "INVALID_ARGUMENT", "INTERNAL"]
    assert [line.get("user_id") for line in calls] == [str(USER_ID), None, str(USER_ID), str(USER_ID)]
    assert [line["log_level"] for line in calls] == ["info", "info", "info", "error"]
    assert isinstance(calls[3]["exc_info"], ZeroDivisionError)
    assert "Bearer" not in str(calls[:3])


async def test_a_call_has_a_request_id(server: Serving) -> None:
    given = ("made-by-the-gateway", "x" * 128, "x" * 129, "a b", "")
    for request_id in given:
        await server.get_task(metadata=(*GOOD, ("x-request-id", request_id)))
    await server.get_task()
    seen = [call.request_id for call in server.tasks.calls]
    assert seen[:2] == list(given[:2])
    assert len(set(seen)) == 6
    assert all(len(request_id) == 36 for request_id in seen[2:])


async def test_a_call_without_a_deadline_gets_the_default() -> None:
    async def slow(_: Any, __: Call) -> None:
        await asyncio.sleep(30)

    tasks = Tasks()
    tasks.behaviour = slow
    handler = pipeline(CollectorRegistry(), Limits(deadline_seconds=0.1)).wrap(method("GetTask"), tasks.get_task)
    began = time.monotonic()
    with pytest.raises(Failure) as failure:
        await handler(task_service_pb2.GetTaskRequest(id=TASK_ID), call_with())
    assert time.monotonic() - began < 1.0
    assert failure.value.reason == "DEADLINE_EXCEEDED"


async def test_the_clients_deadline_goes_all_the_way_down() -> None:
    left: list[float] = []

    async def look(_: Any, __: Call) -> task_pb2.Task:
        left.append(deadline.bound(100.0))
        return task_pb2.Task()

    tasks = Tasks()
    tasks.behaviour = look
    handler = pipeline(CollectorRegistry()).wrap(method("GetTask"), tasks.get_task)
    await handler(task_service_pb2.GetTaskRequest(id=TASK_ID), call_with(time_remaining=0.5))
    await handler(task_service_pb2.GetTaskRequest(id=TASK_ID), call_with(time_remaining=None))
    assert 0.3 < left[0] <= 0.5
    assert 4.0 < left[1] <= 5.0


async def test_a_handlers_own_timeout_is_not_the_calls() -> None:
    async def times_out(_: Any, __: Call) -> None:
        raise TimeoutError

    tasks = Tasks()
    tasks.behaviour = times_out
    with pytest.raises(Failure) as failure:
        await pipeline(CollectorRegistry()).wrap(method("GetTask"), tasks.get_task)(task_service_pb2.GetTaskRequest(id=TASK_ID), call_with())
    assert failure.value.reason == "INTERNAL_ERROR"


async def test_more_calls_than_the_limit_are_refused_at_once() -> None:
    release = asyncio.Event()

    async def wait(_: Any, __: Call) -> task_pb2.Task:
        await release.wait()
        return task_pb2.Task(title="late")

    async with serving(Limits(concurrent_calls=2)) as server:
        server.tasks.behaviour = wait
        under_way = [asyncio.create_task(server.get_task()) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert server.registry.get_sample_value("grpc_server_calls_in_flight") == 2
        assert reason(await server.get_task()) == "OVERLOADED"
        release.set()
        assert [answer.title for answer in await asyncio.gather(*under_way)] == ["late"] * 2
        assert (await server.get_task()).title == "late"
        assert server.registry.get_sample_value("grpc_server_calls_in_flight") == 0


async def test_a_cancelled_call_is_counted_and_gives_its_place_back() -> None:
    async def wait(_: Any, __: Call) -> None:
        await asyncio.sleep(30)

    async with serving(Limits(concurrent_calls=1)) as server:
        server.tasks.behaviour = wait
        call = asyncio.create_task(server.get_task())
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.1)
        assert server.handled("Cancelled") == 1
        server.tasks.behaviour = server.tasks.answer
        assert (await server.get_task()).title == "Found"


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer good", "ACCESS_DENIED"),
        ("Bearer the-new-service-tokens", "ACCESS_DENIED"),
        ("Bearer the-new-service-toke", "ACCESS_DENIED"),
        ("Bearer \N{LATIN SMALL LETTER E WITH ACUTE}", "ACCESS_DENIED"),
        ("", "TOKEN_MISSING"),
        ("Bearer ", "TOKEN_INVALID"),
        ("Basic the-new-service-token", "TOKEN_INVALID"),
    ],
)
async def test_internal_methods_are_open_to_no_user(authorization: str, expected: str) -> None:
    tasks = Tasks()
    handler = pipeline(CollectorRegistry()).wrap(internal_method(), tasks.get_task)
    with pytest.raises(Failure) as failure:
        await handler(INVALID, call_with(authorization=authorization))
    assert failure.value.reason == expected
    assert tasks.calls == []


@pytest.mark.parametrize("token", SERVICE_TOKENS)
async def test_internal_methods_are_open_to_the_services_by_any_of_their_tokens(token: str) -> None:
    tasks = Tasks()
    handler = pipeline(CollectorRegistry()).wrap(internal_method(), tasks.get_task)
    await handler(task_service_pb2.GetTaskRequest(id=TASK_ID), call_with(authorization=f"Bearer {token}"))
    with pytest.raises(RuntimeError, match="open to anybody"):
        _ = tasks.calls[0].identity
    # Requests of the system's own services are validated too.
    with pytest.raises(Failure) as failure:
        await handler(INVALID, call_with(authorization=f"Bearer {token}"))
    assert failure.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize("token", SERVICE_TOKENS)
async def test_a_service_token_speaks_for_no_user(server: Serving, token: str) -> None:
    assert reason(await server.get_task(metadata=(("authorization", f"Bearer {token}"),))) == "TOKEN_INVALID"


async def test_without_service_tokens_internal_methods_are_open_to_nobody() -> None:
    tasks = Tasks()
    handler = replace(pipeline(CollectorRegistry()), service_tokens=()).wrap(internal_method(), tasks.get_task)
    with pytest.raises(Failure) as failure:
        await handler(task_service_pb2.GetTaskRequest(id=TASK_ID), call_with(authorization=f"Bearer {SERVICE_TOKENS[0]}"))
    assert failure.value.reason == AccessDenied.reason


async def test_public_methods_look_at_no_token() -> None:
    given = method("GetTask")
    public = Method(given.service, given.name, access_pb2.ACCESS_PUBLIC, given.request_type, given.path)
    tasks = Tasks()
    call = call_with(authorization="Bearer bad")
    await pipeline(CollectorRegistry()).wrap(public, tasks.get_task)(task_service_pb2.GetTaskRequest(id=TASK_ID), call)
    with pytest.raises(RuntimeError, match="open to anybody"):
        _ = tasks.calls[0].identity


async def test_the_path_is_compared_when_the_gateway_gives_it(server: Serving) -> None:
    path = ("x-envoy-original-path", "/api/v1/tasks/0190b5a0-0000-7000-8000-00000000000b")
    answer = await server.get_task(metadata=(*GOOD, path))
    assert answer.fields == {"id": "must be the one in the path"}
    same = (path[0], f"/api/v1/tasks/{TASK_ID}")
    assert (await server.get_task(metadata=(*GOOD, same))).title == "Found"


async def test_errors_of_the_service_keep_their_words(server: Serving) -> None:
    async def fails(_: Any, __: Call) -> None:
        raise DeadlineExceeded

    server.tasks.behaviour = fails
    answer = await server.get_task()
    assert (answer.code, answer.reason, answer.message) == (4, "DEADLINE_EXCEEDED", DeadlineExceeded.message)
    assert issubclass(DeadlineExceeded, ServiceError)


def method(name: str) -> Method:
    (found,) = (m for m in methods_of(TASKS) if m.name == name)
    return found


def internal_method() -> Method:
    given = method("GetTask")
    return Method(given.service, given.name, access_pb2.ACCESS_INTERNAL, given.request_type, given.path)


def call_with(*, time_remaining: float | None = None, authorization: str = "Bearer good") -> Call:
    return Call({"authorization": authorization}, time_remaining)
