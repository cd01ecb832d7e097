"""Each statement of a call is executed by one server as a whole, so that all of its answer is of one snapshot."""

from collections.abc import Sequence
from itertools import product
from uuid import uuid4

import asyncpg
import pytest

from task_service.feed.repository import LIST_CHANGES
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery
from task_service.query.list_statement import list_statement
from task_service.query.order import parse_order
from task_service.tasks.repository import FIND, FIND_ALL

KINDS = {
    **dict.fromkeys(("changes", "counters", "idempotency_keys", "projects", "reminders", "task_labels", "tasks"), "distributed"),
    **dict.fromkeys(("webhook_deliveries", "webhooks"), "distributed"),
    "feed": "reference",
    **dict.fromkeys(("account_removals", "cache_state", "deletions", "schema_migrations"), None),
}
DELETE = "SELECT * FROM task.write($1, 3::smallint, $2, ROW($1, $1, '')::task.actor, NULL, NULL, 1000000, NULL, NULL)"
FILTERS = ("", "status != COMPLETED", "labels:a", "labels:a status = PENDING", 'title:"x" OR due_date < "2030-01-01T00:00:00Z"', "priority = 3")
ORDERS = ("", "due_date", "priority desc, due_date", "priority desc, title", "title, created_at desc")


async def test_each_table_is_where_it_belongs(coordinator: "asyncpg.Connection[asyncpg.Record]") -> None:
    rows = await coordinator.fetch(
        "SELECT tablename, citus_table_type FROM pg_tables LEFT JOIN citus_tables ON table_name = (schemaname || '.' || tablename)::regclass"
        # Not the shard of `feed` that the coordinator has.
        r" WHERE schemaname = 'task' AND tablename !~ '_\d+$'"
    )
    assert dict(rows) == KINDS
    groups = await coordinator.fetch("SELECT DISTINCT colocation_id FROM citus_tables WHERE citus_table_type = 'distributed'")
    assert len(groups) == 1


async def _parts(connection: "asyncpg.Connection[asyncpg.Record]", sql: str, args: Sequence[object]) -> list[str]:
    """Returns the lines of the plan that tell how many servers execute it, and in how many steps."""
    plan = [row[0].strip() for row in await connection.fetch(f"EXPLAIN {sql}", *args)]
    return [line for line in plan if line.startswith(("Task Count", "->  Distributed Subplan"))]


@pytest.mark.parametrize(("filter_text", "order"), list(product(FILTERS, ORDERS)))
async def test_a_list_is_one_statement_on_one_server(coordinator: "asyncpg.Connection[asyncpg.Record]", filter_text: str, order: str) -> None:
    condition = parse_filter(filter_text) if filter_text else None
    for skip, show_deleted, with_total in product((0, 30), (False, True), (False, True)):
        query = ListQuery(uuid4(), None, None, parse_order(order), filter=condition, show_deleted=show_deleted)
        sql, args = list_statement(query, None, skip, 20, with_total=with_total)
        assert await _parts(coordinator, sql, args) == ["Task Count: 1"]


async def test_so_is_a_look_up_and_the_change_log(coordinator: "asyncpg.Connection[asyncpg.Record]") -> None:
    user = uuid4()
    for sql, args in (
        (FIND, (user, user)),
        (FIND_ALL, (user, [user, uuid4()])),
        (LIST_CHANGES, (user, 5, 10, 1000)),
        (LIST_CHANGES, (user, None, 10, 1000)),
    ):
        assert await _parts(coordinator, sql, args) == ["Task Count: 1"]


async def test_a_write_has_a_transaction_on_the_coordinator(coordinator: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Whoever switches the cache on waits for the transactions of the coordinator that are older (ADR 17)."""
    async with coordinator.transaction():
        with pytest.raises(asyncpg.PostgresError, match="0"):
            async with coordinator.transaction():
                await coordinator.fetch(DELETE, uuid4(), f'[{{"n": 0, "id": "{uuid4()}"}}]')
        assert await coordinator.fetchval("SELECT pg_current_xact_id_if_assigned()") is not None


async def test_a_failover_of_the_coordinator_gives_the_change_log_another_epoch_on_each_server(
    coordinator: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    epoch = "SELECT epoch FROM task.feed"
    before = await coordinator.fetchval(epoch)
    await coordinator.execute("UPDATE task.cache_state SET server = 'of before'")
    await coordinator.fetchrow("SELECT generation FROM task.follow_server()")
    assert await coordinator.fetchval(epoch) != before
    copies = await coordinator.fetch("SELECT success, result FROM run_command_on_all_nodes('SELECT epoch FROM task.feed')")
    assert {(row["success"], row["result"]) for row in copies} == {(True, str(await coordinator.fetchval(epoch)))}
