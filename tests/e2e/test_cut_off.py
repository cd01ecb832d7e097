"""A replica that has lost its connection to Redis writes, while others still reach Redis, which holds the old value: nobody reads the old value."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc.aio
import pytest

from devstack.config import HOST
from devstack.stack import Stack
from tests.support.accounts import Account, make_account
from tests.support.clients import rest_of
from tests.support.history import History
from tests.support.outage import heal
from tests.support.proxy import Proxy, proxied
from tests.support.replica import Replica, replica_of
from tests.support.task_api import GrpcTasks
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow("an outage, during which one replica switches the cache off for all others too")

ROUNDS = 4
LONGEST_CUT_SECONDS = 0.8
READERS = 4
ON_WITHIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A replica that can be cut off from Redis and one that cannot."""

    account: Account
    proxy: Proxy
    cut_off: Replica
    other: Replica
    writer: GrpcTasks
    reader: GrpcTasks

    async def round(self, seconds: float) -> History:
        """Cuts the replica off from Redis for `seconds` and writes through it, while clients read through the other replica."""
        history = History()
        task = await history.write("cut off", "created", self.writer.create("created", "create"))
        await eventually(lambda: self._require_hits(task.id), within=ON_WITHIN_SECONDS)

        async def read() -> None:
            while True:
                await history.read("other", self.reader.get(task.id, "read"))

        readers = [asyncio.create_task(read()) for _ in range(READERS)]
        await asyncio.sleep(0.1)
        await self.proxy.stop()
        ends = asyncio.get_running_loop().time() + seconds
        for number in range(3):
            await history.write("cut off", f"{number}", self.writer.rename(task.id, f"{number}", "write"))
        await asyncio.sleep(max(0.0, ends - asyncio.get_running_loop().time()))
        await self.proxy.start()
        await eventually(lambda: self._require_hits(task.id), within=ON_WITHIN_SECONDS)
        for reader in readers:
            assert not reader.done(), reader.exception()
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        return history

    async def _require_hits(self, task_id: str) -> None:
        before = await self.other.metric("task_cache_reads_total", outcome="hit")
        await self.reader.get(task_id, "setup")
        assert await self.other.metric("task_cache_reads_total", outcome="hit") > before


@pytest.fixture(scope="module")
async def pair(_breakable: Stack) -> AsyncIterator[Pair]:
    url = _breakable.state.redis_url
    await heal(_breakable)
    async with contextlib.AsyncExitStack() as opened:
        rest = await opened.enter_async_context(rest_of(_breakable))
        proxy = await opened.enter_async_context(proxied(HOST, urlsplit(url).port or 0))
        cut_off = await opened.enter_async_context(replica_of(_breakable, "task-cut-off", redis=proxy))
        other = await opened.enter_async_context(replica_of(_breakable, "task-other"))
        channels = [await opened.enter_async_context(grpc.aio.insecure_channel(replica.target)) for replica in (cut_off, other)]
        account = await make_account(rest)
        writer, reader = (GrpcTasks(channel, account) for channel in channels)
        yield Pair(account, proxy, cut_off, other, writer, reader)


async def test_nobody_is_behind_a_replica_that_is_cut_off_from_redis(pair: Pair) -> None:
    for _ in range(ROUNDS):
        history = await pair.round(random.uniform(0.1, LONGEST_CUT_SECONDS))
        assert history.contradictions() == []
        assert {call.seen.version for call in history.calls if not call.is_write} >= {1, 4}


async def test_as_long_as_one_replica_is_cut_off_nobody_uses_the_cache(pair: Pair) -> None:
    await pair.proxy.stop()
    task = await pair.writer.create("created", "create")
    await pair.writer.rename(task.id, "after", "write")
    before = await pair.other.metric("task_cache_reads_total", outcome="hit")
    for _ in range(20):
        await pair.reader.get(task.id, "read")
        await asyncio.sleep(0.1)
    assert await pair.other.metric("task_cache_reads_total", outcome="hit") == before
    assert await pair.other.metric("task_cache_mode", mode="off") == 1
    await pair.proxy.start()
    await eventually(lambda: pair._require_hits(task.id), within=ON_WITHIN_SECONDS)
