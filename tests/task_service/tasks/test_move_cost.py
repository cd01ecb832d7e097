"""The place of a move is found by an index: it reads no more rows than it returns, however many tasks its user has."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from task_service.tasks.domain import Actor
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation
from tests.task_service.conftest import FIELDS, new_id

# Of each list: the inbox, a project, and the subtasks of a task.
EACH, WANTED = 300, 3
READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE schemaname = 'task' AND relname = 'tasks'"
SIBLINGS = "SELECT o_id FROM task.siblings($1, $2, $3, $4, $5, $4, $6, $7)"
POSITION = "SELECT position FROM task.tasks WHERE user_id = $1 AND id = $2"


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another connection than those of the repository."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("direction", ["before", "behind"])
@pytest.mark.parametrize("place", ["inbox", "project", "parent"])
async def test_the_neighbours_of_a_place_are_found_by_an_index(
    place: str, direction: str, tasks: PostgresTasks, actor: Actor, connection: asyncpg.Connection
) -> None:
    is_behind = direction == "behind"
    made = await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(3 * EACH)])
    ids, within = [task.id for task in made.tasks], dict[str, UUID]()
    for name, first in (("project", EACH), ("parent", 2 * EACH)):
        within[name] = new_id()
        change = f"UPDATE task.tasks SET {name}_id = $3 WHERE user_id = $1 AND id = ANY ($2)"
        await connection.execute(change, actor.user_id, ids[first : first + EACH], within[name])
    await connection.execute("ANALYZE task.tasks")
    first = ("inbox", "project", "parent").index(place) * EACH
    middle = ids[first + EACH // 2]
    position = await connection.fetchval(POSITION, actor.user_id, middle)
    async with connection.transaction():
        before = await connection.fetchval(READ)
        given = (actor.user_id, within.get(place) if place == "project" else None, within.get(place) if place == "parent" else None)
        rows = await connection.fetch(SIBLINGS, *given, middle, position, is_behind, WANTED)
        read = await connection.fetchval(READ) - before
    at = ids.index(middle)
    assert [row[0] for row in rows] == (ids[at + 1 : at + 1 + WANTED] if is_behind else ids[at - WANTED : at][::-1])
    assert read <= 2 * WANTED
