"""WatchTasks against the running system, by every way there is: gRPC straight to a replica, gRPC and server-sent events through the gateway."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from servicekit.upkeep import BATCH
from task_service.upkeep_repository import SWEEP
from tests.conftest import AccountFactory
from tests.contract.forgery import forge_of
from tests.e2e.test_redis_away import Outage, dead, stuck
from tests.support.accounts import PASSWORD, Account, log_in
from tests.support.calls import message_of, rest_call, transcoded
from tests.support.descriptors import named
from tests.support.observed import log_lines, log_size, metric
from tests.support.outage import heal
from tests.support.task_api import CONNECTION
from tests.support.waiting import eventually
from tests.support.watchers import OVER, PATH, Told, Watcher, Way, over_grpc, over_sse, refusal

# The contract's two, and what the way there and back may take on a machine that does other things too.
IN_TIME_SECONDS = 2.0 + 0.3
# Of the slow reader: what is written meanwhile, and by how much a service may grow for it.
WRITTEN_BYTES, GROWN_BYTES = 48 * 1024 * 1024, 32 * 1024 * 1024
LARGE = "x" * 10_000
BATCH_OF_LARGE = 100
NEW_PASSWORD = "another horse battery"

# Makes a write by its RPC's name and message in JSON; the answer in JSON.
Write: TypeAlias = Callable[..., Awaitable[Any]]


@pytest.fixture
def ways(rest: httpx.AsyncClient, task_channel: grpc.aio.Channel, gateway_channel: grpc.aio.Channel) -> Mapping[str, Way]:
    return {"gRPC": over_grpc(task_channel), "gRPC, gateway": over_grpc(gateway_channel), "SSE": over_sse(rest)}


@pytest.fixture(params=["gRPC", "gRPC, gateway", "SSE"])
def way(request: pytest.FixtureRequest, ways: Mapping[str, Way]) -> Way:
    """What is asserted must hold for each."""
    return ways[request.param]


@pytest.fixture
def write(rest: httpx.AsyncClient, account: Account) -> Write:
    """Writes of the account."""
    return writes(rest, account)


def writes(rest: httpx.AsyncClient, account: Account) -> Write:
    async def call(name: str, values: Mapping[str, Any]) -> Any:
        response = await rest_call(rest, transcoded(named(name), message_of(named(name), values)), account.headers)
        assert response.is_success, response.text
        return response.json()

    return call


@dataclass
class Everything:
    """Writes of every kind, and what is to be told of each."""

    write: Write
    expected: list[tuple[str, Mapping[str, Any]]]

    async def happen(self) -> None:
        made = await self._change("CREATED", "CreateTask", {"task": {"title": "One\nof two ☂", "labels": ["a"]}})
        await self._change("UPDATED", "UpdateTask", {"task": {"id": made["id"], "priority": 5}})
        # Of what is so already nothing is told.
        await self.write("UpdateTask", {"task": {"id": made["id"], "priority": 5}})
        await self._change("UPDATED", "ReplaceTask", {"task": {"id": made["id"], "title": "Two"}})
        await self._delete("DeleteTask", {"id": made["id"]}, [made["id"]])
        await self._change("RESTORED", "UndeleteTask", {"id": made["id"]})
        batch = await self.write("BatchCreateTasks", {"requests": [{"task": {"title": f"{n}"}} for n in range(5)]})
        self.expected += [("CREATED", task) for task in batch["tasks"]]
        ids = [task["id"] for task in batch["tasks"]]
        changes = [{"task": {"id": id_, "title": f"{id_[-4:]} {n}"}} for n, id_ in enumerate([*ids, ids[0]])]
        self.expected += [("UPDATED", task) for task in (await self.write("BatchUpdateTasks", {"requests": changes}))["tasks"]]
        await self._delete("BatchDeleteTasks", {"requests": [{"id": id_} for id_ in ids[:3]]}, ids[:3])

    async def _change(self, kind: str, name: str, values: Mapping[str, Any]) -> Any:
        task = await self.write(name, values)
        self.expected.append((kind, task))
        return task

    async def _delete(self, name: str, values: Mapping[str, Any], ids: Sequence[str]) -> None:
        before = {task["id"]: task for _, task in self.expected}
        await self.write(name, values)
        self.expected += [("DELETED", before[id_]) for id_ in ids]

    def require(self, told: Sequence[Told], since: int = 0) -> None:
        """It was told of all since then, each as its write was answered; of a deletion the task as it is in the bin."""
        assert [(one.kind, one.task["id"]) for one in told] == [(kind, task["id"]) for kind, task in self.expected[since:]]
        for one, (kind, task) in zip(told, self.expected[since:], strict=True):
            if kind != "DELETED":
                assert one.task == task
                continue
            version = int(task["etag"].strip('"')) + 1
            assert one.task["deleted_at"] == one.task["updated_at"]
            assert one.task == {**task, "etag": f'"{version}"', "updated_at": one.task["updated_at"], "deleted_at": one.task["deleted_at"]}


# --- what is told


async def test_every_change_is_told_once_and_in_order_from_now_or_from_any_token(way: Way, write: Write, account: Account) -> None:
    await write("CreateTask", {"task": {"title": "from before"}})
    everything = Everything(write, [])
    async with Watcher(way, account) as watcher:
        await everything.happen()
        told = await watcher.changed(len(everything.expected))
        everything.require(told)
    # The first message alone is a place as good as any.
    for since, token in [(0, watcher.told[0].resume_token), *((n + 1, told[n].resume_token) for n in (0, 4, 7, len(told) - 2))]:
        async with Watcher(way, account, token) as again:
            await again.changed(len(told) - since)
            everything.require(again.changes, since)
        async with Watcher(way, account, again.told[0].resume_token) as from_the_checkpoint:
            everything.require(await from_the_checkpoint.changed(len(told) - since), since)
    async with Watcher(way, account, watcher.resume_token) as up_to_date:
        await write("CreateTask", {"task": {"title": "at last"}})
        assert [one.task["title"] for one in await up_to_date.changed(1)] == ["at last"]


async def test_every_way_is_told_the_same(ways: Mapping[str, Way], write: Write, account: Account, new_account: AccountFactory) -> None:
    everything = Everything(write, [])
    stranger = await new_account()
    async with contextlib.AsyncExitStack() as watching:
        watchers = [await watching.enter_async_context(Watcher(way, account)) for way in ways.values()]
        others = [await watching.enter_async_context(Watcher(way, stranger)) for way in ways.values()]
        await everything.happen()
        for watcher in watchers:
            everything.require(await watcher.changed(len(everything.expected)))
        assert [other.changes for other in others] == [[]] * len(others)


async def test_a_token_is_its_users_alone(way: Way, account: Account, new_account: AccountFactory) -> None:
    async with Watcher(way, account) as watcher:
        pass
    for who, token in ((await new_account(), watcher.resume_token), (account, "x"), (account, watcher.resume_token[:-1])):
        end = await refusal(way, who, token)
        assert (end.code, end.reason) == ("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN")


async def test_what_is_kept_no_longer_cannot_be_told(way: Way, write: Write, account: Account, system: Stack) -> None:
    async with Watcher(way, account) as watcher:
        for number in range(4):
            await write("CreateTask", {"task": {"title": f"{number}"}})
        told = await watcher.changed(4)
        # The oldest two are older than they are kept.
        await _age(system, account, up_to=2, days=8)
        # Nobody who is up to date notices.
        await write("CreateTask", {"task": {"title": "4"}})
        await watcher.changed(5)
    for token in (watcher.told[0].resume_token, told[0].resume_token):
        end = await refusal(way, account, token)
        assert (end.code, end.reason) == ("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED")
    for place, since in ((told[1], 2), (told[3], 4)):
        async with Watcher(way, account, place.resume_token) as again:
            assert [one.task["title"] for one in await again.changed(5 - since)] == [f"{n}" for n in range(since, 5)]


async def _age(stack: Stack, account: Account, *, up_to: int, days: int) -> None:
    """Makes the first changes older, and has what is too old swept, as the services do now and then."""
    database = await asyncpg.connect(stack.state.database_url)
    try:
        older = "UPDATE task.changes SET at = at - $3::interval WHERE user_id = $1 AND seq <= $2"
        await database.execute(older, UUID(account.id), up_to, timedelta(days=days))
        await database.execute(SWEEP, timedelta(days=30), timedelta(days=7), BATCH)
    finally:
        await database.close()


# --- what ends a stream


async def logout(rest: httpx.AsyncClient, account: Account) -> httpx.Response:
    return await rest.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})


async def revoke(rest: httpx.AsyncClient, account: Account) -> httpx.Response:
    other = await log_in(rest, account)
    return await rest.delete(f"/api/v1/auth/sessions/{account.claims['sid']}", headers=other.headers)


async def change_password(rest: httpx.AsyncClient, account: Account) -> httpx.Response:
    other = await log_in(rest, account)
    return await rest.post("/api/v1/auth/password", json={"current_password": PASSWORD, "new_password": NEW_PASSWORD}, headers=other.headers)


async def delete_account(rest: httpx.AsyncClient, account: Account) -> httpx.Response:
    return await rest.post("/api/v1/users/me:delete", json={"password": PASSWORD}, headers=account.headers)


@pytest.mark.parametrize("ending", [logout, revoke, change_password, delete_account])
async def test_a_stream_ends_with_its_session(
    ending: Callable[[httpx.AsyncClient, Account], Awaitable[httpx.Response]], ways: Mapping[str, Way], rest: httpx.AsyncClient, account: Account
) -> None:
    other = await log_in(rest, account)
    async with contextlib.AsyncExitStack() as watching:
        watchers = {name: await watching.enter_async_context(Watcher(way, account)) for name, way in ways.items()}
        others = [await watching.enter_async_context(Watcher(way, other)) for way in ways.values()]
        answer = await ending(rest, account)
        assert answer.is_success, answer.text
        ends = dict(zip(watchers, await asyncio.gather(*(watcher.ended(IN_TIME_SECONDS) for watcher in watchers.values())), strict=True))
        for name, end in ends.items():
            assert (end.code, end.reason) == ((OVER, "") if name == "SSE" else ("UNAUTHENTICATED", "TOKEN_INVALID"))
        await asyncio.sleep(0.2)
        # The user's other session goes on, unless it was ended too.
        if ending in {logout, revoke}:
            assert [watcher.end for watcher in others] == [None] * len(others)
    assert (await refusal(ways["SSE"], account)).code == "UNAUTHENTICATED"


async def test_a_stream_ends_with_its_token_and_goes_on_with_the_next(way: Way, write: Write, account: Account, system: Stack) -> None:
    expires_at = int(time.time()) + 4
    forge = await forge_of(system.state, account)
    short = replace(account, access_token=forge.signed(claims={"exp": expires_at}))
    async with Watcher(way, short) as watcher:
        await write("CreateTask", {"task": {"title": "in time"}})
        await watcher.changed(1)
        end = await watcher.ended()
        assert (end.code, end.reason) in {(OVER, ""), ("UNAUTHENTICATED", "TOKEN_INVALID")}
        assert 0 <= time.time() - expires_at < 2
    await write("CreateTask", {"task": {"title": "too late"}})
    async with Watcher(way, account, watcher.resume_token) as again:
        assert [one.task["title"] for one in await again.changed(1)] == ["too late"]


async def test_a_client_that_leaves_is_gone(way: Way, account: Account, system: Stack) -> None:
    async def watches() -> float:
        return sum([await metric(system, replica, "task_watches") for replica in ("task-1", "task-2")])

    async def require(count: float) -> None:
        assert await watches() == count

    await eventually(lambda: require(0), within=5)
    async with Watcher(way, account), Watcher(way, account):
        await require(2)
    await eventually(lambda: require(0), within=5)


# --- what is away


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
    """Writes under way: the titles of those that were answered, in order."""
    titles: list[str] = []

    async def go_on() -> None:
        while True:
            title = f"{len(titles)}"
            # Not that of the gateway that is not there: the next one will do.
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
    """What a watcher was told, and what it is told when it resumes, is the log, with nothing left out and nothing twice."""
    database = await asyncpg.connect(stack.state.database_url)
    try:
        log = await database.fetch("SELECT task_id FROM task.changes WHERE user_id = $1 ORDER BY seq", UUID(account.id))
    finally:
        await database.close()
    async with Watcher(way, account, watcher.resume_token) as resumed:
        await resumed.changed(len(log) - len(watcher.changes))
        await asyncio.sleep(0.1)
        assert [one.task["id"] for one in (*watcher.changes, *resumed.changes)] == [str(change["task_id"]) for change in log]


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
                # In all phases of the second between two looks.
                await asyncio.sleep(0.3)
        await heal(breakable)
        await breakable_write("CreateTask", {"task": {"title": "back"}})
        await asyncio.gather(*(watcher.changed(5, IN_TIME_SECONDS) for watcher in watchers))


async def test_a_killed_replica_costs_a_watcher_nothing_but_the_way_to_another(
    breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    async with contextlib.AsyncExitStack() as watching:
        # Some by each way through the gateway, which spreads them.
        names = ["task-1", *["gRPC, gateway"] * 4, *["SSE"] * 4]
        watchers = [await watching.enter_async_context(Watcher(breakable_ways[name], breakable_account)) for name in names]
        async with _writing(breakable_write) as titles:
            await asyncio.gather(*(watcher.changed(10) for watcher in watchers))
            await breakable.kill("task-1")
            assert (await watchers[0].ended()).code == "UNAVAILABLE"
            so_far = len(titles)
            await eventually(lambda: _more(titles, so_far + 10), within=10)
            # The gateway takes a second for closing a connection of HTTP/1.1.
            await asyncio.sleep(1.5)
        ends = {(name, watcher.end.code) for name, watcher in zip(names, watchers, strict=True) if watcher.end is not None}
        # What gRPC makes of a stream that was reset; over SSE it is cut off.
        assert ends == {("task-1", "UNAVAILABLE"), ("gRPC, gateway", "INTERNAL"), ("SSE", CONNECTION)}
        for name, watcher in zip(names, watchers, strict=True):
            await _require_all(breakable_ways["task-2" if name == "task-1" else name], breakable_account, watcher, breakable)


async def _more(titles: Sequence[str], count: int) -> None:
    assert len(titles) >= count


async def test_a_replica_that_stops_says_so_and_its_watchers_go_on_elsewhere(
    breakable: Stack, breakable_write: Write, breakable_ways: Mapping[str, Way], breakable_account: Account
) -> None:
    ways = {name: way for name, way in breakable_ways.items() if name != "task-2"}
    async with contextlib.AsyncExitStack() as watching:
        # Two by each way through the gateway, which spreads them.
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
                # Those who read are told all the while.
                await asyncio.gather(*(watcher.changed((number + 1) * BATCH_OF_LARGE) for watcher in (direct, reader)))
                most = max(most, _memory(breakable, "task-1"))
            await eventually(lambda: _require_cut_off(breakable, since, 2), within=10)
        assert direct.end is reader.end is None
        assert await metric(breakable, "task-1", "task_watches") == 2
    assert most - before < GROWN_BYTES, f"it grew by {(most - before) >> 20} MiB"


async def _require_cut_off(stack: Stack, since: int, count: int) -> None:
    lines = [line for line in log_lines(stack, "task-1", since) if line.get("grpc_method") == "WatchTasks" and line["event"] == "call"]
    assert [(line["grpc_code"], line["cause"].split(" ")[0]) for line in lines] == [("RESOURCE_EXHAUSTED", "SlowReader")] * count


def _deaf(stack: Stack, account: Account) -> socket.socket:
    """A client that asks for server-sent events and reads none."""
    url = urlsplit(stack.state.url)
    client = socket.create_connection((url.hostname, url.port or 0))
    client.sendall(f"GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {account.access_token}\r\n\r\n".encode())
    return client


def _memory(stack: Stack, process: str) -> int:
    """What a process takes of the machine's memory, in bytes."""
    pid = stack.state.processes[process].pid
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
