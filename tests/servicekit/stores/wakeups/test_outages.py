"""Wakeups and announcements while Redis is killed, frozen and restarted."""

import asyncio
import signal
import time
from typing import Any

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from devstack import valkey
from devstack.process import Process
from servicekit import deadline
from servicekit.stores import redis as breaker
from servicekit.stores.redis import Redis
from servicekit.stores.wakeups import announce
from tests.servicekit.stores.valkeys import url_of
from tests.servicekit.stores.wakeups.conftest import (
    ANSWER_SECONDS,
    MANY,
    QUIET_SECONDS,
    WITHIN_SECONDS,
    Called,
    WakeupsFactory,
    answers_due_soon,
    events,
    subscribers,
    subscribers_are,
)
from tests.support.proxy import proxied
from tests.support.waiting import eventually


async def publish(server: Process, channel: str) -> None:
    """Publishes without a circuit breaker, because a breaker stays open for some time after an outage."""
    async with redis.asyncio.Redis.from_url(url_of(server)) as client:
        await client.publish(channel, b"")


async def logged(logs: list[Any], event: str) -> None:
    async def check() -> None:
        assert event in events(logs)

    await eventually(check, within=WITHIN_SECONDS, every=0.01)


async def test_what_changes_while_redis_is_away_holds_when_it_is_back(listening: WakeupsFactory, server: Process) -> None:
    stays, goes, comes = Called(), Called(), Called()
    made = await listening({"stays": stays, "goes": goes})
    await goes.at_least(1)
    await server.kill(signal.SIGKILL)
    made.unsubscribe("goes", goes)
    made.subscribe("comes", comes)
    await server.start()
    await asyncio.gather(stays.at_least(2), comes.at_least(1))
    assert goes.times == 1
    assert await subscribers(server, "goes") == 0


async def test_a_redis_that_hangs_holds_up_nobody_who_subscribes(listening: WakeupsFactory, server: Process) -> None:
    called = Called()
    made = await listening({"tasks": called})
    await called.at_least(1)
    with capture_logs() as logs:
        server.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        for number in range(MANY):
            made.subscribe(f"user-{number}", called)
        assert time.monotonic() - began < 5.0
        with answers_due_soon():
            await logged(logs, "wakeups_lost")
        server.send_signal(signal.SIGCONT)
        await called.at_least(2 + MANY)


async def test_a_quiet_redis_is_not_taken_for_a_dead_one(listening: WakeupsFactory, server: Process) -> None:
    called = Called()
    with capture_logs() as logs:
        await listening({"tasks": called})
        await called.at_least(1)
        await asyncio.sleep(QUIET_SECONDS * 5)
        assert called.times == 1
        await publish(server, "tasks")
        await called.at_least(2)
    assert events(logs) == []


async def test_after_redis_was_killed_it_subscribes_again_and_calls_back(listening: WakeupsFactory, server: Process) -> None:
    tasks, users = Called(), Called()
    await listening({"tasks": tasks, "users": users})
    await tasks.at_least(1)
    await users.at_least(1)
    with capture_logs() as logs:
        await server.kill(signal.SIGKILL)
        await logged(logs, "wakeups_lost")
        # Several attempts to reconnect fail, and none of them is logged.
        await asyncio.sleep(0.3)
        assert (tasks.times, users.times) == (1, 1)
        await server.start()
        await tasks.at_least(2)
        await users.at_least(2)
        await publish(server, "tasks")
        await tasks.at_least(3)
    assert events(logs) == ["wakeups_lost", "wakeups_back"]
    assert (tasks.times, users.times) == (3, 2)


async def test_a_redis_that_comes_later_is_found(listening: WakeupsFactory, server: Process) -> None:
    await server.kill(signal.SIGKILL)
    called = Called()
    with capture_logs() as logs:
        await listening({"tasks": called})
        await logged(logs, "wakeups_lost")
        await server.start()
        await called.at_least(1)
    assert events(logs) == ["wakeups_lost", "wakeups_back"]


async def test_a_redis_that_hangs_is_noticed(listening: WakeupsFactory, server: Process) -> None:
    called = Called()
    await listening({"tasks": called})
    await called.at_least(1)
    with capture_logs() as logs:
        server.send_signal(signal.SIGSTOP)
        with answers_due_soon():
            await logged(logs, "wakeups_lost")
            # New connections hang too: the operating system accepts them, and Redis does not answer.
            await asyncio.sleep(ANSWER_SECONDS * 2)
        assert called.times == 1
        server.send_signal(signal.SIGCONT)
        await called.at_least(2)
        await publish(server, "tasks")
        await called.at_least(3)
    assert events(logs) == ["wakeups_lost", "wakeups_back"]
    assert await subscribers(server, "tasks") == 1


async def test_a_connection_lost_to_a_redis_that_hangs_is_noticed(listening: WakeupsFactory, server: Process) -> None:
    """With its default settings, redis-py would reconnect by itself and wait for the handshake without a limit."""
    called = Called()
    async with proxied("127.0.0.1", server.spec.ports["port"]) as proxy:
        made = await listening({"tasks": called}, valkey.url(proxy.port))
        await called.at_least(1)
        with capture_logs() as logs:
            proxy.freeze()
            await proxy.cut()
            with answers_due_soon():
                await logged(logs, "wakeups_lost")
            proxy.thaw()
            await called.at_least(2)
            await publish(server, "tasks")
            await called.at_least(3)
        assert events(logs) == ["wakeups_lost", "wakeups_back"]
        await made.close()


async def test_a_hang_too_short_to_be_noticed_loses_nothing(listening: WakeupsFactory, server: Process) -> None:
    called = Called()
    await listening({"tasks": called})
    await called.at_least(1)
    server.send_signal(signal.SIGSTOP)
    publishing = asyncio.create_task(publish(server, "tasks"))
    await asyncio.sleep(QUIET_SECONDS / 2)
    server.send_signal(signal.SIGCONT)
    await publishing
    await called.at_least(2)


@pytest.mark.parametrize("trouble", ["none", "dead", "frozen"])
async def test_closing_leaves_nothing(listening: WakeupsFactory, server: Process, trouble: str) -> None:
    before = asyncio.all_tasks()
    called = Called()
    with capture_logs() as logs:
        made = await listening({"tasks": called})
        await called.at_least(1)
        if trouble != "none":
            server.send_signal(signal.SIGKILL if trouble == "dead" else signal.SIGSTOP)
            with answers_due_soon():
                await logged(logs, "wakeups_lost")
        async with asyncio.timeout(WITHIN_SECONDS):
            await made.close()
    # The tasks of the test's process supervisor start and end with the server.
    assert not {task.get_name() for task in asyncio.all_tasks() - before if not task.get_name().startswith("watch")}
    if trouble == "none":
        await subscribers_are(server, "tasks", 0)


async def test_closing_while_it_connects_leaves_nothing(listening: WakeupsFactory, server: Process) -> None:
    server.send_signal(signal.SIGSTOP)
    before = asyncio.all_tasks()
    made = await listening({"tasks": Called()})
    await asyncio.sleep(ANSWER_SECONDS / 4)
    async with asyncio.timeout(WITHIN_SECONDS):
        await made.close()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("trouble", ["dead", "frozen"])
async def test_announcing_with_redis_away_raises_nothing_and_returns_soon(
    server: Process, publisher: Redis, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await announce(publisher, "tasks")
    monkeypatch.setattr(breaker, "TIMEOUT_SECONDS", 0.3)
    server.send_signal(signal.SIGKILL if trouble == "dead" else signal.SIGSTOP)
    began = time.monotonic()
    for _ in range(50):
        await announce(publisher, "tasks")
        await announce(publisher, *(f"user-{number}" for number in range(10)))
    # To wait each time would take 30 seconds.
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize("left_seconds", [0.0, 0.05])
async def test_announcing_at_the_end_of_a_calls_time_raises_nothing(server: Process, publisher: Redis, left_seconds: float) -> None:
    server.send_signal(signal.SIGSTOP)

    async def call() -> None:
        deadline.begin(left_seconds)
        await announce(publisher, "tasks")

    await asyncio.create_task(call())
