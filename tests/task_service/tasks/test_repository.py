"""The contract of a TaskRepository, tested with the repository in PostgreSQL and with the cache over it."""

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from servicekit.stores.postgres import Database
from task_service.query.domain import Status
from task_service.query.list_query import ListQuery
from task_service.query.order import NEWEST_FIRST, parse_order
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import WRITABLE_FIELDS, Actor, Reminder, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskRepository
from tests.task_service.conftest import FIELDS, delete, find, insert, update


@pytest.fixture(params=["postgres", "cache"])
def repository(request: pytest.FixtureRequest, tasks: PostgresTasks, cached: CachedTasks) -> TaskRepository:
    return cached if request.param == "cache" else tasks


async def test_what_was_inserted_is_found(repository: TaskRepository, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    assert (made.title, made.description, made.priority, made.due_date, made.labels) == (
        "Write the plan",
        "All of it",
        2,
        FIELDS.due_date,
        ("a", "b"),
    )
    assert (made.status, made.version, made.completed_at, made.deleted_at) == (Status.PENDING, 1, None, None)
    assert made.created_at == made.updated_at
    # The second answer may come from the cache, and must be the same to the microsecond.
    assert await find(repository, actor.user_id, made.id) == made
    assert await find(repository, actor.user_id, made.id) == made


async def test_another_users_task_is_not_found_changed_or_deleted(repository: TaskRepository, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    stranger = Actor(uuid4(), uuid4(), "")
    assert await find(repository, stranger.user_id, made.id) is None
    assert await update(repository, stranger, made.id, TaskFields(title="Mine"), ["title"]) is None
    assert not await delete(repository, stranger, made.id)
    assert await find(repository, actor.user_id, made.id) == made


# An update of the others is planned for the task: see test_recurring.py.
@pytest.mark.parametrize("field", [name for name in WRITABLE_FIELDS if name not in {"due_on", "recurrence"}])
async def test_an_update_sets_what_the_mask_names_and_nothing_else(repository: TaskRepository, actor: Actor, field: str) -> None:
    made = await insert(repository, actor, FIELDS)
    other = TaskFields("Else", "Other", Status.IN_PROGRESS, 5, None, (), time_zone="Europe/Berlin", reminders=(Reminder(before_due=60),))
    changed = await update(repository, actor, made.id, other, [field])
    assert changed is not None
    assert changed == made._replace(**{field: getattr(other, field)}, updated_at=changed.updated_at, version=2)
    assert changed.updated_at > made.updated_at
    assert await find(repository, actor.user_id, made.id) == changed


async def test_completed_at_follows_the_status(repository: TaskRepository, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    done = await update(repository, actor, made.id, TaskFields(status=Status.COMPLETED), ["status"])
    assert done is not None
    assert done.completed_at == done.updated_at
    retitled = await update(repository, actor, made.id, TaskFields(title="Still done"), ["title"])
    assert retitled is not None
    assert retitled.completed_at == done.completed_at
    reopened = await update(repository, actor, made.id, TaskFields(status=Status.PENDING), ["status"])
    assert reopened is not None
    assert reopened.completed_at is None
    born_done = await insert(repository, actor, replace(FIELDS, status=Status.COMPLETED))
    assert born_done.completed_at == born_done.created_at


async def test_setting_what_is_already_so_changes_nothing(repository: TaskRepository, database: Database, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    assert await update(repository, actor, made.id, FIELDS, WRITABLE_FIELDS) == made
    assert await _changes(database, actor) == [(1, 1, [])]


async def test_a_deleted_task_is_gone_for_everybody(repository: TaskRepository, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    await find(repository, actor.user_id, made.id)
    assert await delete(repository, actor, made.id)
    assert await find(repository, actor.user_id, made.id) is None
    assert await update(repository, actor, made.id, FIELDS, ["title"]) is None
    assert not await delete(repository, actor, made.id)
    assert (await repository.list(ListQuery(actor.user_id, None, None, NEWEST_FIRST), None, 0, 10)).tasks == []


async def test_the_extreme_due_dates_come_back_as_they_went(repository: TaskRepository, actor: Actor) -> None:
    for due in (
        datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ):
        made = await insert(repository, actor, replace(FIELDS, due_date=due))
        for _ in range(2):
            found = await find(repository, actor.user_id, made.id)
            assert found is not None
            assert found.due_date == due


async def test_every_change_is_logged_once_in_order(repository: TaskRepository, database: Database, actor: Actor) -> None:
    first = await insert(repository, actor, FIELDS)
    second = await insert(repository, actor, FIELDS)
    await update(repository, actor, first.id, TaskFields(title="New", status=Status.COMPLETED), ["title", "status"])
    await update(repository, actor, uuid4(), TaskFields(title="New"), ["title"])
    await delete(repository, actor, second.id)
    assert await _changes(database, actor) == [(1, 1, []), (2, 1, []), (3, 2, ["title", "status"]), (4, 3, [])]
    row = await database.fetchrow("SELECT * FROM task.changes WHERE user_id = $1 AND seq = 3", actor.user_id)
    assert row is not None
    assert (row["task_id"], row["version"], row["request_id"], row["session_id"]) == (first.id, 2, "request-1", actor.session_id)
    assert '"title": "New"' in row["snapshot"]


async def test_writes_at_once_leave_a_gapless_log(repository: TaskRepository, database: Database, actor: Actor) -> None:
    """The user is new, so that the writes also race to create the counter's row. Several replicas, because one sends such writes together."""
    replicas = [repository] if isinstance(repository, CachedTasks) else [PostgresTasks(database) for _ in range(5)]
    by = itertools.cycle(replicas)
    made = await asyncio.gather(*(insert(next(by), actor, FIELDS) for _ in range(10)))
    target = made[0].id
    await asyncio.gather(*(update(next(by), actor, target, TaskFields(title=f"Title {i}"), ["title"]) for i in range(20)))
    await asyncio.gather(*(update(next(by), actor, uuid4(), FIELDS, ["title"]) for _ in range(10)))
    changes = await _changes(database, actor)
    assert [seq for seq, _, _ in changes] == list(range(1, 31))
    row = await database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", actor.user_id)
    assert row is not None
    assert row["last_seq"] == 30
    found = await find(repository, actor.user_id, target)
    assert found is not None
    assert found.version == 21


async def test_lists_filter_and_order(repository: TaskRepository, actor: Actor) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    wanted = [
        replace(FIELDS, title="c", priority=1, due_date=None),
        replace(FIELDS, title="a", priority=5, due_date=start, status=Status.COMPLETED),
        replace(FIELDS, title="b", priority=5, due_date=start + timedelta(days=1)),
    ]
    for fields in wanted:
        await insert(repository, actor, fields)

    async def titles(order: str = "", status: Status | None = None, priority: int | None = None) -> str:
        query = ListQuery(actor.user_id, status, priority, parse_order(order))
        return "".join(task.title for task in (await repository.list(query, None, 0, 10)).tasks)

    assert await titles() == "bac"
    assert await titles("created_at") == "cab"
    assert await titles("title desc") == "cba"
    # A task without a due date comes last in both directions.
    assert await titles("due_date") == "abc"
    assert await titles("due_date desc") == "bac"
    assert await titles("priority desc, title desc") == "bac"
    assert await titles("priority desc, title") == "abc"
    assert await titles(status=Status.COMPLETED) == "a"
    assert await titles(status=Status.PENDING, priority=5) == "b"


async def _changes(database: Database, actor: Actor) -> list[tuple[int, int, list[str]]]:
    rows = await database.fetch("SELECT seq, kind, changed_fields FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    return [(row["seq"], row["kind"], row["changed_fields"]) for row in rows]
