"""WatchTasks during outages, drains and with slow readers: no change is lost or repeated, and other clients are not affected."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from tests.e2e.test_redis_away import Outage, dead, stuck
from tests.support.accounts import Account
from tests.support.observed import log_lines, log_size, metric
from tests.support.outage import heal
from tests.support.task_api import CONNECTION
from tests.support.waiting import eventually
from tests.support.watchers import OVER, PATH, Watcher, Way, over_grpc, over_sse
from tests.support.writes import Write, writes

OUTAGE = pytest.mark.outage("kills and stops what watchers use")

# The two seconds of the contract, plus the round trip on a loaded machine.
IN_TIME_SECONDS = 2.0 + 0.3
# Much longer than needed, also on a loaded machine.
CUT_OFF_WITHIN_SECONDS = 30.0
# For the slow reader: the bytes written meanwhile, and the memory by which the replica may grow.
WRITTEN_BYTES, GROWN_BYTES = 48 * 1024 * 1024, 32 * 1024 * 1024
STREAMS = "grpc_server_streams_in_flight"
# Of one way. That the gateway leads so many to the same replica is as good as impossible.
MOST_WATCHERS = 40
LARGE = "x" * 10_000
BATCH_OF_LARGE = 100


@pytest.fixture
def breakable_write(breakable_rest: httpx.AsyncClient, breakable_account: Account) -> Write:
    return writes(breakable_rest, breakable_account)


@pytest.fixture
def breakable_ways(
    breakable_rest: httpx.AsyncClient, breakable_gateway: grpc.aio.Channel, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel]
) -> Mapping[str, Way]:
    first, second = map(over_grpc, breakable_replicas)
    return {"task-1": first, "task-2": second, "gRPC, gateway": over_grpc(breakable_gateway), "SSE": over_sse(breakable_rest)}


@contextlib.asynccontextmanager
async def _writing(write: Write) -> AsyncIterator[list[str]]:
    """Writes continuously during the block. Yields the titles of the answered writes, in order."""
    titles: list[str] = []

    async def go_on() -> None:
        while True:
            title = f"{len(titles)}"
            # A write fails while the gateway is down; the loop then tries again.
            with contextlib.suppress(httpx.TransportError, AssertionError):
                await write("CreateTask", {"task": {"title": title}})
                titles.append(title)
            await asyncio.sleep(0.02)

    writing = asyncio.create_task(go_on())
    try:
        yield titles
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def _require_all(way: Way, account: Account, watcher: Watcher, stack: Stack) -> None:
    """Fails unless the watcher's changes, plus those after it resumes, are exactly the change log."""
    database = await asyncpg.connect(stack.state.database_url)
    try:
        log = await database.fetch("SELECT task_id FROM task.changes WHERE user_id = $1 ORDER BY seq", UUID(account.id))
    finally:
        await database.close()
    async with Watcher(way, account, watcher.resume_token) as resumed:
        await resumed.changed(len(log) - len(watcher.changes))
        await asyncio.sleep(0.1)
        assert [one.task["id"] for one in (*watcher.changes, *resumed.changes)] == [str(change["task_id"]) for change in log]


@pytest.mark.alone("an outage, with a bound on the time until a change is sent")
@pytest.mark.parametrize("outage", [dead, stuck])
async def test_without_valkey_a_change_is_told_in_time(
    outage: Outage, breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    async with contextlib.AsyncExitStack() as watching:
        watchers = [await watching.enter_async_context(Watcher(way, breakable_account)) for way in breakable_ways.values()]
        async with outage(breakable):
            for number in range(4):
                await breakable_write("CreateTask", {"task": {"title": f"{number}"}})
                await asyncio.gather(*(watcher.changed(number + 1, IN_TIME_SECONDS) for watcher in watchers))
                # The writes fall at different times of the one-second polling interval.
                await asyncio.sleep(0.3)
        await heal(breakable)
        await breakable_write("CreateTask", {"task": {"title": "back"}})
        await asyncio.gather(*(watcher.changed(5, IN_TIME_SECONDS) for watcher in watchers))


@OUTAGE
async def test_a_killed_replica_costs_a_watcher_nothing_but_the_way_to_another(
    breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    async with contextlib.AsyncExitStack() as watching:
        names: list[str] = []
        watchers: list[Watcher] = []
        # The gateway balances: by each way several watchers, until it has led one of them to task-1.
        for way, at_least in (("task-1", 1), ("gRPC, gateway", 3), ("SSE", 3)):
            before = await metric(breakable, "task-1", STREAMS)
            while names.count(way) < at_least or await metric(breakable, "task-1", STREAMS) == before:
                assert names.count(way) < MOST_WATCHERS
                names.append(way)
                watchers.append(await watching.enter_async_context(Watcher(breakable_ways[way], breakable_account)))
        async with _writing(breakable_write) as titles:
            await asyncio.gather(*(watcher.changed(10) for watcher in watchers))
            await breakable.kill("task-1")
            assert (await watchers[0].ended()).code == "UNAVAILABLE"
            so_far = len(titles)
            await eventually(lambda: _more(titles, so_far + 10), within=10)
            # The gateway takes a second to close an HTTP/1.1 connection.
            await asyncio.sleep(1.5)
        ends = {(name, watcher.end.code) for name, watcher in zip(names, watchers, strict=True) if watcher.end is not None}
        # INTERNAL: gRPC reports it for a reset stream. An SSE connection is closed.
        assert ends == {("task-1", "UNAVAILABLE"), ("gRPC, gateway", "INTERNAL"), ("SSE", CONNECTION)}
        for name, watcher in zip(names, watchers, strict=True):
            await _require_all(breakable_ways["task-2" if name == "task-1" else name], breakable_account, watcher, breakable)


async def _more(titles: Sequence[str], count: int) -> None:
    assert len(titles) >= count


@OUTAGE
async def test_a_replica_that_stops_says_so_and_its_watchers_go_on_elsewhere(
    breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    ways = {name: way for name, way in breakable_ways.items() if name != "task-2"}
    async with contextlib.AsyncExitStack() as watching:
        # Two by each way through the gateway, which balances them over both replicas.
        watchers = [(name, await watching.enter_async_context(Watcher(way, breakable_account))) for name, way in [*ways.items()] * 2]
        async with _writing(breakable_write):
            await breakable.kill("task-1", SIGTERM)
            await asyncio.sleep(0.2)
        ends = {(name, watcher.end.code, watcher.end.reason) for name, watcher in watchers if watcher.end is not None}
        assert ("task-1", "UNAVAILABLE", "SERVICE_STOPPING") in ends
        assert ends <= {(name, "UNAVAILABLE", "SERVICE_STOPPING") for name in ways} | {("SSE", OVER, "")}
        assert len([watcher for _, watcher in watchers if watcher.end is None]) >= 1
        for name, watcher in watchers:
            await _require_all(breakable_ways["task-2" if name == "task-1" else name], breakable_account, watcher, breakable)


@OUTAGE
async def test_a_gateway_that_is_killed_and_comes_back_costs_a_watcher_nothing(
    breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    names = ("gRPC, gateway", "SSE")
    async with contextlib.AsyncExitStack() as watching:
        watchers = {name: await watching.enter_async_context(Watcher(breakable_ways[name], breakable_account)) for name in names}
        async with _writing(breakable_write) as titles:
            await asyncio.gather(*(watcher.changed(10) for watcher in watchers.values()))
            await breakable.kill("gateway")
            assert {(await watcher.ended()).code for watcher in watchers.values()} == {"UNAVAILABLE", CONNECTION}
            so_far = len(titles)
            await breakable.start_process("gateway")
            await eventually(lambda: _more(titles, so_far + 10), within=10)
        for name, watcher in watchers.items():
            await _require_all(breakable_ways[name], breakable_account, watcher, breakable)


# --- slow readers


@OUTAGE
async def test_who_does_not_read_is_cut_off_and_others_go_on(
    breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    await breakable.kill("task-2")
    since, before = log_size(breakable, "task-1"), _memory(breakable, "task-1")
    written = WRITTEN_BYTES // (BATCH_OF_LARGE * len(LARGE))
    async with Watcher(breakable_ways["task-1"], breakable_account) as direct, Watcher(breakable_ways["SSE"], breakable_account) as reader:
        with contextlib.closing(_deaf(breakable, breakable_account)), contextlib.closing(_deaf(breakable, breakable_account)):
            most = 0
            for number in range(written):
                await breakable_write("BatchCreateTasks", {"requests": [{"task": {"title": "t", "description": LARGE}}] * BATCH_OF_LARGE})
                # The clients that read receive all changes.
                await asyncio.gather(*(watcher.changed((number + 1) * BATCH_OF_LARGE) for watcher in (direct, reader)))
                most = max(most, _memory(breakable, "task-1"))
            await eventually(lambda: _require_cut_off(breakable, since, 2), within=CUT_OFF_WITHIN_SECONDS)
        assert direct.end is reader.end is None
        assert await metric(breakable, "task-1", "task_watches") == 2
    assert most - before < GROWN_BYTES, f"the replica grew by {(most - before) >> 20} MiB"


async def _require_cut_off(stack: Stack, since: int, count: int) -> None:
    lines = [line for line in log_lines(stack, "task-1", since) if line.get("grpc_method") == "WatchTasks" and line["event"] == "call"]
    assert [(line["grpc_code"], line["cause"].split(" ")[0]) for line in lines] == [("RESOURCE_EXHAUSTED", "SlowReader")] * count


def _deaf(stack: Stack, account: Account) -> socket.socket:
    """Opens a stream of server-sent events and never reads from it."""
    url = urlsplit(stack.state.url)
    client = socket.create_connection((url.hostname, url.port or 0))
    client.sendall(f"GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {account.access_token}\r\n\r\n".encode())
    return client


def _memory(stack: Stack, process: str) -> int:
    """Returns the resident memory of a process, in bytes."""
    pid = stack.state.processes[process].pid
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
