"""The layers around a handler, and their order."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from taskmanager.rpc.v1 import access_pb2
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit import deadline
from servicekit.errors import AccessDenied, DeadlineExceeded, ServiceError
from servicekit.rpc.call import Call
from servicekit.rpc.method import Method, methods_of
from servicekit.rpc.pipeline import DEADLINE_MARGIN_SECONDS
from servicekit.rpc.status import Failure
from tests.servicekit.rpc.feeds import feed_service
from tests.servicekit.rpc.serving import GOOD, SERVICE_TOKENS, TASK_ID, TASKS, USER_ID, Limits, Serving, Tasks, pipeline, reading, serving
from tests.support.errors import ApiError
from tests.support.waiting import eventually

GOOD_REQUEST = task_service_pb2.GetTaskRequest(id=TASK_ID)
INVALID = task_service_pb2.GetTaskRequest(id="not-an-id")
WITHIN_SECONDS = 5.0


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
    calls, (failed,) = server.log.calls, logs
    assert [(line["grpc_code"], line.get("reason")) for line in calls] == [
        ("OK", None),
        ("UNAUTHENTICATED", "TOKEN_MISSING"),
        ("INVALID_ARGUMENT", "INVALID_FIELD"),
    ]
    assert [line.get("user_id") for line in calls] == [str(USER_ID), None, str(USER_ID)]
    assert "Bearer" not in str(calls)
    assert (failed["event"], failed["grpc_code"], failed["log_level"], failed["user_id"]) == ("call", "INTERNAL", "error", str(USER_ID))
    assert isinstance(failed["exc_info"], ZeroDivisionError)


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
        await handler(reading(GOOD_REQUEST), call_with())
    assert time.monotonic() - began < 4.0
    assert failure.value.reason == "DEADLINE_EXCEEDED"


class Waiting:
    """Handlers that wait until they are ended, of a unary and of a streaming method, in a pipeline."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = 0
        self._registry = CollectorRegistry()
        self._pipeline = pipeline(self._registry)

    async def call(self, kind: str, time_remaining: float) -> None:
        """Makes a call of the method of this kind."""
        (found,) = (m for m in methods_of(feed_service()) if m.streams == (kind == "stream"))
        request, call = reading(GOOD_REQUEST), call_with(time_remaining=time_remaining)
        if kind == "stream":
            await self._pipeline.wrap_stream(found, self._watch)(request, call, self._send)
        else:
            await self._pipeline.wrap(found, self._get)(request, call)

    @property
    def counted(self) -> dict[str, float]:
        """The codes under which ended calls are counted, with their numbers."""
        samples = [sample for family in self._registry.collect() for sample in family.samples]
        return {each.labels["grpc_code"]: each.value for each in samples if each.name == "grpc_server_handled_total" and each.value}

    async def _get(self, _: Any, __: Call) -> Message:
        try:
            self.begun.set()
            await asyncio.Event().wait()
            raise AssertionError("nobody ended it")
        finally:
            self.ended += 1

    async def _watch(self, request: Any, call: Call) -> AsyncGenerator[Message, None]:
        yield task_pb2.Task()
        yield await self._get(request, call)

    async def _send(self, _: Message) -> None:
        """Discards the message."""


class Clock:
    """A clock that the test sets, in place of the module `time`."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["call", "stream"])
async def test_a_call_whose_deadline_passes_on_the_server_fails_and_is_counted_so(kind: str) -> None:
    waiting = Waiting()
    with pytest.raises(Failure) as failure:
        async with asyncio.timeout(WITHIN_SECONDS):
            await asyncio.create_task(waiting.call(kind, 0.05))
    assert (failure.value.code, failure.value.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert (waiting.counted, waiting.ended) == ({"DeadlineExceeded": 1}, 1)


@pytest.mark.parametrize("kind", ["call", "stream"])
@pytest.mark.parametrize(
    ("left_seconds", "code"),
    [
        (999.0, "Cancelled"),
        (DEADLINE_MARGIN_SECONDS * 1.5, "Cancelled"),
        (DEADLINE_MARGIN_SECONDS * 0.5, "DeadlineExceeded"),
        (0.0, "DeadlineExceeded"),
    ],
    ids=["long-before", "before-the-margin", "within-the-margin", "at-the-deadline"],
)
async def test_a_call_cancelled_at_its_deadline_is_counted_as_one_whose_deadline_passed(
    kind: str, left_seconds: float, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpc's core cancels the call when it notices the deadline first. A client that leaves cancels it too."""
    clock, waiting = Clock(), Waiting()
    monkeypatch.setattr("servicekit.rpc.pipeline.time", clock)
    call = asyncio.create_task(waiting.call(kind, 1000.0))
    async with asyncio.timeout(WITHIN_SECONDS):
        await waiting.begun.wait()
    clock.now += 1000.0 - left_seconds
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (waiting.counted, waiting.ended) == ({code: 1}, 1)


async def test_the_clients_deadline_goes_all_the_way_down() -> None:
    left: list[float] = []

    async def look(_: Any, __: Call) -> task_pb2.Task:
        left.append(deadline.bound(100.0))
        return task_pb2.Task()

    tasks = Tasks()
    tasks.behaviour = look
    handler = pipeline(CollectorRegistry(), Limits(deadline_seconds=60.0)).wrap(method("GetTask"), tasks.get_task)
    await handler(reading(GOOD_REQUEST), call_with(time_remaining=30.0))
    await handler(reading(GOOD_REQUEST), call_with(time_remaining=None))
    assert 20.0 < left[0] <= 30.0
    assert 50.0 < left[1] <= 60.0


async def test_a_handlers_own_timeout_is_not_the_calls() -> None:
    async def times_out(_: Any, __: Call) -> None:
        raise TimeoutError

    tasks = Tasks()
    tasks.behaviour = times_out
    with pytest.raises(Failure) as failure:
        await pipeline(CollectorRegistry()).wrap(method("GetTask"), tasks.get_task)(reading(GOOD_REQUEST), call_with())
    assert failure.value.reason == "INTERNAL_ERROR"


async def test_more_calls_than_the_limit_are_refused_at_once() -> None:
    release = asyncio.Event()

    async def wait(_: Any, __: Call) -> task_pb2.Task:
        await release.wait()
        return task_pb2.Task(title="late")

    async with serving(Limits(concurrent_calls=2)) as server:
        server.tasks.behaviour = wait
        under_way = [asyncio.create_task(server.get_task()) for _ in range(2)]

        async def both_run() -> None:
            assert server.registry.get_sample_value("grpc_server_calls_in_flight") == 2

        await eventually(both_run, within=WITHIN_SECONDS, every=0.01)
        assert reason(await server.get_task()) == "OVERLOADED"
        release.set()
        assert [answer.title for answer in await asyncio.gather(*under_way)] == ["late"] * 2
        assert (await server.get_task()).title == "late"
        assert server.registry.get_sample_value("grpc_server_calls_in_flight") == 0


async def test_a_cancelled_call_is_counted_and_gives_its_place_back() -> None:
    arrived = asyncio.Event()

    async def wait(_: Any, __: Call) -> None:
        arrived.set()
        await asyncio.sleep(30)

    async with serving(Limits(concurrent_calls=1)) as server:
        server.tasks.behaviour = wait
        call = asyncio.create_task(server.get_task())
        async with asyncio.timeout(WITHIN_SECONDS):
            await arrived.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        async def counted() -> None:
            assert server.handled("Cancelled") == 1

        await eventually(counted, within=WITHIN_SECONDS, every=0.01)
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
        await handler(reading(INVALID), call_with(authorization=authorization))
    assert failure.value.reason == expected
    assert tasks.calls == []


@pytest.mark.parametrize("token", SERVICE_TOKENS)
async def test_internal_methods_are_open_to_the_services_by_any_of_their_tokens(token: str) -> None:
    tasks = Tasks()
    handler = pipeline(CollectorRegistry()).wrap(internal_method(), tasks.get_task)
    await handler(reading(GOOD_REQUEST), call_with(authorization=f"Bearer {token}"))
    with pytest.raises(RuntimeError, match="open to anybody"):
        _ = tasks.calls[0].identity
    # Requests of the system's own services are validated too.
    with pytest.raises(Failure) as failure:
        await handler(reading(INVALID), call_with(authorization=f"Bearer {token}"))
    assert failure.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize("token", SERVICE_TOKENS)
async def test_a_service_token_speaks_for_no_user(server: Serving, token: str) -> None:
    assert reason(await server.get_task(metadata=(("authorization", f"Bearer {token}"),))) == "TOKEN_INVALID"


async def test_without_service_tokens_internal_methods_are_open_to_nobody() -> None:
    tasks = Tasks()
    handler = replace(pipeline(CollectorRegistry()), service_tokens=()).wrap(internal_method(), tasks.get_task)
    with pytest.raises(Failure) as failure:
        await handler(reading(GOOD_REQUEST), call_with(authorization=f"Bearer {SERVICE_TOKENS[0]}"))
    assert failure.value.reason == AccessDenied.reason


async def test_public_methods_look_at_no_token() -> None:
    given = method("GetTask")
    public = Method(given.service, given.name, access_pb2.ACCESS_PUBLIC, given.request_type, given.path)
    tasks = Tasks()
    call = call_with(authorization="Bearer bad")
    await pipeline(CollectorRegistry()).wrap(public, tasks.get_task)(reading(GOOD_REQUEST), call)
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
