"""The circuit breaker on a real Valkey, behind a proxy that freezes and drops connections."""

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from devstack.stack import Stack
from servicekit import deadline
from servicekit.errors import DeadlineExceeded, RedisUnavailable
from servicekit.stores import redis as breaker
from servicekit.stores.redis import Redis
from tests.servicekit.stores.databases import through
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually

PROBE_SECONDS = 0.1
# The product's limit. The tests in which Redis hangs restore it, and the others wait longer for a busy machine.
TIMEOUT_SECONDS = breaker.TIMEOUT_SECONDS


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    monkeypatch.setattr(breaker, "PROBE_INTERVAL_SECONDS", PROBE_SECONDS)
    monkeypatch.setattr(breaker, "HOOK_TIMEOUT_SECONDS", 5.0)
    # Longer than any test runs.
    monkeypatch.setattr(breaker, "SETTLE_SECONDS", 1000.0)


@pytest.fixture
async def proxy(system: Stack) -> AsyncIterator[Proxy]:
    parts = urlsplit(system.state.redis_url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with proxied(parts.hostname, parts.port) as made:
        yield made


class Figures(CollectorRegistry):
    """The breaker's metrics."""

    @property
    def open(self) -> float | None:
        return self.get_sample_value("redis_breaker_open")

    @property
    def failures(self) -> float | None:
        return self.get_sample_value("redis_failures_total")


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
async def client(system: Stack, proxy: Proxy, figures: Figures) -> AsyncIterator[Redis]:
    made = Redis(through(system.state.redis_url, proxy.port), figures)
    yield made
    await made.close()


async def ping(client: Redis) -> bool:
    return bool(await client.run(lambda connection: connection.ping()))


async def closed(figures: Figures) -> None:
    async with asyncio.timeout(5):
        while figures.open:
            await asyncio.sleep(0.01)


async def test_commands_and_scripts_are_carried_out(client: Redis, figures: Figures) -> None:
    key = f"test:{uuid4()}"
    script = client.script("redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])")
    await client.run(lambda _: script([key], (b"value", 5000)))
    assert await client.run(lambda connection: connection.get(key)) == b"value"
    assert (figures.open, figures.failures) == (0, 0)


async def test_with_nobody_there_it_is_soon_unavailable(figures: Figures) -> None:
    client = Redis("redis://127.0.0.1:1/0", figures)
    began = time.monotonic()
    with pytest.raises(RedisUnavailable):
        await ping(client)
    assert time.monotonic() - began < 4.0
    assert (figures.open, figures.failures) == (1, 1)
    await client.close()


async def test_a_redis_that_hangs_is_waited_for_once(client: Redis, proxy: Proxy, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    await ping(client)
    proxy.freeze()
    monkeypatch.setattr(breaker, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    began = time.monotonic()
    with pytest.raises(RedisUnavailable):
        await ping(client)
    assert TIMEOUT_SECONDS * 0.9 <= time.monotonic() - began < 5.0
    began = time.monotonic()
    for _ in range(1000):
        with pytest.raises(RedisUnavailable):
            await ping(client)
    # To wait each time would take minutes.
    assert time.monotonic() - began < 10.0
    assert (figures.open, figures.failures) == (1, 1)


async def test_it_closes_when_redis_is_back(client: Redis, proxy: Proxy, figures: Figures) -> None:
    await proxy.stop()
    with pytest.raises(RedisUnavailable):
        await ping(client)
    await asyncio.sleep(PROBE_SECONDS * 3)
    assert figures.open == 1
    await proxy.start()
    await closed(figures)
    assert await ping(client)


async def test_hooks_have_succeeded_before_it_closes(client: Redis, figures: Figures) -> None:
    seen: list[tuple[str, float | None]] = []
    fail = True

    async def first(connection: redis.asyncio.Redis) -> None:
        seen.append(("first", figures.open))
        await connection.ping()

    async def second(_: redis.asyncio.Redis) -> None:
        seen.append(("second", figures.open))
        if fail:
            raise RedisError("not yet")

    client.before_close(first)
    client.before_close(second)
    client.trip(OSError())

    async def probed_twice() -> None:
        assert len(seen) >= 4

    await eventually(probed_twice, within=5, every=0.01)
    assert figures.open == 1
    assert seen[:4] == [("first", 1), ("second", 1)] * 2
    fail = False
    await closed(figures)
    assert await ping(client)


async def test_a_command_that_redis_refuses_is_a_failure_too(client: Redis, figures: Figures) -> None:
    with pytest.raises(RedisUnavailable):
        await client.run(lambda connection: connection.lpush(f"test:{uuid4()}"))
    assert figures.failures == 1
    await closed(figures)


async def test_the_calls_own_time_is_its_own_fault(client: Redis, proxy: Proxy, figures: Figures) -> None:
    await ping(client)
    proxy.freeze()

    async def call() -> None:
        deadline.begin(0.05)
        await ping(client)

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await asyncio.create_task(call())
    assert time.monotonic() - began < breaker.TIMEOUT_SECONDS
    assert (figures.open, figures.failures) == (0, 0)


async def test_a_cancelled_command_does_no_harm(client: Redis, proxy: Proxy, figures: Figures) -> None:
    await ping(client)
    proxy.freeze()
    command = asyncio.create_task(ping(client))
    await asyncio.sleep(0.05)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    proxy.thaw()
    assert figures.open == 0
    key = f"test:{uuid4()}"
    # The late answer to the cancelled command must not reach another command on the same connection.
    assert await client.run(lambda connection: connection.set(key, "x", px=5000))
    assert await client.run(lambda connection: connection.get(key)) == b"x"


async def test_more_commands_than_connections_wait_their_turn(client: Redis, figures: Figures) -> None:
    assert all(await asyncio.gather(*(ping(client) for _ in range(breaker.MAX_CONNECTIONS * 3))))
    assert figures.open == 0


async def test_a_fault_of_our_own_does_not_open_it(client: Redis, figures: Figures) -> None:
    async def wrong(_: redis.asyncio.Redis) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.run(wrong)
    assert figures.open == 0


async def test_a_hook_that_is_at_fault_does_not_leave_it_open_for_good(client: Redis, figures: Figures) -> None:
    """If an exception ended the probe, the breaker would never close again."""
    calls = 0

    async def once_wrong(_: redis.asyncio.Redis) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError

    client.before_close(once_wrong)
    client.trip(OSError())
    await closed(figures)
    assert calls == 2


async def test_it_opens_at_the_end_of_a_connection_that_nobody_uses(client: Redis, proxy: Proxy, figures: Figures) -> None:
    """The next connection may lead to another Redis, whose data must not be used yet."""
    await client.get(f"test:{uuid4()}")
    assert client.settled
    await proxy.cut()
    async with asyncio.timeout(5):
        while client.settled:
            await asyncio.sleep(0.01)
    await closed(figures)
    assert await ping(client)
    assert not client.settled


async def test_it_begins_as_after_an_outage(client: Redis, figures: Figures) -> None:
    hooks = 0

    async def hook(_: redis.asyncio.Redis) -> None:
        nonlocal hooks
        hooks += 1

    client.before_close(hook)
    await client.start()
    assert figures.open == 1
    await closed(figures)
    assert hooks == 1
    assert not client.settled


async def test_closing_ends_the_probe(system: Stack, figures: Figures) -> None:
    client = Redis("redis://127.0.0.1:1/0", figures)
    client.trip(OSError())
    before = len(asyncio.all_tasks())
    await client.close()
    assert len(asyncio.all_tasks()) == before - 1
