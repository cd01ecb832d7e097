"""Fixtures for the tests of Wakeups: a Valkey that the test may kill, a listener, a publisher, and helpers that count callbacks and log events."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry

from devstack.process import Process
from servicekit.stores import wakeups
from servicekit.stores.redis import Redis
from servicekit.stores.wakeups import Wakeups
from tests.servicekit.stores.valkeys import running_valkey, url_of
from tests.support.waiting import eventually

QUIET_SECONDS = 0.2
ANSWER_SECONDS = 0.5
WITHIN_SECONDS = 10.0
MANY = 2000

WakeupsFactory: TypeAlias = Callable[..., Awaitable[Wakeups]]


class Called:
    """A callback that counts its calls."""

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
    """Shortens the intervals, so that the tests need not wait for seconds. An answer may take long: a busy machine must not look like an outage."""
    monkeypatch.setattr(wakeups, "RECONNECT_SECONDS", 0.05)
    monkeypatch.setattr(wakeups, "QUIET_SECONDS", QUIET_SECONDS)
    monkeypatch.setattr(wakeups, "ANSWER_SECONDS", WITHIN_SECONDS / 2)


@contextlib.contextmanager
def answers_due_soon() -> Iterator[None]:
    """Shortens the time for an answer too, while Redis hangs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wakeups, "ANSWER_SECONDS", ANSWER_SECONDS)
        yield


@pytest.fixture
async def server() -> AsyncIterator[Process]:
    """A Valkey that the test owns and may kill."""
    async with running_valkey() as process:
        yield process


@pytest.fixture
async def listening(server: Process) -> AsyncIterator[WakeupsFactory]:
    """Starts Wakeups for channels, and closes them after the test."""
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
async def publisher(server: Process, patient: None) -> AsyncIterator[Redis]:
    client = Redis(url_of(server), CollectorRegistry())
    await client.start()
    yield client
    await client.close()


async def subscribers(server: Process, channel: str) -> int:
    async with redis.asyncio.Redis.from_url(url_of(server)) as client:
        [(_, number)] = await client.pubsub_numsub(channel)
        return int(number)


async def subscribers_are(server: Process, channel: str, expected: int) -> None:
    async def check() -> None:
        assert await subscribers(server, channel) == expected

    await eventually(check, within=WITHIN_SECONDS)


def events(logs: list[Any]) -> list[str]:
    return [line["event"] for line in logs if line["event"].startswith("wake")]
