"""Idempotency keys, for each write that there is and whatever may happen to it: done once, and answered as it was answered first.

The writes come from the descriptors, what they ask for from the contract's table: a new write is covered by its row.
"""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc.aio
import httpx
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from devstack.config import HOST, PROJECT_ROOT
from devstack.stack import Stack
from tests.conftest import ENVIRONMENT
from tests.contract.insider import secrets_of
from tests.contract.table import World, filled, make_world, row_of
from tests.gateway.stack import free_ports
from tests.support.accounts import Account
from tests.support.answers import Answer, by_grpc, by_rest
from tests.support.calls import message_of
from tests.support.databases import login
from tests.support.descriptors import Rpc, is_output_only, named, rpcs
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually

WRITES = [rpc for rpc in rpcs() if rpc.program == "task" and rpc.writes]
every_write = pytest.mark.parametrize("rpc", WRITES, ids=lambda rpc: rpc.name.rpartition(".")[2])

REUSED = "IDEMPOTENCY_KEY_REUSED"
OTHER_ID = "0190b5a0-0000-7000-8000-000000000001"
KEY: Mapping[str, str] = {"idempotency-key": "the key"}
WITHIN_SECONDS = 5.0
DAY = timedelta(hours=24)
# What a write that is done a second time is answered with, where that is no success.
SECOND_TIME = {"DeleteTask": "TASK_NOT_FOUND", "BatchDeleteTasks": "TASK_NOT_FOUND", "UndeleteTask": "TASK_NOT_DELETED"}
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"

# One way to the system: makes a call.
Way = Callable[[Rpc, Message, Account, Mapping[str, str]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Scene:
    """A write in a world of its own, and the database to look into."""

    rpc: Rpc
    world: World
    account: Account
    message: Any
    postgres: asyncpg.Pool

    @property
    def changes(self) -> int:
        """How many changes it makes."""
        return len(self.message.requests) if "requests" in self.message.DESCRIPTOR.fields_by_name else 1

    @property
    def second_time(self) -> str:
        """What it is answered with if it is done again."""
        return SECOND_TIME.get(self.rpc.name.rpartition(".")[2], "OK")

    async def logged(self) -> int:
        """How many changes the user's log has. Fails unless that is what the counter says."""
        row = await self.postgres.fetchrow(
            "SELECT count(*), (SELECT last_seq FROM task.counters WHERE user_id = $1) AS last FROM task.changes WHERE user_id = $1", self.account.id
        )
        assert row[0] == row[1]
        return int(row[0])

    async def require_logged(self, count: int) -> None:
        """Fails unless the log has so many."""
        assert await self.logged() == count

    async def age(self, by: timedelta) -> None:
        """Has the user's keys be older."""
        await self.postgres.execute("UPDATE task.idempotency_keys SET created_at = created_at - $2::interval WHERE user_id = $1", self.account.id, by)

    @contextlib.asynccontextmanager
    async def held_up(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """No write of the user gets on as long as this lasts. What it gives fails unless so many wait."""
        async with self.postgres.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM task.counters WHERE user_id = $1 FOR UPDATE", self.account.id)
            pid = connection.get_server_pid()

            async def waiting(count: int) -> None:
                assert await self.postgres.fetchval(BLOCKED, pid) == count

            yield waiting


SceneFactory = Callable[[Rpc], Awaitable[Scene]]


@pytest.fixture
async def postgres(system: Stack) -> AsyncIterator[asyncpg.Pool]:
    """The system's database, as its superuser."""
    async with asyncpg.create_pool(system.state.database_url, min_size=0, max_size=4) as pool:
        yield pool


@pytest.fixture
def scene_of(rest: httpx.AsyncClient, postgres: asyncpg.Pool) -> SceneFactory:
    """Makes scenes."""
    return lambda rpc: _scene(rest, postgres, rpc)


async def _scene(rest: httpx.AsyncClient, postgres: asyncpg.Pool, rpc: Rpc) -> Scene:
    world, account = await make_world(rest)
    return Scene(rpc, world, account, message_of(rpc, filled(row_of(rpc.name).message, world)), postgres)


@pytest.fixture
async def ways(system: Stack, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel) -> AsyncIterator[dict[str, Way]]:
    """REST and gRPC through the gateway, and gRPC straight to each replica."""
    ports = [system.state.processes[name].grpc_port for name in ("task-1", "task-2")]
    async with grpc.aio.insecure_channel(f"{HOST}:{ports[0]}") as first, grpc.aio.insecure_channel(f"{HOST}:{ports[1]}") as second:
        yield {"rest": over_rest(rest), "gateway": over_grpc(gateway_channel), "first": over_grpc(first), "second": over_grpc(second)}


def over_rest(client: httpx.AsyncClient) -> Way:
    """The way by this client."""
    return lambda *call: by_rest(client, *call)


def over_grpc(channel: grpc.aio.Channel) -> Way:
    """The way by this channel."""
    return lambda *call: by_grpc(channel, *call)


async def done(way: Way, scene: Scene, headers: Mapping[str, str] = KEY) -> Answer:
    """The scene's write, by some way, under the key."""
    return await way(scene.rpc, scene.message, scene.account, headers)


async def require_replays(ways: Mapping[str, Way], scene: Scene, first: Answer) -> None:
    """Fails unless each way answers as at first, and says so, and nothing is done."""
    before = await scene.logged()
    for name, way in ways.items():
        again = await done(way, scene)
        assert (again.outcome, again.replayed) == ("OK", "true"), f"{name}: {again}"
        assert again.values == first.values, name
    assert await scene.logged() == before


# What goes as it should.


@every_write
@pytest.mark.parametrize("by", ["rest", "gateway", "first", "second"])
async def test_the_same_request_is_answered_as_at_first_by_every_way(rpc: Rpc, by: str, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """Whichever replica did it; REST and gRPC say the same, so it is the same request. And whatever happened meanwhile."""
    scene = await scene_of(rpc)
    before = await scene.logged()
    first = await done(ways[by], scene)
    assert (first.outcome, first.replayed) == ("OK", None)
    await scene.require_logged(before + scene.changes)
    for task_id in (scene.world.task_id, scene.world.binned_task_id):
        message = message_of(named("UpdateTask"), {"task": {"id": task_id, "description": "meanwhile"}})
        await ways["first"](named("UpdateTask"), message, scene.account, {})
    await require_replays(ways, scene, first)


@every_write
async def test_many_at_once_are_one_write_and_one_answer(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    scene = await scene_of(rpc)
    before = await scene.logged()
    async with scene.held_up() as waiting:
        calls = [asyncio.create_task(done(way, scene)) for way in (*ways.values(), *ways.values())]
        await eventually(lambda: waiting(1), within=WITHIN_SECONDS)
    found = await asyncio.gather(*calls)
    assert {answer.outcome for answer in found} == {"OK"}
    assert sorted(answer.replayed or "" for answer in found) == ["", *["true"] * 7]
    assert all(answer.values == found[0].values for answer in found)
    await scene.require_logged(before + scene.changes)


@every_write
async def test_without_a_key_it_is_done_again(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """Else the rest would prove nothing."""
    scene = await scene_of(rpc)
    assert (await done(ways["first"], scene, {})).outcome == "OK"
    again = await done(ways["first"], scene, {})
    assert (again.outcome, again.replayed) == (scene.second_time, None)


# What is lost on the way.


@every_write
@pytest.mark.parametrize("by", ["rest", "grpc"])
async def test_an_answer_lost_after_the_commit_is_given_to_the_retry(
    rpc: Rpc, by: str, system: Stack, scene_of: SceneFactory, ways: Mapping[str, Way]
) -> None:
    scene = await scene_of(rpc)
    before = await scene.logged()
    async with _cuttable(system, by) as (proxy, way):
        async with scene.held_up() as waiting:
            lost = asyncio.create_task(_lost(way, scene))
            await eventually(lambda: waiting(1), within=WITHIN_SECONDS)
            proxy.mute()
        await eventually(lambda: scene.require_logged(before + scene.changes), within=WITHIN_SECONDS)
        await proxy.cut()
        await lost
        proxy.unmute()
        retried = await eventually(lambda: _answered(way, scene), within=WITHIN_SECONDS)
    assert (retried.outcome, retried.replayed) == ("OK", "true")
    await scene.require_logged(before + scene.changes)
    await require_replays(ways, scene, retried)


@every_write
@pytest.mark.parametrize("by", ["rest", "grpc"])
async def test_what_is_cut_before_the_commit_is_done_by_the_retry(
    rpc: Rpc, by: str, system: Stack, scene_of: SceneFactory, ways: Mapping[str, Way]
) -> None:
    scene = await scene_of(rpc)
    before = await scene.logged()
    async with _cuttable(system, by) as (proxy, way):
        async with scene.held_up() as waiting:
            lost = asyncio.create_task(_lost(way, scene))
            await eventually(lambda: waiting(1), within=WITHIN_SECONDS)
            await proxy.cut()
            await lost
            # The service notices that its caller is gone, and takes its statement back.
            await eventually(lambda: waiting(0), within=WITHIN_SECONDS)
        await scene.require_logged(before)
        retried = await eventually(lambda: _answered(way, scene), within=WITHIN_SECONDS)
    assert (retried.outcome, retried.replayed) == ("OK", None)
    await scene.require_logged(before + scene.changes)
    await require_replays(ways, scene, retried)


@every_write
@pytest.mark.parametrize("committed", [True, False], ids=["after", "before"])
async def test_postgres_is_cut_off_around_the_commit(
    rpc: Rpc,
    committed: bool,  # noqa: FBT001 - a parameter of the test
    scene_of: SceneFactory,
    ways: Mapping[str, Way],
    cut_off: tuple[Proxy, Way],
) -> None:
    """The service itself does not know then whether it was done; the key does."""
    scene = await scene_of(rpc)
    before = await scene.logged()
    proxy, way = cut_off
    async with scene.held_up() as waiting:
        lost = asyncio.create_task(done(way, scene))
        await eventually(lambda: waiting(1), within=WITHIN_SECONDS)
        proxy.mute()
        if not committed:
            await scene.postgres.fetch(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%task.write%'"
            )
            await eventually(lambda: waiting(0), within=WITHIN_SECONDS)
    after = before + scene.changes * committed
    await eventually(lambda: scene.require_logged(after), within=WITHIN_SECONDS)
    await proxy.cut()
    assert (await lost).outcome == "DEPENDENCY_UNAVAILABLE"
    proxy.unmute()
    retried = await done(way, scene)
    assert (retried.outcome, retried.replayed) == ("OK", "true" if committed else None)
    await scene.require_logged(before + scene.changes)
    await require_replays(ways, scene, retried)


@contextlib.asynccontextmanager
async def _cuttable(system: Stack, by: str) -> AsyncIterator[tuple[Proxy, Way]]:
    """A way that can be cut: REST to the gateway, or gRPC to the first replica."""
    port = urlsplit(system.state.url).port if by == "rest" else system.state.processes["task-1"].grpc_port
    assert port is not None
    async with proxied(HOST, port) as proxy:
        if by == "rest":
            async with httpx.AsyncClient(base_url=f"http://{HOST}:{proxy.port}", timeout=20) as client:
                yield proxy, over_rest(client)
        else:
            async with grpc.aio.insecure_channel(f"{HOST}:{proxy.port}") as channel:
                yield proxy, over_grpc(channel)


async def _lost(way: Way, scene: Scene) -> None:
    """The write, of which nothing is heard."""
    try:
        answer = await done(way, scene)
    except httpx.TransportError:
        return
    assert answer.error is not None, "it was answered"
    assert (answer.error.code, answer.outcome) == (grpc.StatusCode.UNAVAILABLE.value[0], "")


async def _answered(way: Way, scene: Scene) -> Answer:
    """The write, once more. Fails unless it is answered: a channel can take a moment to see that its connection is gone."""
    answer = await done(way, scene)
    assert answer.outcome
    return answer


@pytest.fixture(scope="module")
async def cut_off(system: Stack) -> AsyncIterator[tuple[Proxy, Way]]:
    """One more replica, and the proxy that stands between it and PostgreSQL."""
    state = system.state
    url = urlsplit(login(state, "task_service"))
    assert url.port is not None
    grpc_port, ops_port = free_ports(2)
    async with proxied(HOST, url.port) as proxy:
        own = {
            "DATABASE_URL": url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@{HOST}:{proxy.port}").geturl(),
            "REDIS_URL": state.redis_url,
            "SERVICE_TOKEN": secrets_of(state).service_token,
            "PAGE_TOKEN_KEY": secrets_of(state).page_token_key,
            "JWKS_URL": f"http://{HOST}:{state.processes['auth-1'].ops_port}/.well-known/jwks.json",
            "AUTH_GRPC_ENDPOINT": f"{HOST}:{state.processes['auth-1'].grpc_port}",
            "BIND_HOST": HOST,
            "GRPC_PORT": str(grpc_port),
            "OPS_PORT": str(ops_port),
            "DRAIN_DELAY_SECONDS": "0",
        }
        command = (sys.executable, "-m", "task_service", "run")
        process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT_ROOT, env={**os.environ, **ENVIRONMENT, **own}, stdout=DEVNULL)
        try:
            await eventually(lambda: _ready(ops_port), within=20)
            async with grpc.aio.insecure_channel(f"{HOST}:{grpc_port}") as channel:
                yield proxy, over_grpc(channel)
        finally:
            process.terminate()
            await process.wait()


async def _ready(port: int) -> None:
    async with httpx.AsyncClient(timeout=1) as client:
        assert (await client.get(f"http://{HOST}:{port}/readyz")).status_code == httpx.codes.OK


# What is another request.


@every_write
async def test_another_request_under_the_key_is_refused(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """Whatever of it is another, and also after the first is done no more."""
    scene = await scene_of(rpc)
    first = await done(ways["first"], scene)
    before = await scene.logged()
    others = dict(_others(scene.message))
    assert len(others) >= 2
    for what, other in others.items():
        answer = await ways["second"](rpc, other, scene.account, KEY)
        assert answer.outcome == REUSED, f"{what}: {answer}"
        assert answer.replayed is None
    assert await scene.logged() == before
    await require_replays(ways, scene, first)


@pytest.mark.parametrize("name", ["UpdateTask", "ReplaceTask", "DeleteTask", "UndeleteTask"])
async def test_another_if_match_is_another_request(name: str, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    for given, others in ((None, ("*", '"1"')), ("*", (None, '"1"')), ("{now}", (None, "*", '"9"', '{now}, "9"'))):
        scene = await scene_of(named(name))
        now = '"2"' if name == "UndeleteTask" else '"1"'
        headers = [{**KEY, **({} if value is None else {"if-match": value.format(now=now)})} for value in (given, *others)]
        assert (await done(ways["first"], scene, headers[0])).outcome == "OK"
        for other in headers[1:]:
            assert (await done(ways["rest"], scene, other)).outcome == REUSED, other
        # The etag is none of now any more; what is replayed does not ask for it again.
        assert (await done(ways["rest"], scene, headers[0])).replayed == "true"


@every_write
async def test_another_method_is_another_request(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    scene = await scene_of(rpc)
    first = await done(ways["first"], scene)
    for other in WRITES:
        if other is not rpc:
            message = message_of(other, filled(row_of(other.name).message, scene.world))
            assert (await ways["first"](other, message, scene.account, KEY)).outcome == REUSED, other.name
    await require_replays(ways, scene, first)


@pytest.mark.parametrize(
    ("first", "other", "request_"),
    [
        ("DeleteTask", "UndeleteTask", {"id": "$task_id"}),
        ("UndeleteTask", "DeleteTask", {"id": "$binned_task_id"}),
        ("ReplaceTask", "UpdateTask", {"task": {"id": "$task_id", "title": "Changed"}}),
        ("UpdateTask", "CreateTask", {"task": {"id": "$task_id", "title": "Changed"}}),
        ("BatchUpdateTasks", "BatchCreateTasks", {"requests": [{"task": {"id": "$task_id", "title": "Changed"}}]}),
    ],
)
async def test_also_if_it_is_the_same_bytes(
    first: str, other: str, request_: Mapping[str, Any], scene_of: SceneFactory, ways: Mapping[str, Way]
) -> None:
    scene = await scene_of(named(first))
    messages = [message_of(named(name), filled(request_, scene.world)) for name in (first, other)]
    assert messages[0].SerializeToString() == messages[1].SerializeToString()
    assert (await ways["first"](named(first), messages[0], scene.account, KEY)).outcome == "OK"
    assert (await ways["first"](named(other), messages[1], scene.account, KEY)).outcome == REUSED


@every_write
async def test_another_users_key_is_another_key(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    mine, theirs = [await scene_of(rpc) for _ in range(2)]
    first = await done(ways["first"], mine)
    other = await done(ways["first"], theirs)
    assert (other.outcome, other.replayed) == ("OK", None)
    await require_replays(ways, mine, first)
    # The very same request too: it is about nothing of theirs.
    same = await done(ways["first"], replace(mine, account=(await scene_of(rpc)).account))
    assert same.replayed is None
    assert same.outcome == ("OK" if "CreateTask" in rpc.name else "TASK_NOT_FOUND")


# What is remembered, and for how long.


@every_write
async def test_a_refusal_is_not_remembered(rpc: Rpc, rest: httpx.AsyncClient, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """The same request under the same key is tried anew, and then done."""
    scene = await scene_of(rpc)
    about, binned = scene.world.task_id, scene.world.binned_task_id
    to_bin = [about, scene.world.second_task_id]
    if "$" not in str(row_of(rpc.name).message):
        # Nothing of the state refuses a creation. Other headers do, and another request that is none.
        refused = [await done(ways["first"], scene, {**KEY, "if-match": "*"}), await ways["first"](rpc, rpc.request(), scene.account, KEY)]
        assert [answer.outcome for answer in refused] == ["INVALID_FIELD"] * 2
    elif "$binned_task_id" in str(row_of(rpc.name).message):
        assert (await rest.post(f"/api/v1/tasks/{binned}:undelete", headers=scene.account.headers)).is_success
        assert (await done(ways["first"], scene)).outcome == "TASK_NOT_DELETED"
        assert (await rest.delete(f"/api/v1/tasks/{binned}", headers=scene.account.headers)).is_success
    else:
        # The last of a batch, so that the one before it was done and taken back.
        last = to_bin[scene.changes - 1]
        assert (await rest.delete(f"/api/v1/tasks/{last}", headers=scene.account.headers)).is_success
        assert (await done(ways["first"], scene)).outcome == "TASK_NOT_FOUND"
        assert (await rest.post(f"/api/v1/tasks/{last}:undelete", headers=scene.account.headers)).is_success
    before = await scene.logged()
    first = await done(ways["second"], scene)
    assert (first.outcome, first.replayed) == ("OK", None)
    await scene.require_logged(before + scene.changes)
    await require_replays(ways, scene, first)


@every_write
@pytest.mark.parametrize("swept", [False, True], ids=["not swept", "swept"])
async def test_after_a_day_the_key_is_a_new_one(rpc: Rpc, swept: bool, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:  # noqa: FBT001
    scene = await scene_of(rpc)
    first = await done(ways["first"], scene)
    await scene.age(DAY - timedelta(minutes=5))
    await require_replays(ways, scene, first)
    await scene.age(timedelta(minutes=6))
    if swept:
        await scene.postgres.execute("SELECT task.sweep('365 days', '365 days', 1000)")
        assert await scene.postgres.fetchval("SELECT count(*) FROM task.idempotency_keys WHERE user_id = $1", scene.account.id) == 0
    again = await done(ways["second"], scene)
    assert (again.outcome, again.replayed) == (scene.second_time, None)
    # For any request.
    create = named("CreateTask")
    other = message_of(create, {"task": {"title": "Under a key of yesterday"}})
    if again.error is not None:
        assert (await ways["first"](create, other, scene.account, KEY)).replayed is None
    else:
        await require_replays(ways, scene, again)


async def test_without_redis_keys_are_as_good(
    breakable: Stack, breakable_rest: httpx.AsyncClient, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel]
) -> None:
    """All writes in one outage: done before it and replayed in it, done in it, and replayed after it."""
    ways = {"rest": over_rest(breakable_rest), "first": over_grpc(breakable_replicas[0]), "second": over_grpc(breakable_replicas[1])}
    async with asyncpg.create_pool(breakable.state.database_url, min_size=0, max_size=4) as postgres:
        before = [await _scene(breakable_rest, postgres, rpc) for rpc in WRITES]
        during = [await _scene(breakable_rest, postgres, rpc) for rpc in WRITES]
        answers = [(scene, await done(ways["first"], scene)) for scene in before]
        await breakable.kill("valkey")
        for scene, first in answers:
            await require_replays(ways, scene, first)
        answers += [(scene, await done(ways["first"], scene)) for scene in during]
        for scene, first in answers:
            assert (first.outcome, first.replayed) == ("OK", None)
            await require_replays(ways, scene, first)
        await breakable.start_process("valkey")
        for scene, first in answers:
            await require_replays(ways, scene, first)


def _others(message: Any) -> Iterator[tuple[str, Any]]:
    """The message with one thing of it another, for each thing that it can say; of lists with one less too."""
    present = {field.name for field, _ in message.ListFields()}
    for field in message.DESCRIPTOR.fields:
        if is_output_only(field) and field.name not in present:
            continue
        copy = type(message).FromString(message.SerializeToString())
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            _change(copy, field)
            yield field.name, copy
            continue
        value = getattr(message, field.name)
        for what, other in _others(value[0] if field.is_repeated else value):
            another = type(message).FromString(message.SerializeToString())
            inner = getattr(another, field.name)
            (inner[0] if field.is_repeated else inner).CopyFrom(other)
            yield f"{field.name}.{what}", another
        if field.is_repeated:
            del getattr(copy, field.name)[-1]
            yield f"{field.name} without the last", copy


def _change(message: Any, field: FieldDescriptor) -> None:
    """Sets a field to something else that is valid."""
    name, value = field.name, getattr(message, field.name)
    rules: Any = field.GetOptions().Extensions[validate_pb2.field]  # type: ignore[index]  # the stubs do not know custom options
    if field.is_repeated:
        value.append("another")
    elif field.message_type is not None and field.message_type.name == "FieldMask":
        value.paths[:] = ["priority"]
    elif field.message_type is not None:
        value.seconds += 1
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, name, OTHER_ID if rules.string.uuid or name == "id" else "another")
    else:
        # The first priority, and the first status.
        assert value != 1
        setattr(message, name, 1)
