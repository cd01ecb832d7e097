"""Reminders fire once, whoever fires them, and late ones too."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from servicekit.stores.postgres import Database
from task_service.query.domain import Status
from task_service.reminders.domain import Fired
from task_service.reminders.repository import PostgresReminders
from task_service.reminders.service import Reminders
from task_service.tasks.domain import Actor, Reminder, Task, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation, Deletion, Update
from tests.task_service.conftest import new_id

# A round of one reminder takes milliseconds.
ROUND_SECONDS = 10

Announce = Callable[[UUID], None]


@pytest.fixture(autouse=True)
async def _nothing_is_due(database: Database) -> None:
    await database.fetchrow("DELETE FROM task.reminders")


def worker(database: Database, announce: Announce = lambda _: None) -> Reminders:
    return Reminders(PostgresReminders(database), announce, CollectorRegistry())


async def remind(tasks: PostgresTasks, database: Database, actor: Actor, count: int, *, ago: timedelta = timedelta(seconds=5)) -> list[Task]:
    """Creates tasks with a reminder each, which is due since `ago`."""
    fields = TaskFields(title="Remind me", reminders=(Reminder(at=datetime(2099, 1, 1, tzinfo=UTC)),))
    made = list((await tasks.write(actor, [Creation(new_id(), replace(fields, title=str(n))) for n in range(count)])).tasks)
    await database.fetchrow("UPDATE task.reminders SET fire_at = $2 WHERE user_id = $1", actor.user_id, datetime.now(UTC) - ago)
    return made


async def fired(database: Database, actor: Actor) -> Sequence[UUID]:
    """Returns the tasks that were reminded of, in order. Fails if the numbers of the log have a gap."""
    rows = await database.fetch("SELECT seq, kind, task_id FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    counter = await database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", actor.user_id)
    assert counter is not None
    assert [row["seq"] for row in rows] == list(range(1, counter["last_seq"] + 1))
    return [row["task_id"] for row in rows if row["kind"] == 6]


async def test_a_due_reminder_is_logged_once(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    (task,) = await remind(tasks, database, actor, 1)
    announced: list[UUID] = []
    for _ in range(3):
        # A reminder that stays due keeps a round busy for ever.
        async with asyncio.timeout(ROUND_SECONDS):
            await worker(database, announced.append).round()
    assert await fired(database, actor) == [task.id]
    assert announced == [actor.user_id]


async def test_a_reminder_that_is_not_due_waits(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    await remind(tasks, database, actor, 1, ago=timedelta(seconds=-60))
    await worker(database).round()
    assert await fired(database, actor) == []


async def test_workers_at_once_fire_each_reminder_once(tasks: PostgresTasks, database: Database) -> None:
    actors = [Actor(uuid4(), uuid4(), "") for _ in range(12)]
    made = [await remind(tasks, database, actor, 40) for actor in actors]
    await asyncio.gather(*(worker(database).round() for _ in range(4)))
    # What a worker has left because another one had the user.
    await worker(database).round()
    for actor, expected in zip(actors, made, strict=True):
        assert sorted(await fired(database, actor)) == sorted(task.id for task in expected)


async def test_more_reminders_than_fit_in_a_transaction_all_fire(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    made = await remind(tasks, database, actor, 1000)
    made += await remind(tasks, database, actor, 200)
    await worker(database).round()
    assert sorted(await fired(database, actor)) == sorted(task.id for task in made)


async def test_completed_and_deleted_tasks_do_not_remind(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    done, deleted, task = await remind(tasks, database, actor, 3)
    await tasks.write(actor, [Update(done.id, TaskFields(status=Status.COMPLETED), ["status"])])
    await tasks.write(actor, [Deletion(deleted.id)])
    await worker(database).round()
    assert await fired(database, actor) == [task.id]


async def test_a_change_of_the_task_keeps_a_reminder_that_is_late(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    (task,) = await remind(tasks, database, actor, 1)
    at = (await database.fetch("SELECT fire_at FROM task.reminders WHERE user_id = $1", actor.user_id))[0]["fire_at"]
    await tasks.write(actor, [Update(task.id, TaskFields(reminders=(Reminder(at=at),)), ["reminders"])])
    await worker(database).round()
    assert await fired(database, actor) == [task.id]


async def test_a_user_whose_writes_are_under_way_waits_a_second_at_most(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    store = PostgresReminders(database)
    await remind(tasks, database, actor, 1)

    async def writing(connection: Any) -> "asyncio.Task[Fired | None]":
        await connection.fetchval("SELECT task.take_seqs($1, 0)", actor.user_id)
        assert await store.fire(actor.user_id, 10, waits=False) is None
        waiting = asyncio.create_task(store.fire(actor.user_id, 10, waits=True))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        return waiting

    found = await (await database.transact(writing))
    assert found is not None
    assert found.count == 1


async def test_a_closed_account_reminds_of_nothing(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    await remind(tasks, database, actor, 1)
    await database.fetchrow("SELECT task.close_account($1)", actor.user_id)
    await worker(database).round()
    assert await fired(database, actor) == []
