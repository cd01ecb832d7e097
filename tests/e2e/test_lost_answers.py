"""Idempotency keys after lost answers: the client's or the database's connection breaks around the commit, or Redis is down."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.config import HOST, PROJECT_ROOT
from devstack.stack import Stack
from tests.conftest import ENVIRONMENT
from tests.contract.insider import secrets_of
from tests.e2e.scenes import WITHIN_SECONDS, WRITES, Scene, SceneFactory, Way, done, every_write, make_scene, over_grpc, over_rest, require_replays
from tests.support.answers import Answer
from tests.support.databases import login
from tests.support.descriptors import Rpc
from tests.support.ports import free_ports
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually

# The same limit as a stack's for its processes.
STARTED_WITHIN_SECONDS = 60.0


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
        await eventually(lambda: scene.require_committed(before), within=WITHIN_SECONDS)
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
            # The service notices that the caller has disconnected and cancels its statement.
            await eventually(lambda: waiting(0), within=WITHIN_SECONDS)
        await scene.require_committed(before, committed=False)
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
    """The service does not know whether the write was committed. The idempotency key does."""
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
    await eventually(lambda: scene.require_committed(before, committed), within=WITHIN_SECONDS)
    await proxy.cut()
    assert (await lost).outcome == "DEPENDENCY_UNAVAILABLE"
    proxy.unmute()
    retried = await done(way, scene)
    assert (retried.outcome, retried.replayed) == ("OK", "true" if committed else None)
    await scene.require_logged(before + scene.changes)
    await require_replays(ways, scene, retried)


@contextlib.asynccontextmanager
async def _cuttable(system: Stack, by: str) -> AsyncIterator[tuple[Proxy, Way]]:
    """Yields a proxy and a way through it: REST to the gateway, or gRPC to the first replica."""
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
    """Makes the write. Fails if an answer arrives."""
    try:
        answer = await done(way, scene)
    except httpx.TransportError:
        return
    assert answer.error is not None, "the call was answered"
    assert (answer.error.code, answer.outcome) == (grpc.StatusCode.UNAVAILABLE.value[0], "")


async def _answered(way: Way, scene: Scene) -> Answer:
    """Repeats the write. Fails unless an answer arrives: a channel may need a moment to notice that its connection is broken."""
    answer = await done(way, scene)
    assert answer.outcome
    return answer


@pytest.fixture(scope="module")
async def cut_off(system: Stack) -> AsyncIterator[tuple[Proxy, Way]]:
    """An additional replica, and the proxy between it and PostgreSQL."""
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
            "KEY_ENCRYPTION_KEY": secrets_of(state).key_encryption_key,
            "JWKS_URL": f"http://{HOST}:{state.processes['auth-1'].ops_port}/.well-known/jwks.json",
            "AUTH_GRPC_ENDPOINT": f"{HOST}:{state.processes['auth-1'].grpc_port}",
            "BIND_HOST": HOST,
            "ENVIRONMENT": "development",
            "GRPC_PORT": str(grpc_port),
            "OPS_PORT": str(ops_port),
            "DRAIN_DELAY_SECONDS": "0",
        }
        command = (sys.executable, "-m", "task_service", "run")
        process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT_ROOT, env={**os.environ, **ENVIRONMENT, **own}, stdout=DEVNULL)
        try:
            await eventually(lambda: _ready(ops_port), within=STARTED_WITHIN_SECONDS)
            async with grpc.aio.insecure_channel(f"{HOST}:{grpc_port}") as channel:
                yield proxy, over_grpc(channel)
        finally:
            process.terminate()
            await process.wait()


async def _ready(port: int) -> None:
    async with httpx.AsyncClient(timeout=1) as client:
        assert (await client.get(f"http://{HOST}:{port}/readyz")).status_code == httpx.codes.OK


@pytest.mark.outage("kills Valkey")
async def test_without_redis_keys_are_as_good(
    breakable: Stack, breakable_rest: httpx.AsyncClient, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel]
) -> None:
    """All writes in one outage: executed before it and replayed during it, executed during it, and replayed after it."""
    ways = {"rest": over_rest(breakable_rest), "first": over_grpc(breakable_replicas[0]), "second": over_grpc(breakable_replicas[1])}
    async with asyncpg.create_pool(breakable.state.database_url, min_size=0, max_size=4) as postgres:
        before = [await make_scene(breakable_rest, postgres, rpc) for rpc in WRITES]
        during = [await make_scene(breakable_rest, postgres, rpc) for rpc in WRITES]
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
