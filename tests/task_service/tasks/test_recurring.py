"""Due days, recurrence and the next task, by the service with the repository in PostgreSQL and with the cache over it."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from servicekit.errors import InvalidField
from servicekit.rpc.paging import page_tokens
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.due.domain import Anchor
from task_service.query.domain import Status
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import Actor, Recurrence, Reminder, Task, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskService
from task_service.tasks.writes import Update
from tests.task_service.conftest import new_id

DAY = date(2026, 12, 1)
DAILY = Recurrence("FREQ=DAILY", Anchor.DUE)
PAID = TaskFields(title="Pay rent", labels=("home",), priority=4, due_on=DAY, recurrence=DAILY, reminders=(Reminder(before_due=3600),))
DONE = TaskFields(status=Status.COMPLETED)


@pytest.fixture(params=["postgres", "cache"])
def service(request: pytest.FixtureRequest, tasks: PostgresTasks, cached: CachedTasks) -> TaskService:
    repository = cached if request.param == "cache" else tasks
    return TaskService(repository, page_tokens("a key for the tests, long enough to be one"), new_id, lambda _: None)


async def create(service: TaskService, actor: Actor, fields: TaskFields) -> Task:
    return (await service.create_tasks(actor, [fields], None)).tasks[0]


async def update(service: TaskService, actor: Actor, task_id: UUID, fields: TaskFields, *mask: str) -> Task:
    return (await service.update_tasks(actor, [Update(task_id, fields, mask)], None)).tasks[0]


async def complete(service: TaskService, actor: Actor, task: Task) -> Task:
    return await update(service, actor, task.id, DONE, "status")


async def get(service: TaskService, actor: Actor, task_id: UUID | None) -> Task:
    assert task_id is not None
    return (await service.batch_get_tasks(actor.user_id, [task_id]))[0]


async def test_a_day_ends_at_midnight_in_its_zone(service: TaskService, actor: Actor) -> None:
    made = await create(service, actor, TaskFields(title="t", due_on=DAY, time_zone="Europe/Berlin"))
    assert made.due_date == datetime(2026, 12, 1, 23, tzinfo=UTC)
    moved = await update(service, actor, made.id, TaskFields(time_zone="America/New_York"), "time_zone")
    assert (moved.due_on, moved.due_date) == (DAY, datetime(2026, 12, 2, 5, tzinfo=UTC))
    moved = await update(service, actor, made.id, TaskFields(due_on=date(2026, 12, 3)), "due_on")
    assert moved.due_date == datetime(2026, 12, 4, 5, tzinfo=UTC)


async def test_to_set_one_due_field_clears_the_other(service: TaskService, actor: Actor) -> None:
    instant = datetime(2026, 12, 9, 9, tzinfo=UTC)
    made = await create(service, actor, TaskFields(title="t", due_on=DAY))
    changed = await update(service, actor, made.id, TaskFields(due_date=instant), "due_date")
    assert (changed.due_on, changed.due_date) == (None, instant)
    changed = await update(service, actor, made.id, TaskFields(due_on=DAY), "due_on")
    assert changed.due.due_date is None
    assert changed.due_on == DAY
    # To clear the one that is not set changes nothing.
    assert (await update(service, actor, made.id, TaskFields(), "due_date")).version == changed.version
    assert (await update(service, actor, made.id, TaskFields(), "due_on")).due_date is None


async def test_a_completion_creates_the_next_task(service: TaskService, database: Database, actor: Actor) -> None:
    made = await create(service, actor, PAID)
    done = await complete(service, actor, made)
    following = await get(service, actor, done.next_id)
    assert done.status is Status.COMPLETED
    assert (following.previous_id, following.status, following.due_on) == (made.id, Status.PENDING, DAY + timedelta(days=1))
    assert (following.title, following.labels, following.priority, following.reminders) == ("Pay rent", ("home",), 4, (Reminder(before_due=3600),))
    assert following.place > made.place
    rows = await database.fetch("SELECT kind, task_id, changed_fields FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    assert [(row["kind"], row["task_id"], set(row["changed_fields"])) for row in rows] == [
        (1, made.id, set()),
        (2, made.id, {"status", "next_id"}),
        (1, following.id, set()),
    ]
    reminders = await database.fetch("SELECT task_id, fire_at FROM task.reminders WHERE user_id = $1", actor.user_id)
    assert [tuple(row) for row in reminders] == [(following.id, datetime(2026, 12, 2, 23, tzinfo=UTC))]


async def test_a_second_completion_creates_no_second_one(service: TaskService, database: Database, actor: Actor) -> None:
    made = await create(service, actor, PAID)
    done = await complete(service, actor, made)
    await update(service, actor, made.id, TaskFields(), "status")
    again = await complete(service, actor, made)
    assert again.next_id == done.next_id
    row = await database.fetchrow("SELECT count(*) AS tasks FROM task.tasks WHERE user_id = $1", actor.user_id)
    assert row is not None
    assert row["tasks"] == 2


async def test_completions_at_once_create_one(service: TaskService, database: Database, actor: Actor) -> None:
    made = await create(service, actor, PAID)
    done = await asyncio.gather(*(complete(service, actor, made) for _ in range(6)))
    assert len({task.next_id for task in done}) == 1
    row = await database.fetchrow("SELECT count(*) AS tasks FROM task.tasks WHERE user_id = $1", actor.user_id)
    assert row is not None
    assert row["tasks"] == 2


@pytest.mark.parametrize(
    ("rrule", "days"),
    [
        ("FREQ=DAILY;COUNT=3", [1, 2]),
        ("FREQ=DAILY;UNTIL=20261202", [1]),
        ("FREQ=WEEKLY;INTERVAL=2", [14, 28, 42]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", [30, 61, 89]),
    ],
)
async def test_the_series_goes_on_until_it_is_used_up(service: TaskService, actor: Actor, rrule: str, days: list[int]) -> None:
    task = await create(service, actor, replace(PAID, recurrence=Recurrence(rrule, Anchor.DUE)))
    for number in days:
        task = await get(service, actor, (await complete(service, actor, task)).next_id)
        assert task.due_on == DAY + timedelta(days=number)
    if "COUNT" in rrule or "UNTIL" in rrule:
        assert (await complete(service, actor, task)).next_id is None


async def test_the_completion_can_be_the_anchor(service: TaskService, actor: Actor) -> None:
    old = replace(PAID, due_on=date(2020, 1, 1), recurrence=Recurrence("FREQ=DAILY;INTERVAL=3", Anchor.COMPLETION))
    done = await complete(service, actor, await create(service, actor, old))
    assert done.completed_at is not None
    assert (await get(service, actor, done.next_id)).due_on == done.completed_at.date() + timedelta(days=3)


async def test_a_batch_plans_each_update_for_what_the_ones_before_left(service: TaskService, actor: Actor) -> None:
    made = await create(service, actor, TaskFields(title="t"))
    updates = [
        Update(made.id, TaskFields(due_on=DAY, recurrence=DAILY), ["due_on", "recurrence"]),
        Update(made.id, TaskFields(title="u"), ["title"]),
        Update(made.id, DONE, ["status"]),
        Update(made.id, TaskFields(due_on=date(2027, 1, 1)), ["due_on"]),
    ]
    written = (await service.update_tasks(actor, updates, None)).tasks
    assert [task.version for task in written] == [2, 3, 4, 5]
    following = await get(service, actor, written[-1].next_id)
    assert (following.title, following.due_on) == ("u", DAY + timedelta(days=1))


@pytest.mark.parametrize(
    ("fields", "mask", "field"),
    [
        (TaskFields(), ["due_on"], "requests[1].task.recurrence"),
        (TaskFields(), ["due_on", "time_zone"], "requests[1].task.recurrence"),
        (TaskFields(recurrence=Recurrence("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;INTERVAL=3;UNTIL=20270101", Anchor.DUE)), ["recurrence"], ""),
    ],
    ids=["cleared", "cleared with its zone", "no occurrence before its end"],
)
async def test_a_recurrence_needs_a_due_date(service: TaskService, actor: Actor, fields: TaskFields, mask: list[str], field: str) -> None:
    made = await create(service, actor, PAID)
    updates = [Update(made.id, TaskFields(title="u"), ["title"]), Update(made.id, fields, mask)]
    if not field:
        assert (await service.update_tasks(actor, updates, None)).tasks[-1].recurrence is not None
        return
    with pytest.raises(InvalidField) as refused:
        await service.update_tasks(actor, updates, None, lambda index: f"requests[{index}].task")
    assert [each.field for each in refused.value.violations] == [field]
    assert (await get(service, actor, made.id)).title == "Pay rent"


async def test_a_repetition_gets_the_first_answer_whatever_the_task_is_now(service: TaskService, actor: Actor) -> None:
    made = await create(service, actor, replace(PAID, recurrence=None))
    key = Idempotency("key", hashlib.sha256(b"a request").digest())
    first = await service.update_tasks(actor, [Update(made.id, TaskFields(recurrence=DAILY), ["recurrence"])], key)
    await update(service, actor, made.id, TaskFields(), "recurrence")
    await update(service, actor, made.id, TaskFields(), "due_on")
    again = await service.update_tasks(actor, [Update(made.id, TaskFields(recurrence=DAILY), ["recurrence"])], key)
    assert (again.replayed, again.tasks) == (True, first.tasks)


async def test_a_moved_due_date_moves_the_series(service: TaskService, actor: Actor) -> None:
    weekly = replace(PAID, recurrence=Recurrence("FREQ=WEEKLY;COUNT=3", Anchor.DUE))
    made = await create(service, actor, weekly)
    second = await get(service, actor, (await complete(service, actor, made)).next_id)
    await update(service, actor, second.id, TaskFields(due_on=date(2026, 12, 10)), "due_on")
    third = await get(service, actor, (await complete(service, actor, second)).next_id)
    assert third.due_on == date(2026, 12, 17)
    assert (await complete(service, actor, third)).next_id is None


async def test_the_same_rule_again_continues_the_series(service: TaskService, actor: Actor) -> None:
    made = await create(service, actor, replace(PAID, recurrence=Recurrence("FREQ=DAILY;COUNT=2", Anchor.DUE)))
    second = await get(service, actor, (await complete(service, actor, made)).next_id)
    same = await update(service, actor, second.id, TaskFields(recurrence=Recurrence("FREQ=DAILY;COUNT=2", Anchor.DUE)), "recurrence")
    assert same.version == second.version
    assert (await complete(service, actor, second)).next_id is None


async def test_a_replaced_task_recurs_as_it_was_asked(service: TaskService, actor: Actor) -> None:
    """ReplaceTask names every field, so the next one is planned for the new values."""
    made = await create(service, actor, TaskFields(title="t", due_on=DAY))
    fields = replace(PAID, status=Status.COMPLETED, due_on=date(2027, 5, 31), recurrence=Recurrence("FREQ=MONTHLY", Anchor.DUE))
    mask = ["title", "description", "status", "priority", "due_date", "labels", "due_on", "time_zone", "recurrence", "reminders"]
    done = await update(service, actor, made.id, fields, *mask)
    # Months without the 31st are left out (RFC 5545).
    assert (await get(service, actor, done.next_id)).due_on == date(2027, 7, 31)


async def test_reminders_follow_the_task(service: TaskService, database: Database, actor: Actor) -> None:
    async def times() -> list[datetime]:
        rows = await database.fetch("SELECT fire_at FROM task.reminders WHERE user_id = $1 ORDER BY 1", actor.user_id)
        return [row["fire_at"] for row in rows]

    at = datetime(2099, 1, 1, tzinfo=UTC)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    made = await create(service, actor, TaskFields(title="t", due_date=at, reminders=(Reminder(before_due=60), Reminder(at=at), Reminder(at=past))))
    assert await times() == [at - timedelta(seconds=60), at]
    await update(service, actor, made.id, TaskFields(due_date=at + timedelta(days=1)), "due_date")
    assert await times() == [at, at + timedelta(days=1, seconds=-60)]
    await complete(service, actor, made)
    assert await times() == []
    await update(service, actor, made.id, TaskFields(), "status")
    assert len(await times()) == 2
    await update(service, actor, made.id, TaskFields(), "reminders")
    assert await times() == []
