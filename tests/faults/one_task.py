"""One task with 8 writers and 8 readers, over every protocol and path, during all faults that the cache must survive."""

import asyncio
import contextlib
import hashlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from devstack.config import HOST
from devstack.stack import Stack
from task_service.tasks.cache import FILL, FINISH, VALUE, key_of
from tests.faults.witness import Witness
from tests.support.accounts import Account, make_account
from tests.support.history import History
from tests.support.load import Client, Load
from tests.support.outage import require_whole
from tests.support.proxy import Proxy, proxied
from tests.support.replica import Replica, replica_of
from tests.support.task_api import CallFailed, GrpcTasks, RestTasks, Seen, TaskApi
from tests.support.waiting import eventually

# Less than the timeout of a Redis command, so that the delay does not open the circuit breaker.
LATE_SECONDS = 0.2
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 1.2
# How much later one replica reaches Redis again. Including its probe, that is still before the other replicas use cached values again.
LATER_SECONDS = (0.15, 0.35)
# The writers alternate: RUSH_SECONDS concurrently, then CALM_SECONDS one after the other. While they write concurrently, the cache holds only
# anonymous fences. That state is safe and tests little.
RUSH_SECONDS, CALM_SECONDS = 0.4, 1.2
# The longest time that a write can run after its client has stopped waiting: DATABASE_TIMEOUT_SECONDS of these systems is 2.
GONE_AFTER_SECONDS = 2.5
BEFORE_SECONDS = 0.5
# The time until every replica uses cached values again (servicekit.stores.redis), plus about 1 s of use.
AFTER_SECONDS = 2.5
WHOLE_WITHIN_SECONDS = 15.0
CAUGHT_WITHIN_SECONDS = 10.0
PAUSE_SECONDS = 0.03

Fault = Callable[["Scene", float], Awaitable[None]]


def _hash(script: str) -> bytes:
    """Returns the hash by which redis-py calls a script in Redis."""
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
        """Waits until all processes are ready."""
        await eventually(lambda: require_whole(self.stack), within=WHOLE_WITHIN_SECONDS)

    async def own_again(self) -> None:
        """Starts the additional replica and waits until its clients reach it."""
        self.wire.release()
        await self.replica.start()
        async with asyncio.timeout(WHOLE_WITHIN_SECONDS):
            await self.channels["own"].channel_ready()


@contextlib.asynccontextmanager
async def scene_of(stack: Stack, rng: random.Random, say: Callable[[str], None]) -> AsyncIterator[Scene]:
    """Yields the scene for a healthy system."""
    redis, wire = urlsplit(stack.state.redis_url), Wire(rng)
    targets = {name: f"{HOST}:{stack.state.processes[name].grpc_port}" for name in ("task-1", "task-2")}
    async with contextlib.AsyncExitStack() as opened:
        proxy = await opened.enter_async_context(proxied(redis.hostname or HOST, redis.port or 0))
        proxy.hold = wire.hold
        replica = await opened.enter_async_context(replica_of(stack, "task-own", redis=proxy))
        targets |= {"own": replica.target, "gateway": stack.state.url.removeprefix("http://")}
        options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100)]
        channels = {name: await opened.enter_async_context(grpc.aio.insecure_channel(target, options)) for name, target in targets.items()}
        rest = await opened.enter_async_context(httpx.AsyncClient(base_url=stack.state.url, timeout=10))
        client = await opened.enter_async_context(Redis.from_url(stack.state.redis_url))
        yield Scene(stack, replica, proxy, wire, rng, client, rest, channels, say, opened)


async def redis_killed(scene: Scene, seconds: float) -> None:
    """Kills Redis for `seconds`; it restarts empty. One replica reaches it later than the others and writes without fences until then."""
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


FAULTS: Sequence[Fault] = (redis_killed, killed_after_commit, both)


@dataclass(slots=True)
class Clients:
    """The clients of one task, and all answers that they received."""

    scene: Scene
    task: Seen
    witness: Witness
    history: History = field(default_factory=History)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    under_way: int = 0
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    gone_at: float = float("-inf")

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
        await self.may_begin.wait()
        title = f"change {next(self.numbers)}"
        self.witness.unanswered.add(request_id)
        self.under_way += 1
        try:
            seen = await self.history.write(name, title, api.rename(self.task.id, title, request_id, etag))
        except CallFailed as failed:
            if failed.code == "ABORTED":
                self.witness.unanswered.discard(request_id)
            else:
                self.gone_at = time.monotonic() + GONE_AFTER_SECONDS
            raise
        finally:
            self.under_way -= 1
        self.witness.unanswered.discard(request_id)
        self.witness.answered[request_id] = seen
        return seen

    async def _evict(self) -> None:
        """Deletes the task's key, but not while a write is running: losing its fence would break the rule. See docs/adr/0002-cache-rule.md."""
        if self.under_way == 0 and time.monotonic() > self.gone_at:
            self.may_begin.clear()
            with contextlib.suppress(RedisError, OSError):
                await self.scene.redis.delete(key_of(UUID(self.witness.account.id), UUID(self.task.id)))
            self.may_begin.set()


async def contradictions(scene: Scene, rng: random.Random, faults: Sequence[Fault]) -> list[str]:
    """Runs all clients while the faults occur one after the other. Returns the contradictions between their answers and the change log."""
    account = await make_account(scene.rest)
    apis = {name: GrpcTasks(channel, account) for name, channel in scene.channels.items()}
    clients = await _clients(scene, account, apis["gateway"])
    async with Load(_all(clients, {**apis, "rest": RestTasks(scene.rest, account)})) as load:
        await asyncio.sleep(BEFORE_SECONDS)
        for fault in faults:
            await fault(scene, rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
            await scene.whole()
            await asyncio.sleep(AFTER_SECONDS)
    scene.say(f"{len(load.outcomes)} calls: {dict(load.codes())}; {max(call.seen.version for call in clients.history.calls)} versions")
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
    clients.may_begin.set()
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
    """Writes. Fails unless the write leaves a value in Redis, which only a write with its own fence does."""
    await writer.rename(task.id, f"before {time.monotonic()}", "write")
    keys = [key async for key in scene.redis.scan_iter(f"task:*:{task.id}")]
    assert [held[:1] for key in keys if (held := await scene.redis.get(key))] == [VALUE]
