"""One task with 8 writers and 8 readers, over every protocol and path, during all faults that the cache must survive."""

import asyncio
import contextlib
import hashlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import grpc.aio
import httpx
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from devstack.config import HOST
from devstack.stack import Stack
from task_service.cache.values import FILL, FINISH
from task_service.tasks.cache import VALUE
from tests.faults.witness import Witness
from tests.support.accounts import Account, make_account
from tests.support.history import History
from tests.support.load import Client, Load
from tests.support.observed import metric
from tests.support.outage import frozen, require_whole
from tests.support.proxy import Proxy, proxied
from tests.support.replica import Replica, replica_of
from tests.support.task_api import CallFailed, GrpcTasks, RestTasks, Seen, TaskApi
from tests.support.waiting import eventually

# Less than the timeout of a Redis command, so that the delay does not open the circuit breaker.
LATE_SECONDS = 0.2
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 1.2
FROZEN_SECONDS = (0.1, 20.0)
# How much later one replica reaches Redis again.
LATER_SECONDS = (0.15, 0.35)
# The writers alternate: RUSH_SECONDS concurrently, then CALM_SECONDS one after the other. While they write concurrently, the task is always fenced.
# That state is safe and tests little.
RUSH_SECONDS, CALM_SECONDS = 0.4, 1.2
# How long the clients use the cache before the first fault and after each one.
USE_SECONDS = 1.0
WHOLE_WITHIN_SECONDS = 60.0
ON_WITHIN_SECONDS = 5.0
CAUGHT_WITHIN_SECONDS = 60.0
PAUSE_SECONDS = 0.03
# Each client's pause. Without it the clients use all of the processors, and a replica that is started takes minutes.
BETWEEN_CALLS_SECONDS = 0.01
# The share of the writes after which the task's key is evicted from Redis, and of those after which the generation's hash is.
EVICTED, HASH_EVICTED = 0.5, 0.01

Fault = Callable[["Scene", float], Awaitable[None]]


def _hash(script: str) -> bytes:
    """Returns the hash by which a script is called in Redis."""
    return hashlib.sha1(script.encode()).hexdigest().encode()


class Wire:
    """The connection between a replica and Redis. It delays cache fills, and it can hold the replica between a commit and its FINISH script."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._caught: asyncio.Event | None = None

    async def hold(self, data: bytes) -> None:
        """See Proxy.hold."""
        if _hash(FILL) in data:
            await asyncio.sleep(self._rng.uniform(0, LATE_SECONDS))
        if self._caught is not None and _hash(FINISH) in data:
            self._caught.set()
            # No FINISH script reaches Redis any more.
            await asyncio.Event().wait()

    async def committed(self) -> None:
        """Returns when the replica has committed a write and sends its FINISH script. Until `release`, FINISH scripts do not reach Redis."""
        self._caught = asyncio.Event()
        async with asyncio.timeout(CAUGHT_WITHIN_SECONDS):
            await self._caught.wait()

    def release(self) -> None:
        """Forwards FINISH scripts again."""
        self._caught = None


@dataclass(slots=True)
class Scene:
    """A running system and an additional replica whose connection to Redis the test controls. `say` receives progress messages."""

    stack: Stack
    replica: Replica
    proxy: Proxy
    wire: Wire
    rng: random.Random
    redis: Redis
    rest: httpx.AsyncClient
    # By name; the additional replica is "own".
    channels: dict[str, grpc.aio.Channel]
    say: Callable[[str], None]
    opened: contextlib.AsyncExitStack

    async def channel(self, target: str) -> grpc.aio.Channel:
        """Opens another channel, which closes with the scene."""
        return await self.opened.enter_async_context(grpc.aio.insecure_channel(target))

    async def whole(self) -> None:
        """Waits until all processes are ready and every replica knows the cache as ON, on a busy machine for some time only."""
        await eventually(lambda: require_whole(self.stack), within=WHOLE_WITHIN_SECONDS)
        try:
            await eventually(self._require_cache, within=ON_WITHIN_SECONDS)
        except AssertionError:
            self.say(f"the cache is not ON after {ON_WITHIN_SECONDS:.0f} s")

    async def _require_cache(self) -> None:
        assert await self.replica.metric("task_cache_mode", mode="on") == 1
        for name in ("task-1", "task-2"):
            assert await metric(self.stack, name, "task_cache_mode", mode="on") == 1

    async def own_again(self) -> None:
        """Starts the additional replica and waits until its clients reach it."""
        self.wire.release()
        await self.replica.start()
        async with asyncio.timeout(WHOLE_WITHIN_SECONDS):
            await self.channels["own"].channel_ready()


@contextlib.asynccontextmanager
async def scene_of(stack: Stack, rng: random.Random, say: Callable[[str], None], settings: Mapping[str, str] | None = None) -> AsyncIterator[Scene]:
    """Yields the scene for a healthy system. `settings` are those of the additional replica."""
    redis, wire = urlsplit(stack.state.redis_url), Wire(rng)
    targets = {name: f"{HOST}:{stack.state.processes[name].grpc_port}" for name in ("task-1", "task-2")}
    async with contextlib.AsyncExitStack() as opened:
        proxy = await opened.enter_async_context(proxied(redis.hostname or HOST, redis.port or 0))
        proxy.hold = wire.hold
        replica = await opened.enter_async_context(replica_of(stack, "task-own", redis=proxy, settings=settings))
        targets |= {"own": replica.target, "gateway": stack.state.url.removeprefix("http://")}
        options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100)]
        channels = {name: await opened.enter_async_context(grpc.aio.insecure_channel(target, options)) for name, target in targets.items()}
        rest = await opened.enter_async_context(httpx.AsyncClient(base_url=stack.state.url, timeout=10))
        client = await opened.enter_async_context(Redis.from_url(stack.state.redis_url, retry=Retry(ConstantBackoff(0.1), 20)))
        yield Scene(stack, replica, proxy, wire, rng, client, rest, channels, say, opened)


async def redis_killed(scene: Scene, seconds: float) -> None:
    """Kills Redis for `seconds`; it restarts empty. One replica reaches it later than the others."""
    late = scene.rng.uniform(*LATER_SECONDS)
    scene.say(f"Redis killed for {seconds:.2f} s, unreachable for one replica {late:.2f} s longer")
    await scene.stack.kill("valkey")
    await scene.proxy.stop()
    await asyncio.sleep(seconds)
    await scene.stack.start_process("valkey")
    await asyncio.sleep(late)
    await scene.proxy.start()


async def killed_after_commit(scene: Scene, seconds: float) -> None:
    """Kills the replica between a commit and its update of Redis."""
    await scene.wire.committed()
    await scene.replica.kill()
    scene.say(f"a replica killed between commit and cache update, down for {seconds:.2f} s")
    await asyncio.sleep(seconds)
    await scene.own_again()


async def both(scene: Scene, seconds: float) -> None:
    """Kills the replica between a commit and its update of Redis, and then also Redis."""
    await scene.wire.committed()
    await scene.replica.kill()
    scene.say("a replica killed between commit and cache update, and then")
    await redis_killed(scene, seconds)
    await scene.own_again()


async def redis_swapped(scene: Scene, seconds: float) -> None:
    """Replaces Redis by a copy of itself that is `seconds` old, as a failover does to a replica that was behind."""
    settings: Mapping[str, str] = await scene.redis.config_get("d*")
    await scene.redis.save()
    scene.say(f"Redis replaced by a copy that is {seconds:.2f} s old")
    await asyncio.sleep(seconds)
    await scene.stack.kill("valkey")
    await scene.stack.start_process("valkey")
    (Path(settings["dir"]) / settings["dbfilename"]).unlink()


async def replica_frozen(scene: Scene, seconds: float) -> None:
    """Suspends one of the replicas for up to FROZEN_SECONDS, most often for a short time."""
    name = scene.rng.choice(("task-1", "task-2"))
    shortest, longest = FROZEN_SECONDS
    seconds = shortest * (longest / shortest) ** scene.rng.random()
    scene.say(f"{name} frozen for {seconds:.2f} s")
    with frozen(scene.stack, name):
        await asyncio.sleep(seconds)


async def redis_frozen(scene: Scene, seconds: float) -> None:
    """Suspends Redis, which continues with its old data."""
    scene.say(f"Redis frozen for {seconds:.2f} s")
    with frozen(scene.stack, "valkey"):
        await asyncio.sleep(seconds)


async def cut_off(scene: Scene, seconds: float) -> None:
    """Cuts one replica off from Redis, which the others reach."""
    scene.say(f"one replica cut off from Redis for {seconds:.2f} s")
    await scene.proxy.stop()
    await asyncio.sleep(seconds)
    await scene.proxy.start()


FAULTS: Sequence[Fault] = (redis_killed, killed_after_commit, both, redis_swapped, replica_frozen, redis_frozen, cut_off)


@dataclass(slots=True)
class Clients:
    """The clients of one task, and all answers that they received."""

    scene: Scene
    task: Seen
    witness: Witness
    history: History = field(default_factory=History)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def writer(self, name: str, api: TaskApi) -> Client:
        """Returns a client that gives the task a new title again and again."""

        async def write(request_id: str) -> None:
            await self._write(name, api, request_id)

        return [(f"write by {name}", write)]

    def careful_writer(self, name: str, api: TaskApi) -> Client:
        """Returns a client that reads the task and changes it with that etag. Most of the time another writer is faster."""

        async def write(request_id: str) -> None:
            before = await self.history.read(name, api.get(self.task.id, request_id))
            after = await self._write(name, api, request_id, before.etag)
            assert after.version == before.version + 1

        return [(f"write by {name} with an etag", write)]

    def reader(self, name: str, api: TaskApi) -> Client:
        """Returns a client that calls GetTask."""

        async def read(request_id: str) -> None:
            await self.history.read(name, api.get(self.task.id, request_id))

        return [(f"read by {name}", read)]

    def lister(self, name: str, api: TaskApi) -> Client:
        """Returns a client that calls ListTasks, which bypasses the cache."""

        async def read(request_id: str) -> None:
            await self.history.read(name, only(api.list(request_id)))

        return [(f"list by {name}", read)]

    async def _write(self, name: str, api: TaskApi, request_id: str, etag: str = "") -> Seen:
        if time.monotonic() % (RUSH_SECONDS + CALM_SECONDS) < RUSH_SECONDS:
            return await self._try(name, api, request_id, etag)
        async with self.turn:
            seen = await self._try(name, api, request_id, etag)
            await self._evict()
            await asyncio.sleep(self.scene.rng.uniform(0, PAUSE_SECONDS))
            return seen

    async def _try(self, name: str, api: TaskApi, request_id: str, etag: str) -> Seen:
        title = f"change {next(self.numbers)}"
        self.witness.unanswered.add(request_id)
        try:
            seen = await self.history.write(name, title, api.rename(self.task.id, title, request_id, etag))
        except CallFailed as failed:
            if failed.code == "ABORTED":
                self.witness.unanswered.discard(request_id)
            raise
        self.witness.unanswered.discard(request_id)
        self.witness.answered[request_id] = seen
        return seen

    async def _evict(self) -> None:
        """Deletes the task's key, or the hash of a generation with all of its fences, whatever is running."""
        chance = self.scene.rng.random()
        if chance > EVICTED:
            return
        pattern = "task:3:????????-????-????-????-????????????" if chance < HASH_EVICTED else f"task:3:*:{self.task.id}"
        with contextlib.suppress(RedisError, OSError):
            async for key in self.scene.redis.scan_iter(pattern, count=1000):
                await self.scene.redis.delete(key)


async def contradictions(scene: Scene, rng: random.Random, faults: Sequence[Fault]) -> list[str]:
    """Runs all clients while the faults occur one after the other. Returns the contradictions between their answers and the change log."""
    account = await make_account(scene.rest)
    apis = {name: GrpcTasks(channel, account) for name, channel in scene.channels.items()}
    clients = await _clients(scene, account, apis["gateway"])
    async with Load(_all(clients, {**apis, "rest": RestTasks(scene.rest, account)}), BETWEEN_CALLS_SECONDS) as load:
        await scene.whole()
        await asyncio.sleep(USE_SECONDS)
        for fault in faults:
            await fault(scene, rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
            await scene.whole()
            await asyncio.sleep(USE_SECONDS)
    hits = [await metric(scene.stack, name, "task_cache_reads_total", outcome="hit") for name in ("task-1", "task-2")]
    versions = max(call.seen.version for call in clients.history.calls)
    scene.say(f"{len(load.outcomes)} calls: {dict(load.codes())}; {versions} versions, {sum(hits):.0f} hits")
    database = await asyncpg.connect(scene.stack.state.database_url)
    try:
        found = clients.history.contradictions() + await clients.witness.contradictions(database)
    finally:
        await database.close()
    return found + sorted({f"{call.operation}: {call.message}" for call in load.failures() if call.code not in EXPECTED_CODES})


# The codes with which a call may end while a process is down or because another writer was faster. Any other code is a defect.
EXPECTED_CODES = {"CONNECTION", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"}


async def _clients(scene: Scene, account: Account, api: TaskApi) -> Clients:
    witness = Witness(account, api, random.Random(0))
    clients = Clients(scene, await api.create("created", "create"), witness)
    witness.answered["create"] = clients.task
    await clients.history.write("setup", "change -1", api.rename(clients.task.id, "change -1", "setup"))
    witness.answered["setup"] = clients.history.calls[-1].seen
    return clients


def _all(clients: Clients, apis: dict[str, TaskApi]) -> list[Client]:
    """Returns 8 writers and 8 readers."""
    writers = [clients.writer(name, apis[name]) for name in ("task-1", "task-2", "own", "own", "gateway", "rest")]
    careful = [clients.careful_writer(name, apis[name]) for name in ("own", "gateway")]
    readers = [clients.reader(name, apis[name]) for name in ("task-1", "task-2", "own", "own", "gateway", "rest")]
    listers = [clients.lister(name, apis[name]) for name in ("own", "gateway")]
    return [*writers, *careful, *readers, *listers]


async def only(listed: Awaitable[Sequence[Seen]]) -> Seen:
    """Returns the only task of a list."""
    (seen,) = await listed
    return seen


async def require_kept(scene: Scene, writer: GrpcTasks, task: Seen) -> None:
    """Writes. Fails unless the write leaves a value in Redis, which only a write with its own fence does in ON."""
    written = await writer.rename(task.id, f"before {time.monotonic()}", "write")
    keys = [key async for key in scene.redis.scan_iter(f"task:3:*:{task.id}", count=1000)]
    values = [await scene.redis.get(key) or b"" for key in keys]
    assert any(value.startswith(VALUE) and written.title.encode() in value for value in values)
