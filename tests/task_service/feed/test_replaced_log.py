"""A log that was replaced, as after a failover of PostgreSQL: its streams notice it, also if the last numbers of their users are the same."""

import asyncio

from servicekit.stores.postgres import Database
from task_service.feed.errors import ResumeTokenExpired
from task_service.tasks.domain import Actor
from task_service.tasks.repository import PostgresTasks
from tests.task_service.conftest import FIELDS, insert
from tests.task_service.feed.test_watching import Feed, _all_read, _ended, _next, _silent


async def test_a_stream_that_waits_ends_when_its_log_is_another_one(database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    feed = Feed(database)
    await insert(tasks, actor, FIELDS)
    async with feed.watch(actor) as events:
        await _next(events)
        ending = asyncio.create_task(_ended(events, ResumeTokenExpired))
        await _all_read(feed, actor)
        await feed.watches.round()
        await asyncio.sleep(0.1)
        assert not ending.done()
        assert feed.registry.get_sample_value("task_watch_wakeups_total", {"by": "poll"}) == 0
        await database.fetchrow("UPDATE task.feed SET epoch = gen_random_uuid()")
        await feed.watches.round()
        await ending
    async with feed.watch(actor) as events:
        await _next(events)
        await feed.watches.round()
        await _silent(events)
