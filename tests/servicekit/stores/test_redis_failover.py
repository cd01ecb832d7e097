"""A master and a replica under Sentinel, behind an address that follows the master, as a Service or HAProxy does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from devstack import valkey
from devstack.config import HOST
from devstack.data_dir import DataDir
from devstack.probe import redis_pong
from devstack.process import Process, Spec
from servicekit.errors import RedisUnavailable
from servicekit.stores.redis import Redis
from tests.servicekit.stores.databases import through
from tests.servicekit.stores.valkeys import running_valkey, url_of
from tests.support.ports import free_ports
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("patient"), pytest.mark.slow("Sentinel needs seconds to notice and to promote")]

NAME = "tasks"
# Sentinel asks each server for its INFO every 10 s, and so learns that the replica is there and in sync.
DOWN_AFTER_MILLISECONDS = 500
KNOWN_WITHIN_SECONDS, PROMOTED_WITHIN_SECONDS = 30.0, 30.0
FOLLOW_SECONDS = 0.05


@pytest.mark.parametrize("how", ["killed", "replaced"])
async def test_the_client_follows_the_master_that_sentinel_promotes(how: str) -> None:
    async with (
        running_valkey() as master,
        running_valkey("--replicaof", f"{HOST} {master.spec.ports['port']}") as replica,
        _sentinel(master) as sentinel,
        _address(sentinel) as proxy,
        _client(through(url_of(master), proxy.port)) as client,
    ):
        old = client.process
        await eventually(lambda: _require_replica(sentinel), within=KNOWN_WITHIN_SECONDS)
        await client.run(lambda connection: connection.set("key", b"value"))
        assert await client.run(lambda connection: connection.wait(1, 1000)) == 1
        if how == "killed":
            await master.kill(master.spec.hurry_signal)
        else:
            await sentinel.execute_command("SENTINEL", "FAILOVER", NAME)

        async def promoted() -> None:
            assert client.process not in (None, old)

        await eventually(promoted, within=PROMOTED_WITHIN_SECONDS)
        assert proxy.port_behind == replica.spec.ports["port"]
        assert await client.get("key") == b"value"
        # What relies on the old process does not take the new one's data for its own.
        with pytest.raises(RedisUnavailable):
            await client.get("key", process=old)


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    client = Redis(url, CollectorRegistry())
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _sentinel(master: Process) -> AsyncIterator["redis.asyncio.Redis"]:
    """Yields a client of a Sentinel that watches the master."""
    data, (port,) = await DataDir.opened(None, None), free_ports(1)
    configuration = data.run / "sentinel.conf"
    lines = (
        f"port {port}",
        f"bind {HOST}",
        f"sentinel monitor {NAME} {HOST} {master.spec.ports['port']} 1",
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MILLISECONDS}",
    )
    await asyncio.to_thread(Path(configuration).write_text, "\n".join(lines) + "\n")
    command = (str(valkey.program("valkey-server")), str(configuration), "--sentinel")
    process = Process(Spec("sentinel", command, {}, data.logs / "sentinel.log", ready=redis_pong(port)), data.held, lambda _: None, lambda _: None)
    try:
        await process.start()
        async with redis.asyncio.Redis(host=HOST, port=port) as client:
            yield client
    finally:
        await process.stop()
        data.close()


@contextlib.asynccontextmanager
async def _address(sentinel: "redis.asyncio.Redis") -> AsyncIterator[Proxy]:
    """Yields a proxy to the server that Sentinel names as the master. New connections follow it; old ones stay."""

    # Not ended by a cancellation: redis-py sends with asyncio.wait_for, which in Python 3.11 ignores one that comes when the sending is done.
    ended = asyncio.Event()

    async def follow(proxy: Proxy) -> None:
        while not ended.is_set():
            with contextlib.suppress(RedisError):
                _, port = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                proxy.port_behind = int(port)
            await asyncio.sleep(FOLLOW_SECONDS)

    _, port = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
    async with proxied(HOST, int(port)) as proxy:
        following = asyncio.create_task(follow(proxy))
        try:
            yield proxy
        finally:
            ended.set()
            await following


async def _require_replica(sentinel: "redis.asyncio.Redis") -> None:
    """Fails unless Sentinel knows a replica that it could promote."""
    replicas = await sentinel.execute_command("SENTINEL", "REPLICAS", NAME)
    assert [replica.get(b"master-link-status") for replica in replicas] == [b"ok"]
