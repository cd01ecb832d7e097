"""The bytes of large requests: a limit for each user and one for all, and every byte is given back."""

import asyncio
import sys
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import Overloaded
from servicekit.rpc.budget import LARGE_BYTES, ByteBudget
from servicekit.rpc.call import Call
from servicekit.rpc.method import methods_of
from servicekit.rpc.status import Failure
from tests.servicekit.rpc.serving import GOOD, OTHER, OTHER_USER_ID, TASK_ID, TASKS, USER_ID, Limits, Serving, pipeline, reading, serving
from tests.support.waiting import eventually

LARGE = LARGE_BYTES + 1000
WITHIN_SECONDS = 5.0
METHODS = {method.name: method for method in methods_of(TASKS)}
ADA, BOB, EVE = (UUID(int=number) for number in (1, 2, 3))


def test_a_user_and_all_users_have_a_limit() -> None:
    budget = ByteBudget(user_bytes=10, process_bytes=15)
    budget.take(ADA, 6)
    with pytest.raises(Overloaded) as refused:
        budget.take(ADA, 5)
    assert refused.value.retry_after_seconds == 1.0
    budget.take(BOB, 9)
    with pytest.raises(Overloaded):
        budget.take(EVE, 1)
    budget.give_back(ADA, 6)
    budget.take(EVE, 6)
    budget.give_back(EVE, 6)
    budget.give_back(BOB, 9)
    assert not budget._taken
    assert budget._taken_by_all == 0


def test_one_request_is_never_too_large() -> None:
    budget = ByteBudget(user_bytes=10, process_bytes=15)
    budget.take(None, 100)
    with pytest.raises(Overloaded):
        budget.take(None, 1)


def test_a_stream_holds_the_bytes_of_a_large_request_until_it_ends() -> None:
    budget = ByteBudget(user_bytes=LARGE, process_bytes=LARGE)
    with budget.hold(ADA, LARGE_BYTES), budget.hold(ADA, LARGE):
        assert budget._taken == {ADA: LARGE}
        with pytest.raises(Overloaded), budget.hold(ADA, LARGE):
            raise AssertionError
    assert not budget._taken
    with pytest.raises(ZeroDivisionError), budget.hold(ADA, LARGE):
        raise ZeroDivisionError
    assert not budget._taken


@pytest.mark.parametrize("fault", ["no budget", "no message", "the handler"])
async def test_an_error_keeps_nothing_of_a_large_request(fault: str) -> None:
    """grpc keeps the error, and so the frames in its traceback, until a garbage collection."""
    data = of_size(LARGE) if fault != "no message" else b"\xff" * LARGE
    budget = ByteBudget(user_bytes=LARGE, process_bytes=LARGE)
    if fault == "no budget":
        budget.take(USER_ID, LARGE)

    async def fail(_: Any, __: Call) -> Message:
        held = data
        raise ZeroDivisionError(len(held))

    handler = pipeline(CollectorRegistry(), Limits(budget=budget)).wrap(METHODS["GetTask"], fail)
    read, references = reading(data), sys.getrefcount(data)
    # For people, the log shows the variables of the frames, which keeps them.
    with capture_logs(), pytest.raises(Failure) as failure:
        await handler(read, Call({"authorization": "Bearer good"}, None))
    assert failure.value.reason == {"no budget": "OVERLOADED", "no message": "MALFORMED_REQUEST", "the handler": "INTERNAL_ERROR"}[fault]
    assert sys.getrefcount(data) == references


class Held:
    """A server whose large calls wait for `release`, and then fail if `fails`."""

    def __init__(self, server: Serving) -> None:
        self._server = server
        self.release = asyncio.Event()
        self.fails = False
        server.tasks.behaviour = self._run

    async def start(self, metadata: Any = GOOD) -> "asyncio.Task[Any]":
        """Begins a large call. Returns when its handler runs."""
        running = len(self._server.tasks.calls) + 1
        call = asyncio.create_task(self._server.get_task(of_size(LARGE), metadata))

        async def runs() -> None:
            assert len(self._server.tasks.calls) == running

        await eventually(runs, within=WITHIN_SECONDS, every=0.01)
        return call

    async def _run(self, request: Any, call: Call) -> Message:
        if call.request_bytes <= LARGE_BYTES:
            return await self._server.tasks.answer(request, call)
        await self.release.wait()
        if self.fails:
            raise ZeroDivisionError
        return task_pb2.Task(title="Large")


def of_size(size: int) -> bytes:
    """Returns a valid request of GetTask with so many bytes: most of them are a field that the service does not know."""
    known, tag = task_service_pb2.GetTaskRequest(id=TASK_ID).SerializeToString(), b"\xc2\x3e"
    rest = size - len(known) - len(tag) - 3
    length = bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14))
    return known + tag + length + bytes(rest)


async def test_a_served_call_with_a_large_request_takes_its_bytes_while_it_runs() -> None:
    budget = ByteBudget(user_bytes=2 * LARGE, process_bytes=3 * LARGE)
    async with serving(Limits(budget=budget)) as server:
        held = Held(server)
        calls = [await held.start() for _ in range(2)]
        refused = await server.get_task(of_size(LARGE))
        assert (refused.reason, refused.status) == ("OVERLOADED", "RESOURCE_EXHAUSTED")
        calls.append(await held.start(OTHER))
        assert (await server.get_task(of_size(LARGE), OTHER)).reason == "OVERLOADED"
        assert budget._taken == {USER_ID: 2 * LARGE, OTHER_USER_ID: LARGE}
        held.release.set()
        assert [answer.title for answer in await asyncio.gather(*calls)] == ["Large"] * 3
        assert (await server.get_task(of_size(LARGE))).title == "Large"

        async def given_back() -> None:
            assert not budget._taken

        # A call ends for the service after its client has the answer.
        await eventually(given_back, within=5)


async def test_only_a_large_request_is_counted() -> None:
    budget = ByteBudget(user_bytes=LARGE, process_bytes=LARGE)
    async with serving(Limits(budget=budget)) as server:
        held = Held(server)
        call = await held.start()
        assert (await server.get_task(of_size(LARGE_BYTES))).title == "Found"
        assert (await server.get_task(of_size(LARGE_BYTES + 1))).reason == "OVERLOADED"
        held.release.set()
        assert (await call).title == "Large"


@pytest.mark.parametrize(("end", "code"), [("it fails", "Internal"), ("its deadline passes", "DeadlineExceeded"), ("its client leaves", "Cancelled")])
async def test_every_byte_is_given_back_however_a_call_ends(end: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = ByteBudget(user_bytes=LARGE, process_bytes=LARGE)
    if end == "its deadline passes":
        monkeypatch.setattr("tests.support.calls.TIMEOUT_SECONDS", 0.5)
    async with serving(Limits(budget=budget)) as server:
        held = Held(server)
        call = await held.start()
        assert budget._taken == {USER_ID: LARGE}
        if end == "it fails":
            held.fails = True
            held.release.set()
        elif end == "its client leaves":
            call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        async def ended() -> None:
            assert server.handled(code) == 1

        await eventually(ended, within=WITHIN_SECONDS, every=0.01)
        assert not budget._taken
        assert budget._taken_by_all == 0
