"""Readiness: checks whose results are kept and reported by name; and the names that the running services report."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit.errors import DependencyUnavailable
from servicekit.rpc import health as module
from servicekit.rpc.health import Health
from servicekit.rpc.receiving import AT_ONCE, OF_CALLER
from servicekit.rpc.server import GrpcServer
from tests.servicekit.rpc.serving import TASKS, Limits, Serving, server_options, serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Part:
    """A dependency that is available unless `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0
        self.asked = 0

    async def check(self) -> None:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.05)


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
async def server(part: Part) -> AsyncIterator[Serving]:
    async with serving(Limits(checks={"part": part.check})) as made:
        yield made


async def status(channel: grpc.aio.Channel, name: str) -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return int(answer.status)


async def becomes(server: Serving, *, ready: bool) -> None:
    async with asyncio.timeout(10):
        while server.health.ready is not ready:
            await asyncio.sleep(0.01)


async def statuses(server: Serving) -> list[int]:
    return [await status(server.channel, name) for name in ("", TASKS.full_name, "liveness")]


async def test_before_the_first_check_it_is_not_ready(part: Part) -> None:
    part.seconds = 0.05
    health = Health(["a.Service"], {"part": part.check}, CollectorRegistry())
    assert not health.ready
    assert health.failing == {"part": "not checked yet"}
    await health.start()
    assert not health.ready
    await health.stop()


async def test_the_names_follow_readiness_but_for_liveness(server: Serving, part: Part) -> None:
    await becomes(server, ready=True)
    assert await statuses(server) == [SERVING, SERVING, SERVING]
    part.error = OSError("away")
    await becomes(server, ready=False)
    assert await statuses(server) == [NOT_SERVING, NOT_SERVING, SERVING]
    assert server.health.failing == {"part": "OSError: away"}
    part.error = None
    await becomes(server, ready=True)
    assert await statuses(server) == [SERVING, SERVING, SERVING]


async def test_a_check_that_hangs_fails(server: Serving, part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    await becomes(server, ready=True)
    monkeypatch.setattr(module, "CHECK_TIMEOUT_SECONDS", 0.1)
    part.seconds = 30.0
    await becomes(server, ready=False)
    assert server.health.failing["part"].startswith("TimeoutError")


async def test_draining_is_for_good(server: Serving) -> None:
    await becomes(server, ready=True)
    await server.health.drain()
    assert await statuses(server) == [NOT_SERVING, NOT_SERVING, SERVING]
    await asyncio.sleep(0.15)
    assert await statuses(server) == [NOT_SERVING, NOT_SERVING, SERVING]
    assert server.health.failing == {"draining": "shutting down"}


async def test_asking_costs_no_check(server: Serving, part: Part) -> None:
    await becomes(server, ready=True)
    # So long that the interval alone starts few checks, however long the calls take.
    part.seconds = 0.5
    before = part.asked
    for _ in range(50):
        await statuses(server)
    assert part.asked - before < 25


async def test_only_changes_are_logged(server: Serving, part: Part) -> None:
    await becomes(server, ready=True)
    with capture_logs() as logs:
        part.error = OSError("away")
        await becomes(server, ready=False)
        await asyncio.sleep(0.2)
        part.error = None
        await becomes(server, ready=True)
    assert [(line["event"], line["ready"]) for line in logs] == [("readiness_changed", False), ("readiness_changed", True)]


async def test_a_watch_sees_the_change(server: Serving, part: Part) -> None:
    await becomes(server, ready=True)
    call = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    try:
        assert (await call.read()).status == SERVING
        part.error = OSError("away")
        async with asyncio.timeout(10):
            assert (await call.read()).status == NOT_SERVING
    finally:
        call.cancel()


async def test_an_unknown_name_is_not_found(server: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await status(server.channel, "no.such.Service")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_names_of_the_running_services(auth_channel: grpc.aio.Channel, task_channel: grpc.aio.Channel) -> None:
    expected = {
        auth_channel: ("", "liveness", "taskmanager.auth.v1.AuthService", "taskmanager.auth.v1.UserService"),
        task_channel: ("", "liveness", "taskmanager.task.v1.TaskService"),
    }
    for channel, names in expected.items():
        assert [await status(channel, name) for name in names] == [SERVING] * len(names)


async def test_readiness_is_measured(server: Serving, part: Part) -> None:
    def figures() -> tuple[float | None, float | None]:
        return server.registry.get_sample_value("service_ready"), server.registry.get_sample_value("service_ready_check", {"check": "part"})

    await becomes(server, ready=True)
    assert figures() == (1, 1)
    part.error = OSError("away")
    await becomes(server, ready=False)
    assert figures() == (0, 0)
    part.error = None
    await becomes(server, ready=True)
    await server.health.drain()
    assert figures() == (0, 1)


async def test_a_neighbour_is_asked_at_each_call(part: Part) -> None:
    registry = CollectorRegistry()
    health = Health([], {}, registry, {"another.Service": part.check})
    server = GrpcServer(server_options(), health, ())
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await status(channel, "another.Service") == SERVING
        part.error = OSError("away")
        assert await status(channel, "another.Service") == NOT_SERVING
        part.error = None
        assert await status(channel, "another.Service") == SERVING
    await server.stop(0)


async def test_before_the_first_readiness_the_checks_grow_rarer(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check may ask the DNS for names that do not exist yet."""
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 1.0)
    part.error = DependencyUnavailable("part")
    health = Health([], {"part": part.check}, CollectorRegistry())
    await health.start()
    try:
        await asyncio.sleep(2.5)
    finally:
        await health.stop()
    # After 0, 0.05, 0.15, 0.35, 0.75, 1.55 and 2.55 s.
    assert 4 <= part.asked <= 7


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_calls_whose_requests_never_arrive_do_not_delay_the_checks_of_others(server: Serving) -> None:
    await becomes(server, ready=True)
    check = server.channel.stream_unary("/grpc.health.v1.Health/Check")
    metadata = grpc.aio.Metadata(("x-envoy-external-address", "192.0.2.1"))
    begun = [check(never(), metadata=metadata, timeout=10) for _ in range(AT_ONCE + OF_CALLER + 1)]
    await asyncio.sleep(0.3)
    assert await status(server.channel, "") == SERVING
    assert not any(each.done() for each in begun)
    for each in begun:
        each.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


@pytest.mark.parametrize("messages", [[], [b"\xff"]], ids=["none", "other bytes"])
async def test_a_check_needs_a_request(server: Serving, messages: list[bytes]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.channel.stream_unary("/grpc.health.v1.Health/Check")(messages, timeout=5)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
