"""The numbers of tasks by status in a user's counter are those of the tasks after every write, also of writes that a migration meets."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devstack.stack import Stack
from servicekit.errors import TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.migrate import Migrations
from servicekit.stores.postgres import Database
from task_service.accounts.domain import Left
from task_service.accounts.repository import PostgresAccountRows
from task_service.query.domain import Status
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery
from task_service.query.list_statement import list_statement
from task_service.query.order import parse_order
from task_service.tasks.domain import Actor
from task_service.tasks.errors import OperationRefused
from task_service.tasks.repository import KINDS, PostgresTasks, removals
from task_service.tasks.writes import Creation, Deletion, Operation, Undeletion, Update
from tests.support.databases import cloned
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, new_id

MIGRATIONS = Path(__file__).parents[3] / "task_service" / "migrations"
# The numbers in the counter, and those of the tasks.
KEPT = "SELECT pending, in_progress, completed FROM task.counters WHERE user_id = $1"
COUNTED = """
    SELECT count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3)
      FROM task.tasks WHERE user_id = $1 AND deleted_at IS NULL
"""
WAITING = """
    SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE NOT granted AND datname = current_database()
"""
# The filters whose totals the counter has, with the statuses that they mean.
FILTERS = {
    "": {1, 2, 3},
    "status = PENDING": {1},
    "status != COMPLETED": {1, 2},
    "NOT (status = PENDING OR status = IN_PROGRESS)": {3},
    "status = PENDING AND status = COMPLETED": set(),
}
WRITERS, ROUNDS = 8, 25

Fetch = Callable[..., Awaitable[Sequence[asyncpg.Record]]]

pick = st.integers(0, 5)
creation = st.sampled_from(Status).map(lambda status: lambda _: Creation(new_id(), replace(FIELDS, status=status)))
change = st.tuples(pick, st.sampled_from(Status)).map(lambda it: lambda ids: Update(ids[it[0]], replace(FIELDS, status=it[1]), ["status", "title"]))
deletion = pick.map(lambda n: lambda ids: Deletion(ids[n]))
undeletion = pick.map(lambda n: lambda ids: Undeletion(ids[n]))
# Operations of one kind: one or several.
writes = st.one_of(*(st.lists(each, min_size=1, max_size=3) for each in (creation, change, deletion, undeletion)))


async def counts_of(fetch: Fetch, user_id: UUID) -> tuple[int, ...]:
    """Returns the numbers in the counter. Fails if they are not those of the tasks."""
    (counted,) = await fetch(COUNTED, user_id)
    kept = await fetch(KEPT, user_id)
    assert (tuple(kept[0]) if kept else (0, 0, 0)) == tuple(counted)
    return tuple(counted)


@settings(max_examples=60)
@given(each=st.lists(st.tuples(writes, st.sampled_from([None, "a", "b"])), min_size=1, max_size=8))
async def test_the_counts_follow_every_write(
    tasks: PostgresTasks, database: Database, each: Iterable[tuple[Sequence[Callable[[Sequence[UUID]], Operation]], str | None]]
) -> None:
    actor = Actor(new_id(), new_id(), "")
    ids = [new_id() for _ in range(6)]
    await tasks.write(actor, [Creation(task_id, replace(FIELDS, status=Status(1 + n % 3))) for n, task_id in enumerate(ids)])
    for makers, key in each:
        # All requests have one hash, so every later write with a key is a repetition, which changes nothing.
        with contextlib.suppress(OperationRefused):
            await tasks.write(actor, [make(ids) for make in makers], Idempotency(key, b"hash") if key else None)
        await counts_of(database.fetch, actor.user_id)


async def test_the_counts_are_those_of_the_tasks_after_writes_at_once(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    rng = random.Random("counts")
    ids = [new_id() for _ in range(12)]
    await tasks.write(actor, [Creation(task_id, FIELDS) for task_id in ids])

    async def writer() -> None:
        # A replica for each, because one replica would send the writes together.
        tasks = PostgresTasks(database)
        for _ in range(ROUNDS):
            task_id = rng.choice(ids)
            fields = replace(FIELDS, status=rng.choice(list(Status)))
            operation = rng.choice([Creation(new_id(), fields), Update(task_id, fields, ["status"]), Deletion(task_id), Undeletion(task_id)])
            with contextlib.suppress(OperationRefused):
                await tasks.write(actor, [operation])

    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    assert sum(await counts_of(database.fetch, actor.user_id)) > len(ids)


@pytest.mark.parametrize("show_deleted", [False, True])
async def test_the_total_of_a_list_by_status_is_that_of_the_counter(
    tasks: PostgresTasks, database: Database, actor: Actor, *, show_deleted: bool
) -> None:
    made = [Creation(new_id(), replace(FIELDS, status=Status(1 + (n > 1) + (n > 4)))) for n in range(9)]
    query = ListQuery(actor.user_id, None, None, parse_order(""), show_deleted=show_deleted)
    assert (await tasks.list(query, None, 0, 1, with_total=True)).total_size == 0
    await tasks.write(actor, made)
    await tasks.write(actor, [Deletion(made[0].id), Deletion(made[8].id)])
    by_status = {1: 1 + show_deleted, 2: 3, 3: 3 + show_deleted}
    for text, statuses in FILTERS.items():
        filtered = replace(query, filter=parse_filter(text))
        total = sum(by_status[status] for status in statuses)
        assert (await tasks.list(filtered, None, 0, 1, with_total=True)).total_size == total
        sql, _ = list_statement(filtered, None, 0, 1, with_total=True)
        assert sql.count("count(*)") == show_deleted
    for status in Status:
        assert (await tasks.list(replace(query, status=status), None, 0, 1, with_total=True)).total_size == by_status[status]
    await counts_of(database.fetch, actor.user_id)


async def test_what_is_removed_for_good_was_not_counted(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    made = [Creation(new_id(), FIELDS) for _ in range(4)]
    await tasks.write(actor, made)
    await tasks.write(actor, [Deletion(creation.id) for creation in made[:2]])
    await database.fetchrow("UPDATE task.tasks SET deleted_at = deleted_at - interval '40 days' WHERE user_id = $1", actor.user_id)
    await database.fetchrow(removals(bin_days=30, change_days=7)[0].sql, timedelta(days=30), timedelta(days=7), 100)
    assert len(await database.fetch("SELECT FROM task.tasks WHERE user_id = $1", actor.user_id)) == 2
    assert await counts_of(database.fetch, actor.user_id) == (2, 0, 0)


async def test_the_tasks_of_an_account_leave_the_counts_as_they_are_removed(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    rows = PostgresAccountRows(database)
    made = [Creation(new_id(), replace(FIELDS, status=Status(1 + n % 3))) for n in range(7)]
    await tasks.write(actor, made)
    await tasks.write(actor, [Deletion(made[3].id)])
    await rows.close_account(actor.user_id)
    with pytest.raises(TokenInvalid):
        await tasks.write(actor, [Creation(new_id(), FIELDS)])
    seen = []
    while (await rows.remove_account(actor.user_id, 2)).left is Left.SOME:
        seen.append(sum(await counts_of(database.fetch, actor.user_id)))
    assert seen[0] in {4, 5}
    assert await counts_of(database.fetch, actor.user_id) == (0, 0, 0)


# The migration:


@pytest.fixture(params=["000[1-5]_*.sql", "000[1-9]_*.sql"], ids=["before the counts", "with triggers for labels"])
async def old_url(request: pytest.FixtureRequest, system: Stack, tmp_path: Path) -> AsyncIterator[str]:
    """A database with an older schema."""
    async with cloned(system.state.database_url, "template1") as url:
        for path in MIGRATIONS.glob(request.param):
            (tmp_path / path.name).write_text(path.read_text())
        await Migrations("task", tmp_path).apply(url)
        yield url


def _write(connection: "asyncpg.Connection[asyncpg.Record]", user_id: UUID, kind: type, *values: str) -> Awaitable[object]:
    """Calls task.write as the code from before the migration does."""
    sql = "SELECT * FROM task.write($1, $2, $3, ROW($1, $1, '')::task.actor, NULL, NULL, 1000000, NULL, NULL)"
    return connection.fetch(sql, user_id, KINDS[kind], f"[{', '.join(values)}]")


def _values(n: int, task_id: UUID, status: Status, mask: str = "") -> str:
    fields = f'"title": "A", "description": "", "status": {status.value}, "priority": 3, "due_date": null, "labels": ["a"]'
    return f'{{"n": {n}, "id": "{task_id}", {fields}, "mask": ["{mask}"]}}'


async def test_the_migration_counts_what_is_there_and_what_is_written_meanwhile(old_url: str) -> None:
    """One write has begun before the migration and ends during it. The others wait for the migration, in the functions from before it."""
    users = [new_id() for _ in range(3)]
    ids = [new_id() for _ in range(6)]
    connections = [await asyncpg.connect(old_url) for _ in range(6)]
    watching, before, *others = connections
    for user_id in users:
        await _write(before, user_id, Creation, *(_values(n, task_id, Status(1 + n % 3)) for n, task_id in enumerate(ids)))
        await _write(before, user_id, Deletion, _values(0, ids[5], Status.PENDING))
    transaction = before.transaction()
    await transaction.start()
    await _write(before, users[0], Update, _values(0, ids[0], Status.COMPLETED, "status"))
    migrating = asyncio.create_task(Migrations("task", MIGRATIONS).apply(old_url))
    await eventually(lambda: _require_waiting(watching, 1), within=5)
    writes = [
        _write(others[0], users[0], Creation, *(_values(n, new_id(), Status.IN_PROGRESS) for n in range(2))),
        _write(others[1], users[1], Update, _values(0, ids[1], Status.PENDING, "status")),
        _write(others[2], users[2], Deletion, _values(0, ids[2], Status.PENDING)),
        _write(others[3], users[2], Creation, _values(0, new_id(), Status.COMPLETED)),
    ]
    writing = [asyncio.ensure_future(write) for write in writes]
    await eventually(lambda: _require_waiting(watching, 1 + len(writes)), within=5)
    await transaction.commit()
    assert "0010_citus" in await migrating
    await asyncio.gather(*writing)
    found = [await counts_of(watching.fetch, user_id) for user_id in users]
    assert found == [(1, 4, 2), (3, 1, 1), (2, 2, 1)]
    labels = "SELECT count(*) FROM task.task_labels"
    assert await watching.fetchval(labels) == sum(map(sum, found))
    for connection in connections:
        await connection.close()


async def _require_waiting(connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> None:
    """Fails unless this many connections wait for a lock."""
    assert await connection.fetchval(WAITING) >= number
