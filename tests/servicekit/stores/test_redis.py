"""The circuit breaker on a real Valkey, behind a proxy that freezes and drops connections."""

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis.asyncio
import structlog.testing
from prometheus_client import CollectorRegistry

from devstack.process import Process
from devstack.stack import Stack
from servicekit import deadline
from servicekit.errors import DeadlineExceeded, RedisUnavailable
from servicekit.stores import redis as breaker
from servicekit.stores.redis import Redis
from servicekit.stores.redis_session import MAX_CONNECTIONS
from tests.servicekit.stores.databases import through
from tests.servicekit.stores.valkeys import running_valkey, url_of
from tests.support.proxy import Proxy, proxied

PROBE_SECONDS = 0.1
# The product's limit. The tests in which Redis hangs restore it, and the others wait longer for a busy machine.
TIMEOUT_SECONDS = breaker.TIMEOUT_SECONDS


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    monkeypatch.setattr(breaker, "PROBE_INTERVAL_SECONDS", PROBE_SECONDS)


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
async def another() -> AsyncIterator[Process]:
    """Another Valkey."""
    async with running_valkey() as process:
        yield process


@pytest.fixture
async def client(system: Stack, proxy: Proxy, figures: Figures) -> AsyncIterator[Redis]:
    made = Redis(through(system.state.redis_url, proxy.port), figures)
    await made.start()
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
    await client.run(lambda connection: connection.script_flush())
    for _ in range(2):
        await script([key], [b"value", 5000])
    assert await client.run(lambda connection: connection.get(key)) == b"value"
    assert (figures.open, figures.failures) == (0, 0)


async def test_with_nobody_there_it_is_unavailable_at_once(figures: Figures) -> None:
    client = Redis("redis://127.0.0.1:1/0", figures)
    began = time.monotonic()
    await client.start()
    for _ in range(2):
        with pytest.raises(RedisUnavailable):
            await ping(client)
        assert client.process is None
    assert time.monotonic() - began < 4.0
    assert (figures.open, figures.failures) == (1, 0)
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
    assert all(await asyncio.gather(*(ping(client) for _ in range(MAX_CONNECTIONS * 3))))
    assert figures.open == 0


async def test_a_fault_of_our_own_does_not_open_it(client: Redis, figures: Figures) -> None:
    async def wrong(_: redis.asyncio.Redis) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.run(wrong)
    assert figures.open == 0


async def test_it_opens_at_the_end_of_a_connection_that_nobody_uses(client: Redis, proxy: Proxy, figures: Figures) -> None:
    """The next connection may lead to another Redis."""
    await client.get(f"test:{uuid4()}")
    await proxy.cut()
    async with asyncio.timeout(5):
        while client.process is not None:
            await asyncio.sleep(0.001)
    await closed(figures)
    assert await ping(client)


async def test_all_connections_lead_to_the_process_that_the_first_one_led_to(client: Redis, proxy: Proxy, figures: Figures, another: Process) -> None:
    """The address leads to another process for new connections, as after a failover, while the connection of the reads stays."""
    process = client.process
    assert process is not None
    proxy.port_behind = another.spec.ports["port"]
    # One has the connection that is there, and the others open new ones.
    answers = await asyncio.gather(*(ping(client) for _ in range(5)), return_exceptions=True)
    assert any(isinstance(answer, RedisUnavailable) for answer in answers)
    failures = figures.failures
    await closed(figures)
    assert client.process not in (None, process)
    assert await ping(client)
    for command in (client.get("a", process=process), client.run(lambda connection: connection.ping(), process=process)):
        with pytest.raises(RedisUnavailable):
            await command
    assert figures.failures == failures
    assert await client.get("a", process=client.process) is None


async def test_a_command_of_an_earlier_session_does_not_end_the_next(client: Redis, proxy: Proxy, figures: Figures) -> None:
    begun, may_fail = asyncio.Event(), asyncio.Event()

    async def fail(_: redis.asyncio.Redis) -> None:
        begun.set()
        await may_fail.wait()
        raise OSError

    late = asyncio.create_task(client.run(fail))
    await begun.wait()
    await proxy.cut()
    async with asyncio.timeout(5):
        while client.process is not None:
            await asyncio.sleep(0.001)
    await closed(figures)
    may_fail.set()
    with pytest.raises(RedisUnavailable):
        await late
    assert figures.open == 0


async def test_a_replica_of_redis_refuses_reads(another: Process, system: Stack, figures: Figures) -> None:
    client = Redis(url_of(another), figures)
    await client.start()
    assert await client.get("a") is None
    master = urlsplit(system.state.redis_url)
    await client.run(lambda connection: connection.replicaof(master.hostname, master.port))
    with pytest.raises(RedisUnavailable):
        await client.get("a")
    await asyncio.sleep(3 * PROBE_SECONDS)
    assert figures.open == 1
    await client.close()


async def test_a_server_in_cluster_mode_is_refused_and_the_log_says_so_once(figures: Figures) -> None:
    with structlog.testing.capture_logs() as lines:
        async with running_valkey("--cluster-enabled", "yes") as server:
            client = Redis(url_of(server), figures)
            await client.start()
            await asyncio.sleep(3 * PROBE_SECONDS)
            with pytest.raises(RedisUnavailable):
                await client.get("a")
            await client.close()
    assert figures.open == 1
    assert [line["reason"] for line in lines if line["event"] == "redis_unsuitable"] == ["the server is in cluster mode, which is not supported"]


async def test_it_connects_anew_when_it_is_asked_to(client: Redis, proxy: Proxy, figures: Figures, another: Process) -> None:
    process = client.process
    proxy.port_behind = another.spec.ports["port"]
    client.reconnect()
    assert client.process is None
    await closed(figures)
    assert client.process not in (None, process)


async def test_closing_ends_the_probe(figures: Figures) -> None:
    def own() -> list[str]:
        return [name for task in asyncio.all_tasks() if (name := getattr(task.get_coro(), "__qualname__", "")).startswith(("Redis.", "Session."))]

    client = Redis("redis://127.0.0.1:1/0", figures)
    await client.start()
    assert "Redis._probe" in own()
    await client.close()
    assert own() == []


async def test_scripts_of_one_turn_run_in_their_order_whether_redis_has_them_or_not(client: Redis, figures: Figures) -> None:
    key = f"test:{uuid4()}"
    append = client.script("return redis.call('APPEND', KEYS[1], ARGV[1])")
    await client.run(lambda connection: connection.script_flush())
    lengths = await asyncio.gather(*(append([key], [str(digit)]) for digit in range(10)), client.get(key))
    assert sorted(lengths[:10]) == list(range(1, 11))
    assert await asyncio.gather(*(append([key], [str(digit)]) for digit in range(10))) == list(range(11, 21))
    text = await client.get(key)
    assert text is not None
    assert text[10:] == b"0123456789"
    assert (figures.open, figures.failures) == (0, 0)
    await client.run(lambda connection: connection.delete(key))


async def test_a_script_that_fails_is_a_failure_of_redis(client: Redis, figures: Figures) -> None:
    with pytest.raises(RedisUnavailable):
        await client.script("return redis.call('LPUSH', KEYS[1])")(["a"], [])
    assert figures.failures == 1
    await closed(figures)


async def test_a_script_of_another_process_does_not_run(client: Redis) -> None:
    key = f"test:{uuid4()}"
    script = client.script("return redis.call('SET', KEYS[1], 'x', 'PX', 5000)")
    with pytest.raises(RedisUnavailable):
        await script([key], [], process="another")
    assert await client.get(key) is None
    await script([key], [], process=client.process)
    assert await client.get(key) == b"x"


async def test_a_script_whose_caller_leaves_runs_before_the_next(client: Redis, figures: Figures) -> None:
    key = f"test:{uuid4()}"
    put = client.script("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 5000)")
    await put([key], ["first"])
    leaving = asyncio.create_task(put([key], ["leaving"]))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await client.get(key) == b"leaving"
    assert (figures.open, figures.failures) == (0, 0)
