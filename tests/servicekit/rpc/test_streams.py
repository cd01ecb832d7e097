"""Streaming methods: the same layers as for unary ones, only the client's deadline, and a handler that is closed however the stream ends."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit import deadline
from servicekit.errors import DependencyUnavailable
from servicekit.identity import Identity
from servicekit.process import telemetry
from servicekit.rpc.call import Call
from servicekit.rpc.health import Health
from servicekit.rpc.server import MAX_ANSWER_BYTES, GrpcServer
from tests.servicekit.rpc.feeds import Feed, Feeding, feed_service, feeding, feeding_by, read_all, watch
from tests.servicekit.rpc.serving import GOOD, TASK_ID, USER_ID, Limits, pipeline, server_options
from tests.support.waiting import eventually

INVALID = task_service_pb2.GetTaskRequest(id="not-an-id")
WITHIN_SECONDS = 5.0
# More than the 1000 pending calls that grpc's core allows by default.
MANY = 3000

# A client that watches and prints `first` after the first message. Then it continues to read, or it stops reading.
CLIENT = """
import asyncio, sys
import grpc.aio
from tests.servicekit.rpc.feeds import watch

async def main(port, reads):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = watch(channel)
        await call.read()
        print("first", flush=True)
        while True:
            await (call.read() if reads else asyncio.sleep(60))

asyncio.run(main(sys.argv[1], sys.argv[2] == "reads"))
"""


@pytest.fixture(params=["plain", "traced"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Feeding]:
    """A server without and with OpenTelemetry's interceptor, which wraps streams."""
    async with feeding(interceptors=[telemetry._interceptor()] if request.param == "traced" else []) as made:
        yield made


async def ended(server: Feeding, *codes: str) -> None:
    """Returns when the stream and its handler have ended. The stream is counted once, under one of the codes."""

    async def check() -> None:
        assert sum(server.counted("handled_total", grpc_code=code) or 0 for code in codes) == 1
        assert server.feed.ended == len(server.feed.calls)
        assert server.under_way == 0

    await eventually(check, within=WITHIN_SECONDS, every=0.01)


async def test_messages_come_in_order_and_are_counted(server: Feeding) -> None:
    messages, error = await read_all(server.watch(metadata=(*GOOD, ("x-request-id", "asked"))))
    await ended(server, "OK")
    assert ([message.title for message in messages], error) == (["0", "1", "2"], None)
    assert server.feed.calls[0].identity.user_id == USER_ID
    assert [server.counted(name) for name in ("started_total", "msg_sent_total", "handling_seconds_count")] == [1, 3, 1]
    (line,) = server.log.calls
    assert (line["grpc_method"], line["grpc_code"], line["messages_sent"], line["request_id"]) == ("Watch", "OK", 3, "asked")
    assert line["duration_ms"] > 0


@pytest.mark.parametrize(
    ("request_", "metadata", "expected"),
    [(INVALID, (), "TOKEN_MISSING"), (INVALID, (("authorization", "Bearer bad"),), "TOKEN_INVALID"), (INVALID, GOOD, "INVALID_FIELD")],
)
async def test_it_is_admitted_as_a_call_is(server: Feeding, request_: Message, metadata: Any, expected: str) -> None:
    messages, error = await read_all(server.watch(request_, metadata))
    assert messages == []
    assert error is not None
    assert error.reason == expected
    assert server.feed.calls == []


async def test_an_error_ends_it_with_its_status_and_details(server: Feeding) -> None:
    async def fails(_: Any, __: Call) -> AsyncGenerator[Message, None]:
        yield task_pb2.Task()
        raise DependencyUnavailable("PostgreSQL")

    server.feed.behaviour = fails
    messages, error = await read_all(server.watch())
    assert len(messages) == 1
    assert error is not None
    assert (error.code, error.reason) == (14, "DEPENDENCY_UNAVAILABLE")
    await ended(server, "Unavailable")


async def test_a_fault_is_told_to_the_log_alone(server: Feeding) -> None:
    async def fails(_: Any, __: Call) -> AsyncGenerator[Message, None]:
        yield task_pb2.Task()
        raise ZeroDivisionError("a secret")

    server.feed.behaviour = fails
    with capture_logs() as logs:
        _, error = await read_all(server.watch())
    assert error is not None
    assert (error.code, error.reason) == (13, "INTERNAL_ERROR")
    assert "secret" not in error.message
    assert [type(line["exc_info"]) for line in logs if line["event"] == "call"] == [ZeroDivisionError]


async def test_it_outlives_the_deadline_of_calls_and_so_do_its_statements() -> None:
    left: list[float] = []

    async def lasts(_: Any, __: Call) -> AsyncGenerator[Message, None]:
        left.append(deadline.bound(100.0))
        yield task_pb2.Task()
        await asyncio.sleep(0.4)
        left.append(deadline.bound(100.0))
        yield task_pb2.Task()

    async with feeding(Limits(deadline_seconds=0.2)) as server:
        server.feed.behaviour = lasts
        messages, error = await read_all(server.watch())
    assert (len(messages), error) == (2, None)
    assert left == [100.0, 100.0]


async def test_its_admission_has_the_deadline_of_calls() -> None:
    class Hanging:
        def known(self, _: str) -> Identity | None:
            return None

        async def verify(self, token: str) -> Identity:
            await asyncio.sleep(30)
            raise AssertionError(token)

    feed = Feed()
    async with feeding_by(replace(pipeline(CollectorRegistry(), Limits(deadline_seconds=0.1)), verifier=Hanging()), feed) as (channel, _):
        _, error = await read_all(watch(channel))
    assert error is not None
    assert error.reason == "DEADLINE_EXCEEDED"
    assert feed.calls == []


@pytest.mark.parametrize("behaviour", ["idle", "ticking"])
async def test_the_clients_deadline_ends_it(server: Feeding, behaviour: str) -> None:
    server.feed.behaviour = getattr(server.feed, behaviour)
    _, error = await read_all(server.watch(timeout=1.0))
    assert error is not None
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    # The server's time starts when the request arrives. If the request was under way for longer than DEADLINE_MARGIN_SECONDS, the client's
    # cancellation comes well before the end of the server's time. test_pipeline shows which of the two is counted when.
    (call,) = server.feed.calls
    assert call.time_remaining is not None
    # The client's core sends the time with two or three digits and rounds it up.
    assert 0 < call.time_remaining <= 1.1
    await ended(server, "DeadlineExceeded", "Cancelled")


async def test_streams_are_limited_apart_from_calls() -> None:
    async with feeding(Limits(concurrent_calls=1, concurrent_streams=2)) as server:
        server.feed.behaviour = server.feed.idle
        under_way = [server.watch() for _ in range(2)]
        for call in under_way:
            await call.read()
        assert server.under_way == 2
        assert server.registry.get_sample_value("grpc_server_calls_in_flight") == 0
        messages, error = await read_all(server.watch())
        assert messages == []
        assert error is not None
        assert (error.code, error.reason) == (8, "OVERLOADED")
        await server.get()
        under_way[0].cancel()
        await eventually(lambda: _count(server, 1), within=WITHIN_SECONDS)
        server.feed.behaviour = server.feed.three
        assert len((await read_all(server.watch()))[0]) == 3


@pytest.mark.alone("opens 3000 streams at once, which all must end within a bound")
async def test_all_who_come_at_once_are_taken() -> None:
    """This happens when another replica drains. With its default, grpc's core would reject some of the calls with CANCELLED."""
    async with feeding(Limits(concurrent_streams=MANY)) as server:
        outcomes = await asyncio.gather(*(read_all(server.watch()) for _ in range(MANY)))
    assert [error for _, error in outcomes if error is not None] == []


async def _count(server: Feeding, expected: int) -> None:
    assert server.under_way == expected


@pytest.mark.parametrize("behaviour", ["idle", "ticking", "flooding"])
async def test_a_client_that_cancels_is_let_go_of_at_once(server: Feeding, behaviour: str) -> None:
    server.feed.behaviour = getattr(server.feed, behaviour)
    call = server.watch()
    await call.read()
    call.cancel()
    await ended(server, "Cancelled")
    assert [line["grpc_code"] for line in server.log.calls] == ["CANCELLED"]


@pytest.mark.parametrize(("behaviour", "reads"), [("idle", "reads"), ("ticking", "reads"), ("flooding", "reads"), ("flooding", "does not read")])
async def test_a_client_that_is_killed_is_let_go_of_at_once(server: Feeding, behaviour: str, reads: str, caplog: pytest.LogCaptureFixture) -> None:
    server.feed.behaviour = getattr(server.feed, behaviour)
    async with _client(server, reads) as client:
        client.send_signal(signal.SIGKILL)
        await ended(server, "Cancelled")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("grpc")] == []


async def test_a_write_that_fails_leaves_the_handler_the_time_to_clean_up(server: Feeding) -> None:
    """grpc reports the failed write to the handler before it cancels the call, as when a connection ends at this moment."""
    cleaned: list[str] = []

    async def too_large(_: Any, __: Call) -> AsyncGenerator[Message, None]:
        try:
            yield task_pb2.Task(description="x" * MAX_ANSWER_BYTES)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append("up")

    server.feed.behaviour = too_large
    _, error = await read_all(server.watch())
    assert error is not None
    assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    await ended(server, "Cancelled")
    assert cleaned == ["up"]


@pytest.mark.parametrize("traced", [False, True])
async def test_a_slow_reader_is_cut_off_and_others_go_on(*, traced: bool) -> None:
    # Long enough that a stalled machine does not make `other` a slow reader too.
    limits = Limits(slow_reader_seconds=1.0)
    async with feeding(limits, [telemetry._interceptor()] if traced else []) as server:
        server.feed.behaviour = server.feed.ticking
        other = server.watch()
        await other.read()
        server.feed.behaviour = server.feed.flooding
        slow = server.watch()
        await slow.read()
        with capture_logs() as logs:
            async with asyncio.timeout(WITHIN_SECONDS):
                while server.counted("handled_total", grpc_code="ResourceExhausted") == 0:
                    await other.read()
        (line,) = logs
        assert (line["grpc_code"], line["log_level"]) == ("RESOURCE_EXHAUSTED", "warning")
        assert line["cause"].startswith("SlowReader")
        # The server buffers no more for the client than the connection's windows hold.
        assert line["messages_sent"] * 10_000 < 20_000_000
        assert (server.feed.ended, server.under_way) == (1, 1)
        # A client that continues to read receives the error.
        rest, error = await read_all(slow)
        assert len(rest) <= line["messages_sent"]
        assert error is not None
        assert (error.code, error.reason) == (8, "SLOW_READER")
        for _ in range(3):
            assert (await other.read()).title == "tick"
        other.cancel()


async def test_a_slow_reader_that_leaves_after_it_was_cut_off_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with feeding(Limits(slow_reader_seconds=0.3)) as server:
        before = asyncio.all_tasks()
        server.feed.behaviour = server.feed.flooding
        slow = server.watch()
        await slow.read()
        await ended(server, "ResourceExhausted")
        slow.cancel()

        async def gone() -> None:
            assert not {task.get_name() for task in asyncio.all_tasks() - before if task.get_name().startswith(("rpc_task", "HandleExceptions"))}

        await eventually(gone, within=WITHIN_SECONDS)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("grpc")] == []


async def test_a_reader_that_pauses_for_less_is_not_slow() -> None:
    async def many(_: Any, __: Call) -> AsyncGenerator[Message, None]:
        for _number in range(2_000):
            yield task_pb2.Task(description="x" * 10_000)

    async with feeding(Limits(slow_reader_seconds=3)) as server:
        server.feed.behaviour = many
        call = server.watch()
        await call.read()
        await asyncio.sleep(0.5)
        assert (server.counted("msg_sent_total") or 0) < 2_000
        messages, error = await read_all(call)
        assert (len(messages), error) == (1_999, None)


@pytest.mark.parametrize("behaviour", ["idle", "three"])
async def test_headers_go_before_the_first_message(server: Feeding, behaviour: str) -> None:
    async def with_headers(request: Any, call: Call) -> AsyncGenerator[Message, None]:
        call.response_headers["x-given"] = "with the stream"
        async with contextlib.aclosing(getattr(server.feed, behaviour)(request, call)) as messages:
            async for message in messages:
                yield message

    server.feed.behaviour = with_headers
    call = server.watch()
    assert dict(await call.initial_metadata())["x-given"] == "with the stream"
    await call.read()
    call.cancel()


async def test_headers_go_with_a_stream_of_nothing_and_not_with_an_error(server: Feeding) -> None:
    fails = False

    async def nothing(_: Any, call: Call) -> AsyncGenerator[Message, None]:
        call.response_headers["x-given"] = "with nothing"
        if fails:
            raise DependencyUnavailable("PostgreSQL")
        for never in ():
            yield never

    server.feed.behaviour = nothing
    call = server.watch()
    assert await read_all(call) == ([], None)
    assert dict(await call.initial_metadata())["x-given"] == "with nothing"
    fails = True
    call = server.watch()
    _, error = await read_all(call)
    assert error is not None
    assert "x-given" not in dict(await call.initial_metadata())


async def test_headers_go_with_an_answer(server: Feeding) -> None:
    call = server.get()
    assert (await call).id == TASK_ID
    assert dict(await call.initial_metadata())["x-given"] == "with the answer"


async def test_a_handler_that_is_no_async_generator_is_refused() -> None:
    class Wrong(Feed):
        async def watch(self, request: Any, call: Call) -> Any:
            return self.three(request, call)

    with pytest.raises(TypeError, match=r"planted\.Feed\.Watch"):
        GrpcServer(server_options(), Health([], {}, CollectorRegistry()), ()).add(feed_service(), [Wrong()], pipeline(CollectorRegistry()))


@contextlib.asynccontextmanager
async def _client(server: Feeding, reads: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yields a client process that watches and has received the first message."""
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, str(server.port), reads, stdout=asyncio.subprocess.PIPE)
    try:
        assert client.stdout is not None
        assert await asyncio.wait_for(client.stdout.readline(), 60) == b"first\n"
        yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            client.kill()
        await client.communicate()
