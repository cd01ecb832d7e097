"""A read of the change log that takes too long: before the first message of a stream, and after it."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from servicekit.errors import DependencyUnavailable, TimeLimitExceeded
from servicekit.identity import Identity
from servicekit.rpc.paging import PlaceTokens, page_tokens
from servicekit.stores.postgres import Database
from task_service.feed.domain import Changes, WatchEvent
from task_service.feed.errors import InvalidResumeToken
from task_service.feed.repository import PostgresChanges
from task_service.feed.service import FeedService
from task_service.feed.watching import Watches
from tests.task_service.feed.test_watching import FAR, SECRET, Channels


class SlowLog(PostgresChanges):
    """A change log whose reads time out as soon as `slow` is set."""

    slow = False

    async def list(self, user_id: UUID, after: int | None, limit: int) -> Changes:
        if self.slow:
            raise TimeLimitExceeded
        return await super().list(user_id, after, limit)


@pytest.fixture
def log(database: Database) -> SlowLog:
    return SlowLog(database)


@pytest.fixture
def events(log: SlowLog) -> AsyncIterator[WatchEvent]:
    """The stream of a user."""
    watches = Watches(log, Channels(), lambda _: None, CollectorRegistry())
    feed = FeedService(log, watches, PlaceTokens(SECRET, "resume token", InvalidResumeToken), page_tokens(SECRET))
    return feed.watch_tasks(Identity(uuid4(), uuid4(), "t", FAR), "")


async def test_a_stream_that_has_begun_ends_so_that_its_client_resumes(log: SlowLog, events: AsyncIterator[WatchEvent]) -> None:
    await anext(events)
    log.slow = True
    with pytest.raises(DependencyUnavailable):
        await anext(events)


async def test_before_its_first_message_the_stream_ends_as_a_call_does(log: SlowLog, events: AsyncIterator[WatchEvent]) -> None:
    """The gateway would try it again if the status were UNAVAILABLE."""
    log.slow = True
    with pytest.raises(TimeLimitExceeded):
        await anext(events)
