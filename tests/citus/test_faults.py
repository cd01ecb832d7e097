"""Shards move, a server freezes, the coordinator is killed, all under writers: nothing is lost, and only those are affected whose server it is."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

import asyncpg
import httpx
import pytest

from devstack.config import HOST
from devstack.stack import Stack
from tests.citus.conftest import DATABASE_TIMEOUT_SECONDS
from tests.citus.plugin import WORKERS
from tests.support.accounts import Account, make_account
from tests.support.outage import frozen, require_whole
from tests.support.task_api import CallFailed, RestTasks
from tests.support.waiting import eventually
from tests.support.watchers import Watcher, over_sse

pytestmark = pytest.mark.alone("breaks a running system, and bounds the time of each call")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

WRITERS = 8
MOVES = 4
FROZEN_SECONDS = 15.0
RECOVERED_WITHIN_SECONDS = 15.0
CAUGHT_UP_WITHIN_SECONDS = 30.0
# Allowed beyond a deadline, for the round trip on a loaded machine.
SLACK_SECONDS = 1.0
SHARD_OF = "SELECT get_shard_id_for_distribution_column('task.tasks', $1::uuid)"
PORT_OF = "SELECT nodeport FROM citus_shards WHERE shardid = $1"
# In one statement, because a write whose caller has left may still be committed between two.
KEPT_OF = """
SELECT ARRAY(SELECT id FROM task.tasks WHERE user_id = $1) AS ids, ARRAY(SELECT seq FROM task.changes WHERE user_id = $1 ORDER BY seq) AS seqs
"""


@dataclass
class Writer:
    """Creates tasks for one account, one after the other, and records how each call ended and how long it took."""

    api: RestTasks
    account: Account
    created: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            began = time.monotonic()
            try:
                task = await self.api.create("Task", f"request-{len(self.codes)}")
            except CallFailed as failed:
                self.codes.append(failed.code)
            else:
                self.created.append(task.id)
                self.codes.append("OK")
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def writing(writers: Sequence[Writer]) -> AsyncIterator[None]:
    """Runs the writers during the block."""
    running = [asyncio.create_task(writer.run()) for writer in writers]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def _writers(client: httpx.AsyncClient, count: int) -> list[Writer]:
    accounts = [await make_account(client) for _ in range(count)]
    return [Writer(RestTasks(client, account), account) for account in accounts]


async def _require_kept(coordinator: Connection, writers: Sequence[Writer]) -> None:
    """Fails unless each task that was acknowledged exists, and the log of each user has no gap."""
    for writer in writers:
        user_id = UUID(writer.account.id)
        row = await coordinator.fetchrow(KEPT_OF, user_id)
        assert row is not None
        assert set(writer.created) <= {str(task_id) for task_id in row["ids"]}
        assert row["seqs"] == list(range(1, len(row["ids"]) + 1))


async def test_shards_move_under_writers_and_nothing_is_lost(breakable: Stack, breakable_rest: httpx.AsyncClient, coordinator: Connection) -> None:
    writers = await _writers(breakable_rest, WRITERS)
    ports = [breakable.state.processes[name].port for name in WORKERS]
    shards = list(dict.fromkeys([await coordinator.fetchval(SHARD_OF, UUID(writer.account.id)) for writer in writers]))
    async with contextlib.AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(Watcher(over_sse(breakable_rest), writer.account)) for writer in writers]
        async with writing(writers):
            for n in range(MOVES):
                shard = shards[n % len(shards)]
                source = await coordinator.fetchval(PORT_OF, shard)
                target = next(port for port in ports if port != source)
                await coordinator.execute(
                    "SELECT citus_move_shard_placement($1::bigint, $2::text, $3::int, $2::text, $4::int)", shard, HOST, source, target
                )
                assert await coordinator.fetchval(PORT_OF, shard) == target
        for writer, watcher in zip(writers, watchers, strict=True):
            told = await watcher.changed(len(writer.created), CAUGHT_UP_WITHIN_SECONDS)
            # Each once, in the order in which the only writer of the user has created them. The last call may have been cancelled after its commit.
            assert [change.task["id"] for change in told][: len(writer.created)] == writer.created
    sys.stdout.write(f"{sum(len(w.created) for w in writers)} creates, longest {max(max(w.seconds) for w in writers):.3f} s" + "\n")
    assert {code for writer in writers for code in writer.codes} == {"OK"}
    await _require_kept(coordinator, writers)


async def test_a_frozen_server_stops_only_its_own_users(breakable: Stack, breakable_rest: httpx.AsyncClient, coordinator: Connection) -> None:
    port = breakable.state.processes[WORKERS[0]].port
    writers = await _writers(breakable_rest, WRITERS)
    homes = [await coordinator.fetchval(PORT_OF, await coordinator.fetchval(SHARD_OF, UUID(writer.account.id))) for writer in writers]
    theirs = [writer for writer, home in zip(writers, homes, strict=True) if home == port]
    others = [writer for writer, home in zip(writers, homes, strict=True) if home != port]
    assert theirs
    assert others
    # Two of those users, so that the connections that wait for the server leave some of the pool to the others.
    async with writing(others):
        async with writing(theirs[:2]):
            await asyncio.sleep(1)
            with frozen(breakable, WORKERS[0]):
                await asyncio.sleep(FROZEN_SECONDS)
            await asyncio.sleep(RECOVERED_WITHIN_SECONDS)
        counts = [len(writer.created) for writer in theirs[:2]]
    for writer in theirs[:2]:
        # PostgreSQL answers that the time limit of the statement has ended, or does not answer until the time limit of the call.
        assert set(writer.codes) - {"OK"} in ({"UNAVAILABLE"}, {"DEADLINE_EXCEEDED"}, {"UNAVAILABLE", "DEADLINE_EXCEEDED"})
        assert writer.codes[-1] == "OK"
        assert max(writer.seconds) < DATABASE_TIMEOUT_SECONDS + SLACK_SECONDS
    for writer in others:
        assert set(writer.codes) == {"OK"}
        assert max(writer.seconds) < DATABASE_TIMEOUT_SECONDS
    sys.stdout.write(
        f"others: {sum(len(w.created) for w in others)} creates, longest {max(max(w.seconds) for w in others):.3f} s; theirs: {counts}" + "\n"
    )
    await _require_kept(coordinator, [*theirs[:2], *others])


async def test_a_killed_coordinator_makes_calls_unavailable_and_the_system_recovers(breakable: Stack, breakable_rest: httpx.AsyncClient) -> None:
    writers = await _writers(breakable_rest, WRITERS)
    async with writing(writers):
        await asyncio.sleep(1)
        await breakable.kill("postgres")
        await asyncio.sleep(2)
        await breakable.start_process("postgres")
        await eventually(lambda: require_whole(breakable), within=RECOVERED_WITHIN_SECONDS)
        await asyncio.sleep(1)
    assert {code for writer in writers for code in writer.codes} == {"OK", "UNAVAILABLE"}
    assert all(writer.codes[-1] == "OK" for writer in writers)
    connection = await asyncpg.connect(breakable.state.database_url)
    await _require_kept(connection, writers)
    await connection.close()


async def test_a_killed_server_makes_the_calls_of_its_users_unavailable(
    breakable: Stack, breakable_rest: httpx.AsyncClient, coordinator: Connection
) -> None:
    writers = await _writers(breakable_rest, WRITERS)
    async with writing(writers):
        await asyncio.sleep(1)
        await breakable.kill(WORKERS[0])
        await asyncio.sleep(2)
        await breakable.start_process(WORKERS[0])
        await asyncio.sleep(RECOVERED_WITHIN_SECONDS / 3)
    assert {code for writer in writers for code in writer.codes} == {"OK", "UNAVAILABLE"}
    assert all(writer.codes[-1] == "OK" for writer in writers)
    await _require_kept(coordinator, writers)
