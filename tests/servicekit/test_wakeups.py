"""Wakeups over a real Valkey that is killed, frozen and restarted."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from devstack import valkey
from devstack.process import Process
from servicekit import deadline, wakeups
from servicekit.redis import Redis
from servicekit.wakeups import Wakeups, announce
from tests.servicekit.valkeys import running_valkey
from tests.support.proxy import proxied
from tests.support.waiting import eventually

QUIET_SECONDS = 0.2
ANSWER_SECONDS = 0.5
WITHIN_SECONDS = 10.0
MANY = 2000
NOBODY = "redis://127.0.0.1:1/0"

WakeupsFactory: TypeAlias = Callable[..., Awaitable[Wakeups]]


class Called:
    """Counts how often it was called back."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1

    async def at_least(self, times: int) -> None:
        async def check() -> None:
            assert self.times >= times

        await eventually(check, within=WITHIN_SECONDS, every=0.01)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests need not wait for seconds."""
    monkeypatch.setattr(wakeups, "RECONNECT_SECONDS", 0.05)
    monkeypatch.setattr(wakeups, "QUIET_SECONDS", QUIET_SECONDS)
    monkeypatch.setattr(wakeups, "ANSWER_SECONDS", ANSWER_SECONDS)


@pytest.fixture
async def server() -> AsyncIterator[Process]:
    """A Valkey of the test's own, to be killed."""
    async with running_valkey() as process:
        yield process


@pytest.fixture
async def listening(server: Process) -> AsyncIterator[WakeupsFactory]:
    """Starts wakeups for channels, and closes them with the test."""
    made: list[Wakeups] = []

    async def listen(callbacks: dict[str, Callable[[], None]], url: str | None = None) -> Wakeups:
        made.append(Wakeups(url or url_of(server)))
        for channel, callback in callbacks.items():
            made[-1].subscribe(channel, callback)
        await made[-1].start()
        return made[-1]

    yield listen
    for one in made:
        await one.close()


@pytest.fixture
async def publisher(server: Process) -> AsyncIterator[Redis]:
    client = Redis(url_of(server), CollectorRegistry())
    yield client
    await client.close()


def url_of(server: Process) -> str:
    return valkey.url(server.spec.ports["port"])


async def subscribers(server: Process, channel: str) -> int:
    async with redis.asyncio.Redis.from_url(url_of(server)) as client:
        [(_, number)] = await client.pubsub_numsub(channel)
        return int(number)


async def _subscribers_are(server: Process, channel: str, expected: int) -> None:
    async def check() -> None:
        assert await subscribers(server, channel) == expected

    await eventually(check, within=WITHIN_SECONDS)


async def commands(server: Process, command: str) -> int:
    """How many of them the server has been sent since it was started."""
    async with redis.asyncio.Redis.from_url(url_of(server)) as client:
        return int((await client.info("commandstats"))[f"cmdstat_{command}"]["calls"])


async def publish(server: Process, channel: str) -> None:
    """Without a breaker, which would be open for a while after an outage."""
    async with redis.asyncio.Redis.from_url(url_of(server)) as client:
        await client.publish(channel, b"")


async def logged(logs: list[Any], event: str) -> None:
    async def check() -> None:
        assert event in events(logs)

    await eventually(check, within=WITHIN_SECONDS, every=0.01)


def events(logs: list[Any]) -> list[str]:
    return [line["event"] for line in logs if line["event"].startswith("wake")]


async def test_it_calls_back_when_it_has_subscribed_and_on_each_message(listening: WakeupsFactory, server: Process, publisher: Redis) -> None:
    called = Called()
    await listening({"tasks": called})
    await called.at_least(1)
    # From the first call on nothing is missed.
    assert await subscribers(server, "tasks") == 1
    for times in range(2, 20):
        await announce(publisher, "tasks")
        await called.at_least(times)
    assert called.times == 19


async def test_channels_are_told_apart(listening: WakeupsFactory, publisher: Redis) -> None:
    tasks, users = Called(), Called()
    await listening({"tasks": tasks, "users": users})
    await tasks.at_least(1)
    await users.at_least(1)
    await announce(publisher, "others")
    await announce(publisher, "users")
    await users.at_least(2)
    await announce(publisher, "tasks")
    await tasks.at_least(2)
    assert (tasks.times, users.times) == (2, 2)


async def test_a_channel_can_have_several_callbacks(server: Process, publisher: Redis) -> None:
    first, second = Called(), Called()
    several = Wakeups(url_of(server))
    several.subscribe("tasks", first)
    several.subscribe("tasks", second)
    await several.start()
    await second.at_least(1)
    await announce(publisher, "tasks")
    await second.at_least(2)
    assert first.times == 2
    await several.close()


async def test_a_callback_that_comes_later_is_called_once_and_from_then_on_misses_nothing(listening: WakeupsFactory, publisher: Redis) -> None:
    first, second, elsewhere = Called(), Called(), Called()
    made = await listening({"tasks": first})
    await first.at_least(1)
    made.subscribe("tasks", second)
    made.subscribe("users", elsewhere)
    await second.at_least(1)
    await elsewhere.at_least(1)
    await announce(publisher, "tasks", "users")
    await asyncio.gather(first.at_least(2), second.at_least(2), elsewhere.at_least(2))
    assert [first.times, second.times, elsewhere.times] == [2, 2, 2]


async def test_what_is_unsubscribed_is_not_called(listening: WakeupsFactory, server: Process, publisher: Redis) -> None:
    stays, goes, alone = Called(), Called(), Called()
    made = await listening({"tasks": stays})
    made.subscribe("tasks", goes)
    made.subscribe("users", alone)
    await alone.at_least(1)
    made.unsubscribe("tasks", goes)
    made.unsubscribe("users", alone)
    await announce(publisher, "tasks", "users")
    await stays.at_least(2)
    assert (goes.times, alone.times) == (1, 1)
    await _subscribers_are(server, "users", 0)
    assert await subscribers(server, "tasks") == 1
    # A channel that comes back is subscribed to again, and its callback called.
    made.subscribe("users", alone)
    await alone.at_least(2)
    assert await subscribers(server, "users") == 1


async def test_a_callback_that_is_unsubscribed_before_it_was_called_never_is(listening: WakeupsFactory) -> None:
    there, gone = Called(), Called()
    made = await listening({"tasks": there})
    await there.at_least(1)
    made.subscribe("tasks", gone)
    made.unsubscribe("tasks", gone)
    made.subscribe("users", gone)
    made.unsubscribe("users", gone)
    made.subscribe("last", there)
    await there.at_least(2)
    assert gone.times == 0


async def test_a_callback_may_unsubscribe_itself(listening: WakeupsFactory, publisher: Redis) -> None:
    made = await listening({})
    seen, after = [], Called()

    def once() -> None:
        seen.append(1)
        made.unsubscribe("tasks", once)

    made.subscribe("tasks", once)
    made.subscribe("tasks", after)
    await after.at_least(1)
    await announce(publisher, "tasks")
    await after.at_least(2)
    assert seen == [1]


async def test_thousands_of_channels_take_few_commands(listening: WakeupsFactory, server: Process, publisher: Redis) -> None:
    called = [Called() for _ in range(MANY)]
    made = await listening({})
    channels = [f"user-{number}" for number in range(MANY)]
    for channel, one in zip(channels, called, strict=True):
        made.subscribe(channel, one)
    await asyncio.gather(*(one.at_least(1) for one in called))
    assert await commands(server, "subscribe") == MANY / wakeups.CHANNELS_PER_COMMAND
    await announce(publisher, *channels)
    await asyncio.gather(*(one.at_least(2) for one in called))
    await server.kill(signal.SIGKILL)
    await server.start()
    await asyncio.gather(*(one.at_least(3) for one in called))
    assert {one.times for one in called} == {3}
    assert await commands(server, "subscribe") == MANY / wakeups.CHANNELS_PER_COMMAND
    for channel, one in zip(channels, called, strict=True):
        made.unsubscribe(channel, one)
    await _subscribers_are(server, channels[0], 0)
    assert await commands(server, "unsubscribe") == MANY / wakeups.CHANNELS_PER_COMMAND


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


async def test_subscribing_belongs_to_no_call(listening: WakeupsFactory) -> None:
    """The first to subscribe may be a call with a deadline, which ends long before the subscription does."""
    left: list[float] = []
    made = await listening({})

    async def call() -> None:
        deadline.begin(5.0)
        made.subscribe("tasks", lambda: left.append(deadline.bound(100.0)))

    await asyncio.create_task(call())

    async def called() -> None:
        assert left == [100.0]

    await eventually(called, within=WITHIN_SECONDS, every=0.01)


async def test_a_redis_that_hangs_holds_up_nobody_who_subscribes(listening: WakeupsFactory, server: Process) -> None:
    called = Called()
    made = await listening({"tasks": called})
    await called.at_least(1)
    with capture_logs() as logs:
        server.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        for number in range(MANY):
            made.subscribe(f"user-{number}", called)
        assert time.monotonic() - began < 0.5
        await logged(logs, "wakeups_lost")
        server.send_signal(signal.SIGCONT)
        await called.at_least(2 + MANY)


async def test_every_subscriber_hears(listening: WakeupsFactory, publisher: Redis) -> None:
    called = [Called() for _ in range(3)]
    for one in called:
        await listening({"tasks": one})
        await one.at_least(1)
    await announce(publisher, "tasks")
    for one in called:
        await one.at_least(2)


async def test_a_callback_at_fault_is_logged_and_harms_no_other(listening: WakeupsFactory, publisher: Redis) -> None:
    def wrong() -> None:
        raise ZeroDivisionError

    called = Called()
    with capture_logs() as logs:
        await listening({"wrong": wrong, "tasks": called})
        await called.at_least(1)
        await announce(publisher, "wrong")
        await announce(publisher, "tasks")
        await called.at_least(2)
    assert events(logs) == ["wakeup_failed", "wakeup_failed"]
    assert called.times == 2


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
        # Several attempts, which are no news.
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
        await logged(logs, "wakeups_lost")
        # New connections hang as well: the system accepts them in Redis's name.
        await asyncio.sleep(ANSWER_SECONDS * 2)
        assert called.times == 1
        server.send_signal(signal.SIGCONT)
        await called.at_least(2)
        await publish(server, "tasks")
        await called.at_least(3)
    assert events(logs) == ["wakeups_lost", "wakeups_back"]
    assert await subscribers(server, "tasks") == 1


async def test_a_connection_lost_to_a_redis_that_hangs_is_noticed(listening: WakeupsFactory, server: Process) -> None:
    """redis-py, if let, would connect again by itself and wait for the greeting without end."""
    called = Called()
    async with proxied("127.0.0.1", server.spec.ports["port"]) as proxy:
        made = await listening({"tasks": called}, valkey.url(proxy.port))
        await called.at_least(1)
        with capture_logs() as logs:
            proxy.freeze()
            await proxy.cut()
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
            await logged(logs, "wakeups_lost")
        async with asyncio.timeout(WITHIN_SECONDS):
            await made.close()
    # The supervisor's tasks come and go with the server.
    assert not {task.get_name() for task in asyncio.all_tasks() - before if not task.get_name().startswith("watch")}
    if trouble == "none":

        async def gone() -> None:
            assert await subscribers(server, "tasks") == 0

        await eventually(gone, within=WITHIN_SECONDS)


async def test_closing_while_it_connects_leaves_nothing(listening: WakeupsFactory, server: Process) -> None:
    server.send_signal(signal.SIGSTOP)
    before = asyncio.all_tasks()
    made = await listening({"tasks": Called()})
    await asyncio.sleep(ANSWER_SECONDS / 4)
    async with asyncio.timeout(WITHIN_SECONDS):
        await made.close()
    assert asyncio.all_tasks() == before


async def test_without_channels_there_is_nothing_to_do(listening: WakeupsFactory) -> None:
    before = asyncio.all_tasks()
    made = await listening({}, NOBODY)
    assert asyncio.all_tasks() == before
    await made.close()


async def test_what_was_never_started_can_be_closed() -> None:
    made = Wakeups(NOBODY)
    made.subscribe("tasks", Called())
    await made.close()


@pytest.mark.parametrize("channels", [(), ("tasks",), ("tasks", "users")])
async def test_announcing_to_nobody_is_no_error(publisher: Redis, channels: tuple[str, ...]) -> None:
    await announce(publisher, *channels)


@pytest.mark.parametrize("trouble", ["dead", "frozen"])
async def test_announcing_with_redis_away_raises_nothing_and_returns_soon(server: Process, publisher: Redis, trouble: str) -> None:
    await announce(publisher, "tasks")
    server.send_signal(signal.SIGKILL if trouble == "dead" else signal.SIGSTOP)
    began = time.monotonic()
    for _ in range(50):
        await announce(publisher, "tasks")
        await announce(publisher, *(f"user-{number}" for number in range(10)))
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("left_seconds", [0.0, 0.05])
async def test_announcing_at_the_end_of_a_calls_time_raises_nothing(server: Process, publisher: Redis, left_seconds: float) -> None:
    server.send_signal(signal.SIGSTOP)

    async def call() -> None:
        deadline.begin(left_seconds)
        await announce(publisher, "tasks")

    await asyncio.create_task(call())
