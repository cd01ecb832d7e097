"""PostgreSQL fails over to a real streaming standby that has lost commits: whatever is known of the lost commits no longer counts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from itertools import count
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.e2e.conftest import ENVIRONMENT, REFUSED_AT_LAST_SECONDS
from tests.support.accounts import Account, log_in, make_account
from tests.support.backups import superuser
from tests.support.observed import metric
from tests.support.outage import frozen, replicas, require_whole
from tests.support.standby import Standby, log_of, promote, standby_of
from tests.support.task_api import CallFailed, GrpcTasks
from tests.support.waiting import eventually
from tests.support.watchers import StreamEnded, Told, over_grpc

pytestmark = pytest.mark.slow("it copies a PostgreSQL and fails over to the copy")

WITHIN_SECONDS = 30.0
KEPT, LOST, NEW = "kept", "lost with the primary", "written afterwards"
LOST_EVENTS = 3
PLACES = "SELECT (SELECT epoch FROM task.feed), (SELECT epoch FROM auth.event_counter), (SELECT generation FROM task.cache_state)"
NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Scene:
    """A user of a system with two replicas of each service, seen through each replica of task_service."""

    stack: Stack
    rest: httpx.AsyncClient
    account: Account
    channels: Sequence[grpc.aio.Channel]

    def apis(self, account: Account | None = None) -> list[GrpcTasks]:
        return [GrpcTasks(channel, account or self.account) for channel in self.channels]

    async def watch(self, token: str = "") -> Told:
        """Returns the first message of a stream."""
        async with contextlib.aclosing(over_grpc(self.channels[0])(self.account, token)) as events:
            return await anext(events)

    async def require_hits(self, task_id: str, title: str) -> None:
        """Requires that each replica answers with this title, and from the cache."""
        for name, api in zip(replicas(self.stack, "task"), self.apis(), strict=True):
            before = await metric(self.stack, name, "task_cache_reads_total", outcome="hit")
            assert (await api.get(task_id, "hit")).title == title
            assert await metric(self.stack, name, "task_cache_reads_total", outcome="hit") > before

    async def require_expired(self, token: str) -> None:
        """Requires that the resume token is rejected."""
        with pytest.raises(StreamEnded) as ended:
            await self.watch(token)
        assert (ended.value.code, ended.value.reason) == ("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED")

    async def require_refused(self, accounts: Sequence[Account]) -> None:
        """Requires that each replica of task_service, and auth_service, rejects the access tokens."""
        for account in accounts:
            for api in self.apis(account):
                assert await _code(api.list("refused")) == "UNAUTHENTICATED"
            for _ in replicas(self.stack, "auth"):
                assert (await self.rest.get("/api/v1/users/me", headers=account.headers)).status_code == httpx.codes.UNAUTHORIZED

    async def fail_over(self, standby: Standby, ended: Sequence[Account]) -> None:
        """Promotes the standby, and ends sessions before any replica asks for events."""
        before = [await self._numbers()]
        await standby.take_over()
        async with contextlib.AsyncExitStack() as closing:
            for name in replicas(self.stack, "auth"):
                closing.enter_context(frozen(self.stack, name))
            server = await closing.enter_async_context(superuser(self.stack, "postgres"))
            database = await closing.enter_async_context(superuser(self.stack))
            for schema in ("auth", "task"):
                with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                    await database.fetchval(f"SELECT {schema}.server()")
            await promote(server)
            for account in ended:
                session = UUID(str(account.claims["sid"]))
                assert await database.fetchval("SELECT auth.end_sessions($1, $2)", UUID(account.id), [session]) == 1
        await eventually(lambda: require_whole(self.stack), within=WITHIN_SECONDS)
        assert before[0] != await self._numbers(), "the epochs and the generation"

    async def _numbers(self) -> list[object]:
        async with superuser(self.stack) as database:
            return list(await database.fetchrow(PLACES) or ())


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(auth_replicas=2, task_replicas=2, environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
async def scene(stack: Stack) -> AsyncIterator[Scene]:
    ports = [stack.state.processes[name].grpc_port for name in replicas(stack, "task")]
    async with contextlib.AsyncExitStack() as closing:
        rest = await closing.enter_async_context(httpx.AsyncClient(base_url=stack.state.url, timeout=20))
        channels = [await closing.enter_async_context(grpc.aio.insecure_channel(f"{HOST}:{port}")) for port in ports]
        yield Scene(stack, rest, await make_account(rest), channels)


@pytest.fixture
async def standby(stack: Stack, scene: Scene) -> AsyncIterator[Standby]:
    """A standby of the database in which the user of the scene exists."""
    async with standby_of(stack, next(NUMBERS)) as standby:
        yield standby


async def test_nothing_of_the_lost_commits_is_believed(scene: Scene, standby: Standby) -> None:
    first = scene.apis()[0]
    task = await first.create(KEPT, "setup")
    sessions = [await log_in(scene.rest, scene.account) for _ in range(2 * LOST_EVENTS + 1)]
    of_before, of_afterwards = sessions[:LOST_EVENTS], sessions[LOST_EVENTS:]
    following = asyncio.create_task(_until_the_end(scene))
    await standby.catch_up()
    await standby.cut_off()
    assert (await first.rename(task.id, LOST, "lost")).title == LOST
    await eventually(lambda: scene.require_hits(task.id, LOST), within=WITHIN_SECONDS)
    for account in of_before:
        assert (await scene.rest.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})).is_success
    await eventually(lambda: scene.require_refused(of_before), within=REFUSED_AT_LAST_SECONDS)
    token = (await scene.watch()).resume_token
    titles = list[str]()
    reading = asyncio.create_task(_read_all_the_time(scene, task.id, titles))

    # More events than were lost: without another epoch, a reader would take only the last of them for new.
    await scene.fail_over(standby, of_afterwards)

    for api in scene.apis():
        assert (await api.get(task.id, "afterwards")).title == KEPT
    await eventually(lambda: scene.require_refused(of_afterwards), within=REFUSED_AT_LAST_SECONDS)
    await scene.require_refused(of_before)
    await scene.require_expired(token)
    assert (await asyncio.wait_for(following, WITHIN_SECONDS)) == "OUT_OF_RANGE"
    await scene.watch((await scene.watch()).resume_token)
    await eventually(lambda: scene.require_hits(task.id, KEPT), within=WITHIN_SECONDS)
    reading.cancel()
    assert set(titles) == {LOST, KEPT}
    assert titles == sorted(titles, key=[LOST, KEPT].index), "no outdated value after the first current one"
    renamed = await first.rename(task.id, NEW, "afterwards")
    await eventually(lambda: scene.require_hits(task.id, NEW), within=WITHIN_SECONDS)
    assert renamed.version == task.version + 1
    for kind in ("auth", "task"):
        assert any("database_failover" in log_of(scene.stack, name) for name in replicas(scene.stack, kind))


async def test_a_promotion_without_a_loss_costs_a_new_list_and_nothing_else(scene: Scene, standby: Standby) -> None:
    task = await scene.apis()[0].create(KEPT, "setup")
    ended, kept = [await log_in(scene.rest, scene.account) for _ in range(2)]
    assert (await scene.rest.post("/api/v1/auth/logout", json={"refresh_token": ended.refresh_token})).is_success
    token = (await scene.watch()).resume_token
    await standby.catch_up()
    await scene.fail_over(standby, [])
    await scene.require_expired(token)
    await scene.require_refused([ended])
    for api in scene.apis(kept):
        assert (await api.get(task.id, "afterwards")).title == KEPT
    await eventually(lambda: scene.require_hits(task.id, KEPT), within=WITHIN_SECONDS)


async def _code(call: Awaitable[object]) -> str:
    try:
        await call
    except CallFailed as failed:
        return failed.code
    return "OK"


async def _read_all_the_time(scene: Scene, task_id: str, titles: list[str]) -> None:
    """Reads the task through each replica in turn, and records the titles in the order of the answers."""
    while True:
        for api in scene.apis():
            with contextlib.suppress(CallFailed):
                titles.append((await api.get(task_id, "reading")).title)
        await asyncio.sleep(0)


async def _until_the_end(scene: Scene) -> str:
    """Follows a stream, and returns the status with which it ends."""
    with pytest.raises(StreamEnded) as ended:
        async for _ in over_grpc(scene.channels[1])(scene.account, ""):
            pass
    return ended.value.code
