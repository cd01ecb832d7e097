"""A roll-out of auth_service: the pods that task_service calls end, and others are in the DNS."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator

import pytest

from devstack.stack import Stack
from task_service.accounts import auth_events
from task_service.accounts.auth_events import AuthEvents
from tests.contract.insider import secrets_of
from tests.support.names import NAME, Names, names
from tests.support.ports import free_ports

OLD, NEW = ("127.0.0.2", "127.0.0.3"), ("127.0.0.4", "127.0.0.5")
# After the end of a pod: how long it may still be dialled, and how long the test looks.
LEARNED_SECONDS, LOOKS_SECONDS = 2.0, 4.0
POLL_SECONDS = 0.1


class Pod:
    """An address that leads to auth_service, until the pod ends. Then it refuses connections, and counts them."""

    def __init__(self, host: str, port: int, behind: int) -> None:
        self.port = port
        self._host, self._behind = host, behind
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.ended_at = 0.0
        # When it was dialled after its end, in seconds since.
        self.dialled: list[float] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self.port)

    @property
    def connections(self) -> int:
        return len(self._open)

    def end(self) -> None:
        self.ended_at = time.monotonic()
        for writer in self._open:
            writer.transport.abort()

    def close(self) -> None:
        self.end()
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.ended_at:
            self.dialled.append(time.monotonic() - self.ended_at)
            writer.transport.abort()
            return
        self._open.add(writer)
        with contextlib.suppress(OSError):
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_pump(reader, there), _pump(there_reader, writer), return_exceptions=True)
        self._open.discard(writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@contextlib.asynccontextmanager
async def _pods(behind: int) -> AsyncIterator[dict[str, Pod]]:
    (port,) = free_ports(1)
    pods = {host: Pod(host, port, behind) for host in OLD + NEW}
    try:
        for pod in pods.values():
            await pod.start()
        yield pods
    finally:
        for pod in pods.values():
            pod.close()


async def _poll(events: AuthEvents, seconds: float) -> None:
    """Reads the events as task_service does. Each read must succeed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await events.list_events(after=0)
        await asyncio.sleep(POLL_SECONDS)


@contextlib.asynccontextmanager
async def _following(system: Stack, pods: dict[str, Pod], served: Names) -> AsyncIterator[AuthEvents]:
    """Yields a client that is connected to the old pods."""
    port = next(iter(pods.values())).port
    events = AuthEvents(f"dns://127.0.0.1:{served.port}/{NAME}:{port}", secrets_of(system.state).service_token)
    await events.start()
    try:
        await _poll(events, 1)
        assert [pod.connections for pod in pods.values()] == [1, 1, 0, 0]
        yield events
    finally:
        await events.close()


def _dialled_late(pods: dict[str, Pod]) -> list[float]:
    return [at for pod in pods.values() for at in pod.dialled if at > LEARNED_SECONDS]


async def test_a_pod_that_is_replaced_is_not_dialled_for_long(system: Stack) -> None:
    """No call fails, because the other pod serves. So only the DNS tells that the pod has ended."""
    async with _pods(system.state.processes["auth-1"].grpc_port or 0) as pods, names(*OLD) as served, _following(system, pods, served) as events:
        served.addresses = (OLD[1], NEW[0])
        pods[OLD[0]].end()
        await _poll(events, LOOKS_SECONDS)
        assert _dialled_late(pods) == []
        assert [pods[host].connections for host in served.addresses] == [1, 1]


@pytest.mark.parametrize("rarely", [False, True], ids=["", "a client that asks the DNS rarely"])
async def test_when_all_pods_are_replaced_at_once_no_read_fails(system: Stack, monkeypatch: pytest.MonkeyPatch, *, rarely: bool) -> None:
    """The client replaces its channel. The old channel must connect to nobody any more, whether or not it would learn of the new pods."""
    if rarely:
        options = dict(auth_events.OPTIONS) | {"grpc.dns_min_time_between_resolutions_ms": 60_000}
        monkeypatch.setattr(auth_events, "OPTIONS", tuple(options.items()))
    async with _pods(system.state.processes["auth-1"].grpc_port or 0) as pods, names(*OLD) as served, _following(system, pods, served) as events:
        served.addresses = NEW
        for host in OLD:
            pods[host].end()
        # A service collects garbage rarely.
        gc.disable()
        try:
            await _poll(events, LOOKS_SECONDS)
        finally:
            gc.enable()
        assert _dialled_late(pods) == []
        assert [pods[host].connections for host in NEW] == [1, 1]
