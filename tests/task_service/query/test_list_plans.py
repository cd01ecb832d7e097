"""Lists of up to a million tasks: PostgreSQL reads the usual lists from an index, in order, from any position. A middle page costs as much as page 1.

The tests read PostgreSQL's plans and its counts of pages, not a clock.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from devstack.stack import Stack
from servicekit.stores.postgres import Database, DatabaseOptions
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery, Position
from task_service.query.list_statement import list_statement
from task_service.query.order import parse_order
from task_service.tasks.pages import position_of
from task_service.tasks.repository import PostgresTasks
from tests.support.databases import cloned

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Plan: TypeAlias = dict[str, Any]

USER = UUID("0190b5a0-0000-7000-8000-000000000001")
# PostgreSQL makes generic plans for the average user, who has few tasks. With many such users, it must still choose the index.
OTHER_USERS, TASKS_OF_OTHERS = 20_000, 2
DELETED = 1000
PAGE_SIZE = 20
# A look-up in the index of the counters, and the row.
COUNTER_PAGES = 4

INDEXES = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
      FROM pg_index WHERE indrelid IN ('task.tasks'::regclass, 'task.task_labels'::regclass) AND NOT indisprimary
"""
# Of 100 tasks, 70 are completed, 40 have the label `work` and 25 have no due date. DELETED tasks are deleted; PostgreSQL would sort fewer, as that
# costs no more than to read them in order. Many tasks have equal due dates.
FILL = """
    INSERT INTO task.tasks
    SELECT {user}, lpad(to_hex(n), 32, '0')::uuid, 'Task ' || n, '', status, 1 + n / 7 % 5,
           CASE WHEN n % 4 > 0 THEN timestamptz '2026-01-01' + (n * 7919::bigint % 100003) * interval '1 hour' END,
           CASE WHEN n % 5 < 2 THEN ARRAY['work', 'l' || n % 100] ELSE '{{}}' END,
           made_at, made_at, CASE WHEN status = 3 THEN made_at END, CASE WHEN n % {every} = 7 THEN made_at END, 1
      FROM generate_series(1, {tasks}) AS n CROSS JOIN {users}
     CROSS JOIN LATERAL (VALUES (timestamptz '2020-01-01' + n * interval '1 minute', width_bucket(n * 7919::bigint % 100, ARRAY[0, 15, 30])))
           AS made (made_at, status)
"""
FILL_LABELS = """
    INSERT INTO task.task_labels (user_id, label, created_at, task_id, completed)
    SELECT user_id, label, created_at, id, status = 3 FROM task.tasks CROSS JOIN unnest(labels) AS label WHERE deleted_at IS NULL
"""
FILL_COUNTERS = """
    INSERT INTO task.counters (user_id, last_seq, pending, in_progress, completed)
    SELECT user_id, 0, count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3)
      FROM task.tasks WHERE deleted_at IS NULL GROUP BY user_id
"""


@dataclass(frozen=True)
class Scale:
    """The number of the user's tasks, and the number of a page in the middle of each list."""

    tasks: int

    @property
    def page(self) -> int:
        return self.tasks // 200


@dataclass(frozen=True)
class Listing:
    """An order and a filter of a usual list, and the index that serves it."""

    order: str
    filter: str
    index: str
    show_deleted: bool = False

    @property
    def query(self) -> ListQuery:
        return ListQuery(USER, None, None, parse_order(self.order), parse_filter(self.filter), self.show_deleted)

    def __str__(self) -> str:
        return f"{self.order or 'newest'}-{self.filter or 'all'}{'-deleted' if self.show_deleted else ''}"


LISTINGS = [
    Listing("", "", "tasks_by_status"),
    Listing("created_at", "", "tasks_by_status"),
    Listing("", "status != COMPLETED", "tasks_by_status"),
    Listing("", "status = PENDING OR status = IN_PROGRESS", "tasks_by_status"),
    Listing("", "status = PENDING", "tasks_by_status"),
    Listing("", "status = COMPLETED", "tasks_by_status"),
    Listing("due_date", "", "tasks_by_status_and_due_date"),
    Listing("due_date", "NOT status = COMPLETED", "tasks_by_status_and_due_date"),
    Listing("due_date", "status = PENDING", "tasks_by_status_and_due_date"),
    Listing("priority desc, due_date", "", "tasks_by_status_priority_and_due_date"),
    Listing("priority desc, due_date", "status != COMPLETED", "tasks_by_status_priority_and_due_date"),
    Listing("priority desc, due_date", "status = IN_PROGRESS", "tasks_by_status_priority_and_due_date"),
    Listing("priority desc, title", "", "tasks_by_status_priority_and_folded_title"),
    Listing("priority desc, title", "status != COMPLETED", "tasks_by_status_priority_and_folded_title"),
    Listing("priority, title desc", "status = PENDING", "tasks_by_status_priority_and_folded_title"),
    Listing("", "labels:work", "task_labels_pkey"),
    Listing("created_at", "labels:work", "task_labels_pkey"),
    Listing("", "labels:work status != COMPLETED", "task_labels_pkey"),
    Listing("", "labels:work status = COMPLETED", "task_labels_pkey"),
    Listing("", "priority = 5", "tasks_by_status_and_priority"),
    Listing("", "priority = 5 AND status = COMPLETED", "tasks_by_status_and_priority"),
    Listing("position", "NOT project_id:*", "tasks_by_project_and_position"),
    Listing("position desc", "NOT project_id:*", "tasks_by_project_and_position"),
    Listing("", "", "deleted_tasks_by_created_at", show_deleted=True),
    Listing("", "", "tasks_by_status", show_deleted=True),
]
UNSERVED = Listing("title", "", "")
# Of these orders, an index has the first key.
PRESORTED = [
    Listing("due_date, title", "", "tasks_by_status_and_due_date"),
    Listing("created_at desc, title", "status != COMPLETED", "tasks_by_status"),
    Listing("created_at, priority desc", "", "tasks_by_status"),
]


# Writing a million tasks takes a minute, so `make test` reads the plans with a tenth of them.
@pytest.fixture(
    scope="module",
    params=[Scale(100_000), pytest.param(Scale(1_000_000), marks=pytest.mark.slow("writes a million tasks"))],
    ids=lambda scale: str(scale.tasks),
)
def scale(request: pytest.FixtureRequest) -> Scale:
    """The scale of the database."""
    found: Scale = request.param
    return found


@pytest.fixture(scope="module")
async def database_url(system: Stack, _template: str, scale: Scale) -> AsyncIterator[str]:
    """A migrated database for each scale."""
    async with cloned(system.state.database_url, _template) as url:
        yield url


@pytest.fixture(scope="module")
async def filled(database_url: str, scale: Scale) -> AsyncIterator[Connection]:
    """A connection to a database in which one user has `scale.tasks` tasks, and many users have a few."""
    # No statement cache, because the tests prepare their statements under a name.
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    async with connection.transaction():
        # Ten times as fast without indexes and triggers. They are restored afterwards.
        indexes = await connection.fetch(INDEXES)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        await connection.execute("ALTER TABLE task.tasks DISABLE TRIGGER USER")
        every = scale.tasks // DELETED
        await connection.execute(FILL.format(user=f"'{USER}'::uuid", tasks=scale.tasks, users="(SELECT) AS one", every=every))
        others = f"generate_series(1, {OTHER_USERS}) AS u"
        await connection.execute(FILL.format(user="lpad(to_hex(u), 32, '0')::uuid", tasks=TASKS_OF_OTHERS, users=others, every=every))
        await connection.execute(FILL_LABELS)
        await connection.execute(FILL_COUNTERS)
        for index in indexes:
            await connection.execute(index["definition"])
        await connection.execute("ALTER TABLE task.tasks ENABLE TRIGGER USER")
    await connection.execute("VACUUM ANALYZE task.tasks, task.task_labels, task.counters")
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def repository(database_url: str) -> AsyncIterator[PostgresTasks]:
    """A repository with a timeout that is long enough to skip to the middle of a list."""
    database = Database(DatabaseOptions(database_url, "tests", 1, 100, timeout_seconds=30), CollectorRegistry())
    await database.start()
    yield PostgresTasks(database)
    await database.close()


every_listing = pytest.mark.parametrize("listing", LISTINGS, ids=str)
every_mode = pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])


@every_mode
@every_listing
async def test_what_people_list_by_is_read_in_order(filled: Connection, repository: PostgresTasks, scale: Scale, listing: Listing, mode: str) -> None:
    first = await _explain(filled, listing, None, mode)
    far = await _explain(filled, listing, await _far(repository, scale, listing), mode)
    for plan in (first, far):
        assert breaks(plan) == []
        assert listing.index in {node.get("Index Name") for node in _nodes(plan)}
    assert pages_read(far) <= 1.5 * pages_read(first) + PAGE_SIZE


@every_mode
@pytest.mark.parametrize("listing", PRESORTED, ids=str)
async def test_tasks_with_the_same_first_key_are_sorted(
    filled: Connection, repository: PostgresTasks, scale: Scale, listing: Listing, mode: str
) -> None:
    """PostgreSQL reads the index until the page is full, not all tasks. Few tasks of the list have the same first key."""
    for after in (None, await _far(repository, scale, listing)):
        plan = await _explain(filled, listing, after, mode)
        reads = [node for node in _nodes(plan) if node.get("Relation Name") == "tasks"]
        assert {node.get("Index Name") for node in reads} == {listing.index}
        assert "Incremental Sort" in {node["Node Type"] for node in _nodes(plan)}
        # An incremental sort reads at least 32 rows at a time, and then all rows with the same first key.
        assert max(node["Actual Rows"] for node in reads) <= 200


@every_mode
async def test_skipped_tasks_are_not_looked_up(filled: Connection, mode: str) -> None:
    """PostgreSQL walks over the entries of the index, and looks up only the tasks of the page."""
    plan = await _explain(filled, LISTINGS[0], None, mode, skip=1000)
    walks = [node for node in _nodes(plan) if node.get("Index Name") == "tasks_by_status"]
    lookups = [node for node in _nodes(plan) if node.get("Index Name") == "tasks_pkey"]
    assert {node["Node Type"] for node in walks} == {"Index Only Scan"}
    assert sum(node["Actual Rows"] for node in walks) >= 1000
    assert [node["Actual Rows"] * node["Actual Loops"] for node in lookups] == [PAGE_SIZE + 1]
    assert "Sort" not in {node["Node Type"] for node in _nodes(plan["Plans"][-1])}


@every_mode
@pytest.mark.parametrize("listing", [LISTINGS[0], LISTINGS[2], LISTINGS[7]], ids=str)
async def test_the_last_page_is_read_from_the_end(filled: Connection, repository: PostgresTasks, listing: Listing, mode: str) -> None:
    total = (await repository.list(listing.query, None, 0, 1, with_total=True)).total_size
    assert total is not None
    first = await _explain(filled, listing, None, mode)
    last = await _explain(filled, listing, None, mode, skip=total - PAGE_SIZE)
    assert last["Actual Rows"] == PAGE_SIZE
    # The tasks are looked up in the primary key, in at most four pages of the index for each, and the choice of the end reads the counter four times.
    assert pages_read(last) <= pages_read(first) + 4 * PAGE_SIZE + 4 * COUNTER_PAGES


async def test_a_page_in_the_middle_has_its_tasks(filled: Connection, repository: PostgresTasks, scale: Scale) -> None:
    """Shows that the plans above return tasks."""
    for listing in LISTINGS:
        after = await _far(repository, scale, listing)
        listed = await repository.list(listing.query, after, 0, PAGE_SIZE)
        assert len(listed.tasks) == PAGE_SIZE
        assert after not in {position_of(task, listing.query.order) for task in listed.tasks}


@every_mode
@pytest.mark.parametrize("listing", [LISTINGS[0], LISTINGS[2], LISTINGS[5]], ids=str)
async def test_a_total_by_status_reads_no_tasks(filled: Connection, repository: PostgresTasks, listing: Listing, mode: str) -> None:
    """The counter has it. It is the number that PostgreSQL counts."""
    # In this order, because the first statement of a connection also reads the catalog.
    page = await _explain(filled, listing, None, mode)
    counted = await _explain(filled, listing, None, mode, with_total=True)
    assert pages_read(counted) <= pages_read(page) + COUNTER_PAGES
    total = (await repository.list(listing.query, None, 0, 1, with_total=True)).total_size
    statuses = "1, 2" if "!=" in listing.filter else "3" if listing.filter else "1, 2, 3"
    assert total == await filled.fetchval(
        f"SELECT count(*) FROM task.tasks WHERE user_id = $1 AND deleted_at IS NULL AND status IN ({statuses})", USER
    )


# The checks above can fail:


@every_mode
async def test_an_order_without_an_index_is_found(filled: Connection, mode: str) -> None:
    assert breaks(await _explain(filled, UNSERVED, None, mode))


@every_mode
@pytest.mark.parametrize("listing", [LISTINGS[2], LISTINGS[6], LISTINGS[10]], ids=str)
async def test_an_index_that_is_missing_is_found(filled: Connection, listing: Listing, mode: str) -> None:
    """Without the index, PostgreSQL sorts the tasks or reads more of them than the page needs."""
    transaction = filled.transaction()
    await transaction.start()
    try:
        await filled.execute(f"DROP INDEX task.{listing.index}")
        plan = await _explain(filled, listing, None, mode)
    finally:
        await transaction.rollback()
    assert breaks(plan)


async def test_a_place_that_is_reached_by_walking_is_found(filled: Connection, scale: Scale) -> None:
    walked = await _explain(filled, LISTINGS[0], None, "force_custom_plan", skip=(scale.page - 1) * PAGE_SIZE)
    first = await _explain(filled, LISTINGS[0], None, "force_custom_plan")
    assert pages_read(walked) > 5 * pages_read(first)


def breaks(plan: Plan) -> list[str]:
    """Returns the nodes of a plan that read more tasks than the page needs, or read tasks without an index."""
    found = []
    for node in _nodes(plan):
        looked_at = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
        if node.get("Relation Name") in {"tasks", "task_labels"} and node["Node Type"] not in {"Index Scan", "Index Only Scan"}:
            found.append(f"{node['Node Type']} of {node['Relation Name']}")
        if node["Node Type"] != "Append" and looked_at > 2 * (PAGE_SIZE + 1):
            found.append(f"{node['Node Type']} of {looked_at} rows")
    return found


def pages_read(plan: Plan) -> int:
    """Returns the number of pages of tables and indexes that were read, from memory or from disk."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


async def _far(repository: PostgresTasks, scale: Scale, listing: Listing) -> Position:
    """Returns the position at which the page in the middle begins."""
    (last,) = (await repository.list(listing.query, None, (scale.page - 1) * PAGE_SIZE - 1, 1)).tasks
    return position_of(last, listing.query.order)


async def _explain(connection: Connection, listing: Listing, after: Position | None, mode: str, skip: int = 0, *, with_total: bool = False) -> Plan:
    """Executes the statement of a page and returns its plan with the actual figures."""
    sql, args = list_statement(listing.query, after, skip, PAGE_SIZE + 1, with_total=with_total)
    await connection.execute(f"SET plan_cache_mode = {mode}")
    await connection.execute(f"PREPARE listing AS {sql}")
    try:
        values = ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in args)
        explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE listing ({values})")
    finally:
        await connection.execute("DEALLOCATE listing")
    plan: Plan = json.loads(explained)[0]["Plan"]
    return plan
