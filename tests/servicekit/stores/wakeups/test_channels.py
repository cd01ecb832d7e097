"""Which callbacks are called for which channel, how often, and from when until when."""

import asyncio
import signal

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from devstack.process import Process
from servicekit import deadline
from servicekit.stores import wakeups
from servicekit.stores.redis import Redis
from servicekit.stores.wakeups import Wakeups, announce
from tests.servicekit.stores.valkeys import url_of
from tests.servicekit.stores.wakeups.conftest import MANY, WITHIN_SECONDS, Called, WakeupsFactory, events, subscribers, subscribers_are
from tests.support.waiting import eventually

NOBODY = "redis://127.0.0.1:1/0"


async def commands(server: Process, command: str) -> int:
    """Returns how many commands of this name the server has received since its start."""
    async with redis.asyncio.Redis.from_url(url_of(server)) as client:
        return int((await client.info("commandstats"))[f"cmdstat_{command}"]["calls"])


async def test_it_calls_back_when_it_has_subscribed_and_on_each_message(listening: WakeupsFactory, server: Process, publisher: Redis) -> None:
    called = Called()
    await listening({"tasks": called})
    await called.at_least(1)
    # From the first call on, no message is missed.
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
    await subscribers_are(server, "users", 0)
    assert await subscribers(server, "tasks") == 1
    # If a channel is subscribed to again, its callback is called again.
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


@pytest.mark.slow("thousands of channels")
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
    await subscribers_are(server, channels[0], 0)
    assert await commands(server, "unsubscribe") == MANY / wakeups.CHANNELS_PER_COMMAND


async def test_subscribing_belongs_to_no_call(listening: WakeupsFactory) -> None:
    """The first subscriber may be a call with a deadline, and the subscription lasts longer than the call."""
    left: list[float] = []
    made = await listening({})

    async def call() -> None:
        deadline.begin(5.0)
        made.subscribe("tasks", lambda: left.append(deadline.bound(100.0)))

    await asyncio.create_task(call())

    async def called() -> None:
        assert left == [100.0]

    await eventually(called, within=WITHIN_SECONDS, every=0.01)


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
