"""The table of labels always matches the tasks, whatever is written to the tasks."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.stores.postgres import Database
from task_service.accounts.domain import Left
from task_service.accounts.repository import PostgresAccountRows
from task_service.query.domain import Status
from task_service.tasks.domain import Actor, TaskFields
from task_service.tasks.errors import OperationRefused
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation, Deletion, Undeletion, Update
from tests.task_service.conftest import FIELDS, delete, insert, new_id, update

KEPT = "SELECT label, created_at, task_id, completed FROM task.task_labels WHERE user_id = $1 ORDER BY 1, 2, 3"
WANTED = """
    SELECT DISTINCT label, created_at, id, status = 3 FROM task.tasks CROSS JOIN unnest(labels) AS label
     WHERE user_id = $1 AND deleted_at IS NULL ORDER BY 1, 2, 3
"""
COUNTED = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE schemaname = 'task' AND relname = 'tasks'"

labels = st.lists(st.sampled_from("abc"), max_size=3, unique=True)
statuses = st.sampled_from(Status)
# Of an update of one task, the new fields and their mask. For the other writes, their type, and the tasks that they are about.
updates = st.tuples(st.integers(0, 2), labels.map(tuple), statuses, st.sampled_from([["labels"], ["status"], ["labels", "status"]]))
moves = st.tuples(st.sampled_from([Deletion, Undeletion]), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))


async def _labels(database: Database, actor: Actor) -> tuple[list[asyncpg.Record], list[asyncpg.Record]]:
    return list(await database.fetch(KEPT, actor.user_id)), list(await database.fetch(WANTED, actor.user_id))


@settings(max_examples=60)
@given(writes=st.lists(updates | moves, min_size=1, max_size=8))
async def test_labels_follow_every_write(tasks: PostgresTasks, database: Database, writes: Iterable[tuple[Any, ...]]) -> None:
    actor = Actor(new_id(), new_id(), "")
    await insert(tasks, actor, replace(FIELDS, labels=("b",)))
    made = [Creation(new_id(), replace(FIELDS, labels=labels)) for labels in ((), ("a",), ("a", "b"))]
    await tasks.write(actor, made)
    for write in writes:
        with contextlib.suppress(OperationRefused):
            if isinstance(write[0], int):
                which, labels, status, mask = write
                await tasks.write(actor, [Update(made[which].id, TaskFields(labels=labels, status=status), mask)])
            else:
                await tasks.write(actor, [write[0](made[which].id) for which in write[1]])
        kept, wanted = await _labels(database, actor)
        assert kept == wanted


async def test_a_change_of_something_else_leaves_the_labels_alone(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    made = await insert(tasks, actor, FIELDS)
    before = await database.fetch("SELECT xmin, ctid FROM task.task_labels WHERE user_id = $1 ORDER BY label", actor.user_id)
    await update(tasks, actor, made.id, TaskFields(title="Else", status=Status.IN_PROGRESS), ["title", "status"])
    assert await database.fetch("SELECT xmin, ctid FROM task.task_labels WHERE user_id = $1 ORDER BY label", actor.user_id) == before


async def test_the_labels_of_an_account_go_with_it(tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    rows = PostgresAccountRows(database)
    for i in range(3):
        made = await insert(tasks, actor, replace(FIELDS, labels=("x", f"{i}")))
    await delete(tasks, actor, made.id)
    await rows.close_account(actor.user_id)
    while (await rows.remove_account(actor.user_id, 2)).left is Left.SOME:
        kept, wanted = await _labels(database, actor)
        assert kept == wanted
    assert await _labels(database, actor) == ([], [])


async def test_a_change_of_a_description_writes_to_no_index(tasks: PostgresTasks, database_url: str, actor: Actor) -> None:
    """PostgreSQL counts such updates (HOT). An index on a column that changes with every write would prevent them."""
    made = await insert(tasks, actor, FIELDS)
    # A connection of its own, because PostgreSQL counts these updates for the transaction of the connection.
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            for i in range(10):
                await connection.execute(f"UPDATE task.tasks SET description = '{i}', updated_at = now(), version = {i} WHERE id = $1", made.id)
            updated, hot = await connection.fetchrow(COUNTED)
    finally:
        await connection.close()
    # One update may write to the indexes, if the page of the task is full.
    assert updated == 10
    assert hot >= 9
