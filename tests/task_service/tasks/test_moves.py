"""Order, subtasks and moves, with the repository in PostgreSQL and with the cache over it."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from servicekit.stores.postgres import Database
from task_service.query.domain import Field
from task_service.query.list_query import ListQuery
from task_service.query.order import parse_order
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import Actor, Task
from task_service.tasks.errors import (
    EtagMismatch,
    ParentCycle,
    ParentDeleted,
    ParentNotFound,
    ProjectNotFound,
    SiblingNotFound,
    TaskNotFound,
    TooDeep,
    TooManyDescendants,
    TooManySubtasks,
)
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskRepository
from task_service.tasks.writes import Creation, Deletion, Move, Undeletion
from tests.task_service.conftest import FIELDS, find, insert, new_id


@pytest.fixture(params=["postgres", "cache"])
def repository(request: pytest.FixtureRequest, tasks: PostgresTasks, cached: CachedTasks) -> TaskRepository:
    return cached if request.param == "cache" else tasks


async def make(repository: TaskRepository, actor: Actor, count: int, parent: Task | None = None) -> list[Task]:
    """Creates tasks with the titles 0, 1, …"""
    fields = [replace(FIELDS, title=str(n), parent_id=parent.id if parent else None) for n in range(count)]
    return list((await repository.write(actor, [Creation(new_id(), each) for each in fields])).tasks)


async def move(repository: TaskRepository, actor: Actor, task: Task, **where: UUID | None) -> Task:
    """Moves a task: `project_id` and `parent_id` count if they are given."""
    given = {f"moves_{name.removesuffix('_id')}": True for name in where if name in {"project_id", "parent_id"}}
    return (await repository.write(actor, [Move(task.id, **given, **where)])).tasks[0]  # type: ignore[arg-type]


async def children(repository: TaskRepository, actor: Actor, parent: Task | None) -> list[str]:
    """Returns the titles of a task's subtasks, or of the tasks at the top of the inbox, in their order."""
    within = ((Field.PARENT_ID, parent.id if parent else None), (Field.PROJECT_ID, parent.project_id if parent else None))
    query = ListQuery(actor.user_id, None, None, parse_order("position"), within=within)
    return [task.title for task in (await repository.list(query, None, 0, 1000)).tasks]


async def log(database: Database, actor: Actor, after: int = 0) -> list[tuple[int, UUID, list[str]]]:
    """Returns kind, task and changed fields of the changes after a number. Fails if the numbers have a gap."""
    rows = await database.fetch("SELECT seq, kind, task_id, changed_fields FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    counter = await database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", actor.user_id)
    assert [row["seq"] for row in rows] == list(range(1, (counter["last_seq"] if counter else 0) + 1))
    return [(row["kind"], row["task_id"], row["changed_fields"]) for row in rows[after:]]


async def test_a_new_task_comes_last(repository: TaskRepository, actor: Actor) -> None:
    await make(repository, actor, 3)
    await insert(repository, actor, replace(FIELDS, title="last"))
    assert await children(repository, actor, None) == ["0", "1", "2", "last"]


async def test_a_task_moves_before_and_after_another_and_to_the_end(repository: TaskRepository, database: Database, actor: Actor) -> None:
    a, b, c, d = await make(repository, actor, 4)
    moved = await move(repository, actor, d, before_id=a.id)
    assert moved.version == d.version + 1
    assert await children(repository, actor, None) == ["3", "0", "1", "2"]
    await move(repository, actor, a, after_id=c.id)
    assert await children(repository, actor, None) == ["3", "1", "2", "0"]
    await move(repository, actor, b)
    assert await children(repository, actor, None) == ["3", "2", "0", "1"]
    assert await log(database, actor, 4) == [(2, task.id, ["position"]) for task in (d, a, b)]
    assert await find(repository, actor.user_id, d.id) == moved._replace(position=moved.place)


async def test_a_move_to_where_the_task_is_changes_nothing(repository: TaskRepository, database: Database, actor: Actor) -> None:
    a, b, c = await make(repository, actor, 3)
    for where in ({"after_id": a.id}, {"before_id": c.id}):
        assert (await move(repository, actor, b, **where)).version == b.version
    assert (await move(repository, actor, c)).version == c.version
    assert len(await log(database, actor)) == 3


async def test_a_sibling_must_be_in_the_list(repository: TaskRepository, actor: Actor) -> None:
    parent, other = await make(repository, actor, 2)
    (child,) = await make(repository, actor, 1, parent)
    for sibling in (child.id, uuid4(), other.id):
        with pytest.raises(SiblingNotFound):
            await move(repository, actor, other, before_id=sibling)
    assert (await move(repository, actor, other, parent_id=parent.id, before_id=child.id)).parent_id == parent.id
    assert await children(repository, actor, parent) == ["1", "0"]


async def test_at_the_same_place_there_is_always_room(repository: TaskRepository, database: Database, actor: Actor) -> None:
    """Each of 700 moves goes directly behind the first task, so their positions become long, and are renewed."""
    first, *others = await make(repository, actor, 20)
    titles = [task.title for task in others]
    for n in range(700):
        task = others[n % len(others)]
        await move(repository, actor, task, after_id=first.id)
        titles.remove(task.title)
        titles.insert(0, task.title)
    assert await children(repository, actor, None) == ["0", *titles]
    rows = await database.fetch("SELECT length(position) AS length FROM task.tasks WHERE user_id = $1", actor.user_id)
    assert max(row["length"] for row in rows) <= 100
    renewed = [change for change in await log(database, actor, 20) if change[1] == first.id]
    assert renewed, "no position was renewed"


async def test_neighbours_with_the_same_position_get_others(repository: TaskRepository, database: Database, actor: Actor) -> None:
    a, b, c = await make(repository, actor, 3)
    await database.fetchrow("UPDATE task.tasks SET position = $3 WHERE user_id = $1 AND id = $2", actor.user_id, b.id, a.place)
    await move(repository, actor, c, after_id=a.id)
    assert await children(repository, actor, None) == ["0", "2", "1"]


async def test_tasks_from_before_there_were_positions_have_the_order_of_their_ids(
    repository: TaskRepository, database: Database, actor: Actor
) -> None:
    a, b, c = await make(repository, actor, 3)
    await database.fetchrow("UPDATE task.tasks SET position = NULL WHERE user_id = $1", actor.user_id)
    assert await children(repository, actor, None) == ["0", "1", "2"]
    await move(repository, actor, c, after_id=a.id)
    await move(repository, actor, b, before_id=a.id)
    assert await children(repository, actor, None) == ["1", "0", "2"]


async def test_a_task_moves_with_its_subtasks_and_gets_the_project_of_its_parent(
    repository: TaskRepository, database: Database, actor: Actor
) -> None:
    project = uuid4()
    await database.fetchrow(
        "INSERT INTO task.projects (user_id, id, name, description, color, position, created_at, updated_at, version)"
        " VALUES ($1, $2, 'P', '', '', 'a', now(), now(), 1)",
        actor.user_id,
        project,
    )
    top, other = await make(repository, actor, 2)
    (child,) = await make(repository, actor, 1, top)
    (grandchild,) = await make(repository, actor, 1, child)
    assert (await find(repository, actor.user_id, grandchild.id)) is not None
    before = len(await log(database, actor))
    await move(repository, actor, top, project_id=project)
    for task in (top, child, grandchild):
        found = await find(repository, actor.user_id, task.id)
        assert found is not None
        assert (found.project_id, found.parent_id, found.version) == (project, task.parent_id, 2)
    assert await log(database, actor, before) == [
        (2, top.id, ["project_id", "position"]),
        (2, child.id, ["project_id"]),
        (2, grandchild.id, ["project_id"]),
    ]
    moved = await move(repository, actor, child, parent_id=other.id, project_id=project)
    assert (moved.parent_id, moved.project_id) == (other.id, None)
    assert (await move(repository, actor, child, project_id=None)).parent_id is None
    with pytest.raises(ProjectNotFound):
        await move(repository, actor, child, project_id=uuid4())


async def test_what_cannot_be_a_parent(repository: TaskRepository, actor: Actor) -> None:
    chain = await make(repository, actor, 1)
    for _ in range(4):
        chain += await make(repository, actor, 1, chain[-1])
    with pytest.raises(TooDeep):
        await make(repository, actor, 1, chain[-1])
    for parent in (chain[0], chain[2], chain[4]):
        with pytest.raises(ParentCycle):
            await move(repository, actor, chain[0], parent_id=parent.id)
    (top,) = await make(repository, actor, 1)
    with pytest.raises(TooDeep):
        await move(repository, actor, chain[0], parent_id=top.id)
    assert (await move(repository, actor, chain[1], parent_id=top.id)).parent_id == top.id
    for unknown in (uuid4(),):
        with pytest.raises(ParentNotFound):
            await move(repository, actor, top, parent_id=unknown)
    with pytest.raises(TaskNotFound):
        await repository.write(actor, [Move(uuid4())])
    with pytest.raises(EtagMismatch):
        await repository.write(actor, [Move(top.id, ('"9"',))])


async def test_a_parent_has_at_most_500_subtasks(repository: TaskRepository, actor: Actor) -> None:
    (parent, other) = await make(repository, actor, 2)
    with pytest.raises(TooManySubtasks) as refused:
        await make(repository, actor, 501, parent)
    assert refused.value.index == 500
    made = await make(repository, actor, 500, parent)
    for write in (Creation(new_id(), replace(FIELDS, parent_id=parent.id)), Move(other.id, moves_parent=True, parent_id=parent.id)):
        with pytest.raises(TooManySubtasks):
            await repository.write(actor, [write])
    await repository.write(actor, [Deletion(made[0].id)])
    await move(repository, actor, other, parent_id=parent.id)
    with pytest.raises(TooManySubtasks):
        await repository.write(actor, [Undeletion(made[0].id)])


async def test_more_than_1000_descendants_do_not_move_together(repository: TaskRepository, actor: Actor) -> None:
    (top, other) = await make(repository, actor, 2)
    for child in await make(repository, actor, 3, top):
        await make(repository, actor, 400, child)
    for write in (Deletion(top.id), Move(top.id, moves_parent=True, parent_id=other.id)):
        with pytest.raises(TooManyDescendants):
            await repository.write(actor, [write])


async def test_a_deletion_takes_the_subtasks_along_and_an_undeletion_brings_them_back(
    repository: TaskRepository, database: Database, actor: Actor
) -> None:
    (top,) = await make(repository, actor, 1)
    child, other = await make(repository, actor, 2, top)
    (grandchild,) = await make(repository, actor, 1, child)
    await repository.write(actor, [Deletion(other.id)])
    everything = (top, child, grandchild)
    for task in everything:
        assert await find(repository, actor.user_id, task.id) is not None
    before = len(await log(database, actor))
    await repository.write(actor, [Deletion(top.id)])
    for task in everything:
        assert await find(repository, actor.user_id, task.id) is None
    with pytest.raises(ParentDeleted):
        await repository.write(actor, [Undeletion(child.id)])
    await repository.write(actor, [Undeletion(top.id)])
    for task in everything:
        found = await find(repository, actor.user_id, task.id)
        assert found is not None
        assert found.version == 3
    # It was in the bin before, so it stays there.
    assert await find(repository, actor.user_id, other.id) is None
    deleted, restored = [(3, task.id, []) for task in reversed(everything)], [(4, task.id, []) for task in everything]
    assert await log(database, actor, before) == [*deleted, *restored]
    row = await database.fetchrow("SELECT pending, in_progress, completed FROM task.counters WHERE user_id = $1", actor.user_id)
    assert row is not None
    assert row["pending"] == 3


async def test_moves_at_once_lose_nothing_and_end_in_one_order(repository: TaskRepository, database: Database, actor: Actor) -> None:
    made = await make(repository, actor, 8)
    chance = random.Random(1)

    async def device() -> None:
        for _ in range(15):
            task, sibling = chance.sample(made, 2)
            where = chance.choice(("before_id", "after_id"))
            await move(repository, actor, task, **{where: sibling.id})

    await asyncio.gather(*(device() for _ in range(4)))
    order = await children(repository, actor, None)
    assert sorted(order) == [str(n) for n in range(8)]
    assert order == await _replayed(database, actor)


async def _replayed(database: Database, actor: Actor) -> Sequence[str]:
    """Returns the titles in the order of the positions that the change log has."""
    rows = await database.fetch("SELECT task_id, snapshot ->> 'position' AS position, snapshot ->> 'title' AS title FROM task.changes"
                                " WHERE user_id = $1 ORDER BY seq", actor.user_id)  # fmt: skip
    last = {row["task_id"]: (row["position"], str(row["task_id"]), row["title"]) for row in rows}
    return [title for _, _, title in sorted(last.values())]


@pytest.mark.parametrize("order", ["position", "position desc"])
async def test_the_inbox_is_listed_in_its_order_from_any_place(order: str, repository: TaskRepository, actor: Actor) -> None:
    made = [task.title for task in await make(repository, actor, 6)]
    wanted = made if order == "position" else made[::-1]
    query = ListQuery(actor.user_id, None, None, parse_order(order), within=((Field.PROJECT_ID, None),))
    for skip in range(7):
        found = await repository.list(query, None, skip, 2, with_total=True)
        assert [task.title for task in found.tasks] == wanted[skip : skip + 2]
        assert found.total_size == 6
