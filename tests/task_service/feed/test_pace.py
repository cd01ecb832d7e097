"""One user's streams share one pace, and a client that does not read holds nobody up."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from servicekit.identity import Identity
from servicekit.rpc.paging import PlaceTokens, page_tokens
from servicekit.stores.postgres import Database
from task_service.feed.domain import Changes, WatchEvent
from task_service.feed.errors import InvalidResumeToken
from task_service.feed.pace import CHANGE_SECONDS, TURN_SECONDS
from task_service.feed.repository import PostgresChanges
from task_service.feed.service import CHANGES_AT_ONCE, FIRST_CHANGES, FeedService
from task_service.feed.watching import Watches
from task_service.tasks.domain import Actor
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation
from tests.task_service.conftest import FIELDS, new_id
from tests.task_service.feed.test_bytes import LONGEST
from tests.task_service.feed.test_watching import FAR, SECRET, WITHIN_SECONDS, Channels

CHANGES, STREAMS = 600, 4


class CountedLog(PostgresChanges):
    """The change log. Counts how many changes are asked for, and how many reads run at once."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked: list[int] = []
        self.running = self.most = 0

    async def list(self, user_id: UUID, after: int | None, limit: int) -> Changes:
        if limit == 1:
            return await super().list(user_id, after, limit)
        self.asked.append(limit)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await super().list(user_id, after, limit)
        finally:
            self.running -= 1


@pytest.fixture
def log(database: Database) -> CountedLog:
    return CountedLog(database)


@pytest.fixture
def feed(log: CountedLog) -> FeedService:
    watches = Watches(log, Channels(), lambda _: None, CollectorRegistry())
    return FeedService(log, watches, PlaceTokens(SECRET, "resume token", InvalidResumeToken), page_tokens(SECRET))


def _identity(actor: Actor) -> Identity:
    return Identity(actor.user_id, uuid4(), "t", FAR)


async def _token(feed: FeedService, actor: Actor) -> str:
    """Returns the token of the log's end."""
    async with aclosing(feed.watch_tasks(_identity(actor), "")) as events:
        return (await anext(events)).resume_token


async def _read(events: AsyncIterator[WatchEvent], count: int) -> list[int]:
    """Reads the checkpoint and so many changes. Returns their numbers."""
    async with asyncio.timeout(WITHIN_SECONDS):
        await anext(events)
        return [event.change.seq async for event in _some(events, count) if event.change]


async def _some(events: AsyncIterator[WatchEvent], count: int) -> AsyncIterator[WatchEvent]:
    for _ in range(count):
        yield await anext(events)


async def _all(feed: FeedService, actor: Actor, token: str, count: int) -> list[int]:
    async with aclosing(feed.watch_tasks(_identity(actor), token)) as events:
        return await _read(events, count)


async def test_the_streams_of_a_user_read_one_after_the_other_at_a_limited_rate(
    feed: FeedService, log: CountedLog, tasks: PostgresTasks, actor: Actor
) -> None:
    token = await _token(feed, actor)
    await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(CHANGES)])
    log.most, began = 0, time.monotonic()
    found = await asyncio.gather(*(_all(feed, actor, token, CHANGES) for _ in range(STREAMS)))
    took = time.monotonic() - began
    assert found == [[*range(1, CHANGES + 1)]] * STREAMS
    assert log.most == 1
    # The last pages have no pause behind them.
    assert took > CHANGE_SECONDS * STREAMS * (CHANGES - CHANGES_AT_ONCE) / 2


async def test_streams_of_other_users_read_meanwhile(feed: FeedService, log: CountedLog, tasks: PostgresTasks) -> None:
    actors: Sequence[Actor] = [Actor(uuid4(), uuid4(), "") for _ in range(3)]
    tokens = [await _token(feed, actor) for actor in actors]
    for actor in actors:
        await tasks.write(actor, [Creation(new_id(), LONGEST) for _ in range(30)])
    log.most = 0
    await asyncio.gather(*(_all(feed, actor, token, 30) for actor, token in zip(actors, tokens, strict=True)))
    assert log.most > 1


async def test_a_client_that_does_not_read_delays_the_others_of_its_user_by_no_more_than_a_turn(
    feed: FeedService, tasks: PostgresTasks, actor: Actor
) -> None:
    token = await _token(feed, actor)
    await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(10)])
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            unread = await stack.enter_async_context(aclosing(feed.watch_tasks(_identity(actor), token)))
            # The checkpoint and one change: nine are in the hands of a stream that nobody asks for the next.
            await _read(unread, 1)
        began = time.monotonic()
        assert await _all(feed, actor, token, 10) == [*range(1, 11)]
        assert time.monotonic() - began < TURN_SECONDS * 2 + 1


async def test_a_stream_asks_for_about_as_many_changes_as_fit_into_a_read(
    feed: FeedService, log: CountedLog, tasks: PostgresTasks, actor: Actor
) -> None:
    """PostgreSQL unpacks each change that it is asked for, although only six of these fit."""
    token = await _token(feed, actor)
    await tasks.write(actor, [Creation(new_id(), LONGEST) for _ in range(60)])
    log.asked.clear()
    await _all(feed, actor, token, 60)
    assert set(log.asked) == {FIRST_CHANGES}
    token = await _token(feed, actor)
    await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(300)])
    log.asked.clear()
    await _all(feed, actor, token, 300)
    assert log.asked == [FIRST_CHANGES, 2 * FIRST_CHANGES, 4 * FIRST_CHANGES, CHANGES_AT_ONCE, CHANGES_AT_ONCE]
