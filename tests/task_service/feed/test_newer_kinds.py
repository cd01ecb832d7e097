"""A change of a kind that only a newer version knows: that version runs beside this one during an upgrade, or ran before a rollback."""

from dataclasses import replace

import pytest

from servicekit.stores.postgres import Database
from task_service.feed.domain import ChangeKind
from task_service.feed.errors import ResumeTokenExpired
from task_service.feed.repository import PostgresChanges
from task_service.tasks.domain import Actor, Place, Task
from task_service.tasks.repository import PostgresTasks
from tests.task_service.conftest import FIELDS, insert, update
from tests.task_service.feed.test_watching import Feed, _ended, _next

NEWER_KIND = 99


@pytest.fixture
async def task(database: Database, tasks: PostgresTasks, actor: Actor) -> Task:
    """A task with three changes, of which the second one has a newer kind."""
    await database.fetchrow("ALTER TABLE task.changes DROP CONSTRAINT IF EXISTS changes_kind_check")
    made = await insert(tasks, actor, FIELDS)
    for title in ("second", "third"):
        await update(tasks, actor, made.id, replace(FIELDS, title=title), ["title"])
    await database.fetchrow("UPDATE task.changes SET kind = $2 WHERE user_id = $1 AND seq = 2", actor.user_id, NEWER_KIND)
    return made


async def _token(feed: Feed, database: Database, actor: Actor, seq: int) -> str:
    """Returns the resume token after the change with this number."""
    return feed.service.token(actor.user_id, Place(await PostgresChanges(database).get_epoch(), seq))


@pytest.mark.usefixtures("task")
async def test_a_stream_ends_before_it_as_if_its_token_had_expired(database: Database, actor: Actor) -> None:
    feed = Feed(database)
    async with feed.watch(actor, await _token(feed, database, actor, 0)) as events:
        await _next(events)
        change = (await _next(events)).change
        assert change is not None
        assert (change.seq, change.kind) == (1, ChangeKind.CREATED)
        await _ended(events, ResumeTokenExpired)
    async with feed.watch(actor, await _token(feed, database, actor, 1)) as events:
        await _ended(events, ResumeTokenExpired)


@pytest.mark.usefixtures("task")
async def test_a_stream_from_behind_it_goes_on(database: Database, actor: Actor) -> None:
    feed = Feed(database)
    async with feed.watch(actor, await _token(feed, database, actor, 2)) as events:
        await _next(events)
        change = (await _next(events)).change
        assert change is not None
        assert change.seq == 3


async def test_the_history_leaves_it_out(database: Database, actor: Actor, task: Task) -> None:
    found = await PostgresChanges(database).list_of_task(actor.user_id, task.id, 100, 2)
    assert found is not None
    assert [change.seq for change in found] == [3, 1]
