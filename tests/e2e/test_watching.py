"""WatchTasks on the running system, by every way: gRPC directly to a replica, gRPC and server-sent events through the gateway."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from servicekit.stores.upkeep import BATCH
from task_service.tasks.repository import SWEEP
from tests.conftest import AccountFactory
from tests.contract.forgery import forge_of
from tests.support.accounts import PASSWORD, Account, log_in
from tests.support.observed import metric
from tests.support.tiers import first_quick
from tests.support.waiting import eventually
from tests.support.watchers import OVER, Told, Watcher, Way, over_grpc, over_sse, refusal
from tests.support.writes import Write, writes

NEW_PASSWORD = "another horse battery"


@pytest.fixture
def ways(rest: httpx.AsyncClient, task_channel: grpc.aio.Channel, gateway_channel: grpc.aio.Channel) -> Mapping[str, Way]:
    return {"gRPC": over_grpc(task_channel), "gRPC, gateway": over_grpc(gateway_channel), "SSE": over_sse(rest)}


@pytest.fixture(params=["gRPC", "gRPC, gateway", "SSE"])
def way(request: pytest.FixtureRequest, ways: Mapping[str, Way]) -> Way:
    """The test runs once for each way."""
    return ways[request.param]


@pytest.fixture
def write(rest: httpx.AsyncClient, account: Account) -> Write:
    """Makes writes of the account."""
    return writes(rest, account)


@dataclass
class Everything:
    """Writes of every kind, and the expected message for each."""

    write: Write
    expected: list[tuple[str, Mapping[str, Any]]]

    async def happen(self) -> None:
        made = await self._change("CREATED", "CreateTask", {"task": {"title": "One\nof two ☂", "labels": ["a"]}})
        await self._change("UPDATED", "UpdateTask", {"task": {"id": made["id"], "priority": 5}})
        # An update without a change sends no message.
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
        """Fails unless `told` has all changes after number `since`. Each has the task as the write's answer; a deletion has the task in the bin."""
        assert [(one.kind, one.task["id"]) for one in told] == [(kind, task["id"]) for kind, task in self.expected[since:]]
        for one, (kind, task) in zip(told, self.expected[since:], strict=True):
            if kind != "DELETED":
                assert one.task == task
                continue
            version = int(task["etag"].strip('"')) + 1
            assert one.task["deleted_at"] == one.task["updated_at"]
            assert one.task == {**task, "etag": f'"{version}"', "updated_at": one.task["updated_at"], "deleted_at": one.task["deleted_at"]}


# --- messages


async def test_every_change_is_told_once_and_in_order_from_now_or_from_any_token(way: Way, write: Write, account: Account) -> None:
    await write("CreateTask", {"task": {"title": "from before"}})
    everything = Everything(write, [])
    async with Watcher(way, account) as watcher:
        await everything.happen()
        told = await watcher.changed(len(everything.expected))
        everything.require(told)
    # The resume token of the first message works like any other.
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
        # The two oldest changes are older than the retention time.
        await _age(system, account, up_to=2, days=8)
        # A watcher that is up to date is not affected.
        await write("CreateTask", {"task": {"title": "4"}})
        await watcher.changed(5)
    for token in (watcher.told[0].resume_token, told[0].resume_token):
        end = await refusal(way, account, token)
        assert (end.code, end.reason) == ("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED")
    for place, since in ((told[1], 2), (told[3], 4)):
        async with Watcher(way, account, place.resume_token) as again:
            assert [one.task["title"] for one in await again.changed(5 - since)] == [f"{n}" for n in range(since, 5)]


async def _age(stack: Stack, account: Account, *, up_to: int, days: int) -> None:
    """Makes the first changes older and runs the cleanup, as the services do regularly."""
    database = await asyncpg.connect(stack.state.database_url)
    try:
        older = "UPDATE task.changes SET at = $3 WHERE user_id = $1 AND seq <= $2"
        await database.execute(older, UUID(account.id), up_to, datetime.now(UTC) - timedelta(days=days))
        await database.execute(SWEEP, timedelta(days=30), timedelta(days=7), BATCH)
    finally:
        await database.close()


# --- the end of a stream


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


@pytest.mark.parametrize(
    "ending", first_quick([logout, revoke, change_password, delete_account], ["logout", "revoke", "change_password", "delete_account"])
)
async def test_a_stream_ends_with_its_session(
    ending: Callable[[httpx.AsyncClient, Account], Awaitable[httpx.Response]], ways: Mapping[str, Way], rest: httpx.AsyncClient, account: Account
) -> None:
    other = await log_in(rest, account)
    async with contextlib.AsyncExitStack() as watching:
        watchers = {name: await watching.enter_async_context(Watcher(way, account)) for name, way in ways.items()}
        others = [await watching.enter_async_context(Watcher(way, other)) for way in ways.values()]
        answer = await ending(rest, account)
        assert answer.is_success, answer.text
        ends = dict(zip(watchers, await asyncio.gather(*(watcher.ended() for watcher in watchers.values())), strict=True))
        for name, end in ends.items():
            assert (end.code, end.reason) == ((OVER, "") if name == "SSE" else ("UNAUTHENTICATED", "TOKEN_INVALID"))
        await asyncio.sleep(0.2)
        # The user's other session continues, unless it was ended, too.
        if ending in {logout, revoke}:
            assert [watcher.end for watcher in others] == [None] * len(others)
    # The gateway may choose the replica that has ended none of the streams and learns of the end of the session later.
    refused = await eventually(lambda: refusal(ways["SSE"], account), within=10)
    assert refused.code == "UNAUTHENTICATED"


async def test_a_stream_ends_with_its_token_and_goes_on_with_the_next(way: Way, write: Write, account: Account, system: Stack) -> None:
    forge = await forge_of(system.state, account)
    expires_at = int(time.time()) + 4
    short = replace(account, access_token=forge.signed(claims={"exp": expires_at}))
    async with Watcher(way, short) as watcher:
        await write("CreateTask", {"task": {"title": "in time"}})
        await watcher.changed(1)
        end = await watcher.ended()
        assert (end.code, end.reason) in {(OVER, ""), ("UNAUTHENTICATED", "TOKEN_INVALID")}
        assert 0 <= time.time() - expires_at < 5
    await write("CreateTask", {"task": {"title": "too late"}})
    async with Watcher(way, account, watcher.resume_token) as again:
        assert [one.task["title"] for one in await again.changed(1)] == ["too late"]


async def test_a_client_that_leaves_is_gone(way: Way, account: Account, system: Stack) -> None:
    async def watches() -> float:
        return sum([await metric(system, replica, "task_watches") for replica in ("task-1", "task-2")])

    async def require(count: float) -> None:
        assert await watches() == count

    await eventually(lambda: require(0), within=15)
    async with Watcher(way, account), Watcher(way, account):
        await require(2)
    await eventually(lambda: require(0), within=15)
