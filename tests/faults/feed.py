"""Users with clients that make random writes and watchers that follow them. At the end their data, the log and the database must agree."""

import asyncio
import contextlib
import itertools
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self
from uuid import UUID

import asyncpg
import grpc.aio
import httpx

from devstack.config import HOST
from devstack.stack import Stack
from task_service.feed.domain import ChangeKind
from task_service.query.domain import Status
from tests.faults.followers import Change, Follower
from tests.faults.writers import User, Writer, by_grpc, by_rest
from tests.support.accounts import log_in, make_account
from tests.support.waiting import eventually
from tests.support.watchers import over_grpc, over_sse

WRITERS_PER_USER: Final = 4
# An access token is valid for 15 minutes, and the campaign may take longer.
LOGIN_SECONDS: Final = 240.0
# The time that the last watcher may need after the recovery: until the next poll, or until a watcher whose stream just ended has resumed.
CAUGHT_UP_SECONDS: Final = 10.0
# The wait for changes that must not arrive.
SURPLUS_SECONDS: Final = 0.5
# The channels reconnect within 200 ms after a process has restarted.
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)
CHANGES: Final = "SELECT request_id, kind, task_id, version, snapshot ->> 'title' AS title, seq FROM task.changes WHERE user_id = $1 ORDER BY seq"
TASKS: Final = "SELECT id, title, status, priority, version, deleted_at IS NOT NULL AS binned FROM task.tasks WHERE user_id = $1"
KINDS: Final = {kind.value: kind.name for kind in ChangeKind}
STATUSES: Final = {status.value: status.name for status in Status}


class Campaign:
    """Two users, each with writers and two followers, on the test's own stack. Inside its `async with` block all followers have opened a stream."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._seed = seed
        self._exits = contextlib.AsyncExitStack()
        self._following: list[asyncio.Task[None]] = []
        self._writers: list[Writer] = []
        self.writes = 0
        self._users: list[tuple[User, list[Follower]]] = []

    async def __aenter__(self) -> Self:
        rest = await self._exits.enter_async_context(httpx.AsyncClient(base_url=self._stack.state.url, timeout=10))
        gateway = await self._channel(self._stack.state.url.removeprefix("http://"))
        replicas = [await self._channel(f"{HOST}:{self._stack.state.processes[name].grpc_port}") for name in ("task-1", "task-2")]
        # The first user's gRPC follower alternates between the replicas, the second user's uses the gateway. Each user also has an SSE follower.
        ways = [itertools.cycle(map(over_grpc, replicas)), itertools.repeat(over_grpc(gateway))]
        for number, way in enumerate(ways):
            user = User(await make_account(rest))
            named_ways = {f"{number} gRPC": way, f"{number} SSE": itertools.repeat(over_sse(rest))}
            followers = [Follower(name, user, its_ways, random.Random(f"{self._seed} {name}")) for name, its_ways in named_ways.items()]
            self._users.append((user, followers))
            for writer in range(WRITERS_PER_USER):
                write = by_rest(rest) if writer % 2 else by_grpc(gateway)
                self._writers.append(Writer(user, write, random.Random(f"{self._seed} {number} {writer}")))
        self._following = [asyncio.create_task(follower.follow()) for follower in self.followers]
        self._following.append(asyncio.create_task(self._stay_logged_in(rest)))
        await asyncio.gather(*(follower.begun.wait() for follower in self.followers))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await self._exits.aclose()

    async def _channel(self, target: str) -> grpc.aio.Channel:
        channel: grpc.aio.Channel = await self._exits.enter_async_context(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS))
        return channel

    @property
    def followers(self) -> list[Follower]:
        """All followers of all users."""
        return [follower for _, followers in self._users for follower in followers]

    async def write(self, writes: int, disturbed: asyncio.Event) -> None:
        """The clients write until at least `writes` writes were answered and `disturbed` is set."""

        async def go_on(writer: Writer) -> None:
            while self.writes < writes or not disturbed.is_set():
                answered = await writer.write()
                self.writes += answered

        async with asyncio.TaskGroup() as all_:
            for writer in self._writers:
                all_.create_task(go_on(writer))

    async def contradictions(self) -> list[str]:
        """Returns the contradictions between the answers, the log, the tasks in the database and the followers. All processes must be up again."""
        database = await asyncpg.connect(self._stack.state.database_url)
        try:
            of_users = [[*await _of_the_log(database, user), *await _of_followers(database, user, followers)] for user, followers in self._users]
        finally:
            await database.close()
        # Raise the error of a follower that failed.
        for task in self._following:
            if task.done():
                await task
        return [text for texts in of_users for text in texts]

    def report(self) -> str:
        """Summarizes the campaign as text."""
        lines = [f"{self.writes} writes were answered: {dict(sum((user.codes for user, _ in self._users), Counter()))}"]
        for one in self.followers:
            after = statistics.quantiles(one.seconds, n=100)
            lines.append(
                f"{one.name}: {len(one.seen)} changes, received after {after[49] * 1000:.0f} ms (p50), {after[98] * 1000:.0f} ms (p99), "
                f"{max(one.seconds):.2f} s (longest); streams ended: {dict(one.ends)}"
            )
        return "\n".join(lines) + "\n"

    async def _stay_logged_in(self, rest: httpx.AsyncClient) -> None:
        while True:
            await asyncio.sleep(LOGIN_SECONDS)
            for user, _ in self._users:
                # If the login fails because a process is down, the next login still comes before the token expires.
                with contextlib.suppress(AssertionError, httpx.TransportError):
                    user.account = await log_in(rest, user.account)


async def _of_followers(database: "asyncpg.Connection[asyncpg.Record]", user: User, followers: Sequence[Follower]) -> list[str]:
    log = [_change(row) for row in await database.fetch(CHANGES, UUID(user.account.id))]
    tasks = {str(row["id"]): _task(row) for row in await database.fetch(TASKS, UUID(user.account.id))}

    async def caught_up() -> None:
        assert all(len(follower.seen) >= len(log) for follower in followers)

    with contextlib.suppress(AssertionError):
        await eventually(caught_up, within=CAUGHT_UP_SECONDS)
    await asyncio.sleep(SURPLUS_SECONDS)
    return [text for follower in followers for text in _of(follower, log, tasks)]


async def _of_the_log(database: "asyncpg.Connection[asyncpg.Record]", user: User) -> list[str]:
    """Returns where the log contradicts the answers. A write without an answer may be in the log, but only completely."""
    rows = await database.fetch(CHANGES, UUID(user.account.id))
    if [row["seq"] for row in rows] != list(range(1, len(rows) + 1)):
        return [f"{user.account.id}: the log has a gap"]
    logged: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        logged.setdefault(row["request_id"], []).append((str(row["task_id"]), row["version"]))
    found = [f"{id_}: in the log, but rejected or sent by no client" for id_ in logged.keys() - user.answered.keys() - user.unknown]
    for id_, tasks in user.answered.items():
        told = [
            (task, version if of_answer is not None else None) for (task, version), (_, of_answer) in zip(logged.get(id_, ()), tasks, strict=False)
        ]
        if told != tasks or len(logged.get(id_, ())) != len(tasks):
            found.append(f"{id_}: answered {tasks} and logged {logged.get(id_)}")
    return found


def _of(follower: Follower, log: Sequence[Change], tasks: Mapping[str, object]) -> Iterator[str]:
    """Yields where a follower contradicts the log, and whether its final tasks differ from those in the database."""
    for number, (seen, change) in enumerate(itertools.zip_longest(follower.seen, log), start=1):
        if seen != change:
            yield f"{follower.name}: received {seen}, but change {number} of {len(log)} is {change} ({len(follower.seen)} received)"
            return
    if follower.tasks != tasks:
        yield f"{follower.name}: its tasks differ from those in the database"


def _change(row: "asyncpg.Record") -> Change:
    return Change(KINDS[row["kind"]], str(row["task_id"]), row["version"], row["title"])


def _task(row: "asyncpg.Record") -> tuple[str, str, int, int, bool]:
    return row["title"], STATUSES[row["status"]], row["priority"], row["version"], row["binned"]
