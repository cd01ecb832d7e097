"""The edge: what prevents a server's start, and how the server treats incoming requests."""

import asyncio
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from taskmanager.auth.v1 import user_pb2
from taskmanager.task.v1 import task_pb2

from servicekit.rpc import server as server_module
from servicekit.rpc.call import Call
from servicekit.rpc.health import Health
from servicekit.rpc.method import MissingAccess
from servicekit.rpc.server import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, GrpcServer
from tests.servicekit.rpc.serving import GOOD, TASK_ID, TASKS, Tasks, pipeline, server_options, serving
from tests.servicekit.rpc.test_method import service_with
from tests.support.errors import ApiError


def make_server() -> GrpcServer:
    return GrpcServer(server_options(), Health([], {}, CollectorRegistry()), ())


async def test_a_method_that_does_not_say_who_may_call_it_is_refused() -> None:
    with pytest.raises(MissingAccess):
        make_server().add(service_with(), [object()], pipeline(CollectorRegistry()))


async def test_a_method_without_a_handler_is_refused() -> None:
    with pytest.raises(AttributeError, match="0 handlers have a method get_me"):
        make_server().add(user_pb2.DESCRIPTOR.services_by_name["UserService"], [Tasks()], pipeline(CollectorRegistry()))


async def test_a_method_with_two_handlers_is_refused() -> None:
    with pytest.raises(AttributeError, match="2 handlers have a method"):
        make_server().add(TASKS, [Tasks(), Tasks()], pipeline(CollectorRegistry()))


async def test_a_port_that_is_taken_is_refused() -> None:
    async with serving() as server:
        options = server_options()
        second = GrpcServer(type(options)(options.host, server.port, 60.0, ()), Health([], {}, CollectorRegistry()), ())
        with pytest.raises(RuntimeError):
            await second.start()


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0b" * 500])
async def test_malformed_bytes_are_the_callers_fault(data: bytes) -> None:
    async with serving() as server:
        answer = await server.get_task(data)
        assert isinstance(answer, ApiError)
        assert (answer.code, answer.reason) == (3, "MALFORMED_REQUEST")
        assert server.handled("InvalidArgument") == 1


async def test_a_message_beyond_the_bound_is_refused() -> None:
    async with serving() as server:
        answer = await server.get_task(b"\x0a" + b"x" * MAX_REQUEST_BYTES)
        assert isinstance(answer, ApiError)
        assert answer.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_an_answer_may_be_as_large_as_clients_take() -> None:
    """If the server rejected an answer after its handler, a committed write would be reported as failed."""
    async with serving() as server:

        async def large(_: Any, __: Call) -> Message:
            # The tag and the length of the field take 5 bytes.
            return task_pb2.Task(description="x" * (MAX_ANSWER_BYTES - 5))

        server.tasks.behaviour = large
        answer = await server.get_task()
        assert not isinstance(answer, ApiError), answer
        assert answer.ByteSize() == MAX_ANSWER_BYTES


async def test_metadata_is_text_and_its_last_value_counts() -> None:
    async with serving() as server:
        await server.get_task(metadata=(*GOOD, ("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\x00\xff")))
        (call,) = server.tasks.calls
        assert call.metadata["x-a"] == "2"
        assert "x-b-bin" not in call.metadata


async def test_two_tokens_are_none() -> None:
    """The gateway and the service must not choose different ones of two tokens (RFC 9110 §11.6.2: the header is not a list)."""
    async with serving() as server:
        for first, second in (("good", "bad"), ("bad", "good")):
            answer = await server.get_task(metadata=(("authorization", f"Bearer {first}"), ("authorization", f"Bearer {second}")))
            assert isinstance(answer, ApiError), f"{first}, {second}"
            assert answer.reason == "TOKEN_INVALID"


async def test_stopping_waits_for_calls_under_way() -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def wait(_: object, __: Call) -> task_pb2.Task:
        began.set()
        await release.wait()
        return task_pb2.Task(title="late")

    tasks, health = Tasks(), Health([], {}, CollectorRegistry())
    tasks.behaviour = wait
    server = GrpcServer(server_options(), health, ())
    server.add(TASKS, [tasks], pipeline(CollectorRegistry()))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/taskmanager.task.v1.TaskService/GetTask", response_deserializer=task_pb2.Task.FromString)
        request = b"\x0a\x24" + TASK_ID.encode()
        answer = asyncio.ensure_future(call(request, metadata=grpc.aio.Metadata(*GOOD), timeout=20))
        await began.wait()
        stopping = asyncio.create_task(server.stop(30))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        release.set()
        assert (await answer).title == "late"
        async with asyncio.timeout(10):
            await stopping


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING = 4, 6
ACK = 1


def frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
    """Returns an HTTP/2 frame of the connection (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + payload


@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_answers_no_ping_is_disconnected(*, answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PING_SECONDS", 0.5)
    monkeypatch.setattr(server_module, "PING_TIMEOUT_SECONDS", 0.5)
    pings = 0
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(PREFACE + frame(SETTINGS, 0))

        async def read() -> None:
            nonlocal pings
            while pings < 5:
                header = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(header[:3], "big"))
                kind, flags = header[3], header[4]
                if kind == SETTINGS and not flags & ACK:
                    writer.write(frame(SETTINGS, ACK))
                if kind == PING and not flags & ACK:
                    pings += 1
                    if answers:
                        writer.write(frame(PING, ACK, payload))

        async with asyncio.timeout(20):
            if answers:
                await read()
            else:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await read()
        writer.close()
    assert pings == 5 if answers else 1 <= pings < 5
