"""Lists of projects in every order, page by page, and moves of projects."""

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from servicekit.errors import InvalidField, InvalidPageToken
from servicekit.rpc.paging import page_tokens
from servicekit.stores.postgres import Database
from task_service.projects.domain import Project
from task_service.projects.errors import ProjectSiblingNotFound
from task_service.projects.order import ProjectField, ProjectOrder, ProjectQuery, parse_project_order
from task_service.projects.repository import PostgresProjects
from task_service.projects.service import ProjectService
from task_service.projects.writes import Archiving, ProjectDeletion, ProjectMove, ProjectUpdate
from task_service.tasks.domain import Actor
from tests.task_service.conftest import new_id
from tests.task_service.projects.conftest import FIELDS, log_of, make, write

NAMES = ("b", "A", "a2", "B1", "Straße", "strassen", "STRASSA", "Ω", "ω1", "é", "Z", "A", "a")
SECRET = "a key for the tests of projects, long enough"
UPDATED = 2


@pytest.fixture
def service(stored: PostgresProjects) -> ProjectService:
    return ProjectService(stored, page_tokens(SECRET), new_id, lambda _: None)


@pytest.fixture
async def several(stored: PostgresProjects, actor: Actor) -> Sequence[Project]:
    """Projects in an order of their own by each field."""
    made = [await make(stored, actor, name) for name in NAMES]
    for project in random.Random(1).sample(made, len(made)):
        await write(stored, actor, ProjectUpdate(project.id, FIELDS, ["description", "color"]))
        await write(stored, actor, Archiving(project.id, archived=True))
        await write(stored, actor, Archiving(project.id, archived=False))
    for project in random.Random(2).sample(made, len(made)):
        await write(stored, actor, ProjectMove(project.id))
    return await stored.list(ProjectQuery(actor.user_id), None, 100)


async def listed(service: ProjectService, query: ProjectQuery, page_size: int = 3) -> list[Project]:
    """Returns all pages."""
    found, token = [], ""
    while True:
        page = await service.list_projects(query, page_size=page_size, page_token=token)
        assert len(page.projects) <= page_size
        found += page.projects
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("field", ProjectField)
async def test_a_list_has_its_order_on_every_page(
    service: ProjectService, actor: Actor, several: Sequence[Project], field: ProjectField, *, descending: bool
) -> None:
    def value(project: Project) -> object:
        found = getattr(project, field.value)
        return found.casefold() if field is ProjectField.NAME else found

    expected = sorted(several, key=lambda project: (value(project), project.id), reverse=descending)
    query = ProjectQuery(actor.user_id, ProjectOrder(field, descending))
    assert await listed(service, query) == expected
    assert await listed(service, query, len(NAMES)) == expected


async def test_archived_and_deleted_projects_are_shown_on_request(
    service: ProjectService, stored: PostgresProjects, actor: Actor, several: Sequence[Project]
) -> None:
    archived, deleted, both = (project.id for project in several[:3])
    for project_id in (archived, both):
        await write(stored, actor, Archiving(project_id, archived=True))
    for project_id in (deleted, both):
        await write(stored, actor, ProjectDeletion(project_id))
    for show_archived, show_deleted, hidden in (
        (False, False, {archived, deleted, both}),
        (True, False, {deleted, both}),
        (False, True, {archived, both}),
        (True, True, set()),
    ):
        found = await listed(service, ProjectQuery(actor.user_id, ProjectOrder(), show_archived, show_deleted))
        assert [project.id for project in found] == [project.id for project in several if project.id not in hidden]


async def test_a_page_token_is_bound_to_its_query_and_its_user(service: ProjectService, actor: Actor, several: Sequence[Project]) -> None:
    token = (await service.list_projects(ProjectQuery(actor.user_id), page_size=3, page_token="")).next_page_token
    by_name = ProjectOrder(ProjectField.NAME)
    for query in (
        ProjectQuery(uuid4()),
        ProjectQuery(actor.user_id, by_name),
        ProjectQuery(actor.user_id, ProjectOrder(descending=True)),
        ProjectQuery(actor.user_id, show_archived=True),
        ProjectQuery(actor.user_id, show_deleted=True),
    ):
        with pytest.raises(InvalidPageToken):
            await service.list_projects(query, page_size=3, page_token=token)


async def test_a_page_has_twenty_projects_and_at_most_a_hundred(service: ProjectService, stored: PostgresProjects, actor: Actor) -> None:
    for _ in range(101):
        await make(stored, actor)
    for page_size, expected in ((0, 20), (100, 100), (1000, 100)):
        page = await service.list_projects(ProjectQuery(actor.user_id), page_size=page_size, page_token="")
        assert (len(page.projects), page.next_page_token != "") == (expected, True)


@pytest.mark.parametrize("text", ["title", "name, position", "name up", "name desc desc", "Name", "position asc,"])
def test_an_order_is_one_known_field(text: str) -> None:
    with pytest.raises(InvalidField):
        parse_project_order(text)


def test_an_order_may_be_empty_and_descending() -> None:
    assert parse_project_order("  ") == ProjectOrder(ProjectField.POSITION)
    assert parse_project_order(" name  desc ") == ProjectOrder(ProjectField.NAME, descending=True)
    assert parse_project_order("created_at asc") == ProjectOrder(ProjectField.CREATED_AT)


async def order_of(stored: PostgresProjects, actor: Actor) -> list[UUID]:
    return [project.id for project in await stored.list(ProjectQuery(actor.user_id, show_archived=True), None, 1000)]


async def test_a_project_moves_before_another_behind_another_or_to_the_end(stored: PostgresProjects, actor: Actor) -> None:
    a, b, c, d = [(await make(stored, actor, name)).id for name in "abcd"]
    for move, expected in (
        (ProjectMove(d, before_id=b), [a, d, b, c]),
        (ProjectMove(a, after_id=b), [d, b, a, c]),
        (ProjectMove(b), [d, a, c, b]),
        (ProjectMove(b, before_id=d), [b, d, a, c]),
        (ProjectMove(b, after_id=c), [d, a, c, b]),
    ):
        moved = await write(stored, actor, move)
        assert await order_of(stored, actor) == expected
        # It is there already.
        assert await write(stored, actor, move) == moved
    e = (await make(stored, actor, "e")).id
    assert await order_of(stored, actor) == [d, a, c, b, e]


async def test_an_archived_project_keeps_its_place_among_the_others(stored: PostgresProjects, actor: Actor) -> None:
    a, b, c = [(await make(stored, actor, name)).id for name in "abc"]
    await write(stored, actor, Archiving(b, archived=True))
    await write(stored, actor, ProjectMove(c, before_id=b))
    assert await order_of(stored, actor) == [a, c, b]


async def test_a_sibling_must_be_another_project_of_the_user_outside_the_bin(stored: PostgresProjects, database: Database, actor: Actor) -> None:
    moved, deleted = [(await make(stored, actor, name)).id for name in "ab"]
    await stored.write(actor, ProjectDeletion(deleted))
    foreign = (await make(stored, Actor(uuid4(), uuid4(), ""))).id
    before = await log_of(database, actor)
    told = set()
    for sibling in (moved, deleted, foreign, uuid4()):
        for move in (ProjectMove(moved, before_id=sibling), ProjectMove(moved, after_id=sibling)):
            with pytest.raises(ProjectSiblingNotFound) as refused:
                await stored.write(actor, move)
            told.add(str(refused.value))
    assert len(told) == 1
    assert await log_of(database, actor) == before


async def test_positions_stay_short_however_often_projects_move_to_one_place(stored: PostgresProjects, database: Database, actor: Actor) -> None:
    """Two projects take turns between two others, which needs a longer position each time, until all get new ones."""
    first, second, third, last = [(await make(stored, actor, name)).id for name in "abcd"]
    renewed, between = 0, [second, third]
    for _ in range(700):
        moved = between.pop()
        between.insert(0, moved)
        before = await stored.list(ProjectQuery(actor.user_id), None, 10)
        await write(stored, actor, ProjectMove(moved, after_id=first))
        after = await stored.list(ProjectQuery(actor.user_id), None, 10)
        assert [project.id for project in after] == [first, *between, last]
        assert max(len(project.position) for project in after) <= 100
        changed = set(after) - set(before)
        renewed += len(changed) > 1
        assert all(project.version == next(old.version for old in before if old.id == project.id) + 1 for project in changed)
    assert renewed == 1
    assert [entry[3] for entry in (await log_of(database, actor))[4:]] == [["position"]] * (700 + 3)


async def test_equal_positions_give_way(stored: PostgresProjects, database: Database, actor: Actor) -> None:
    made = [(await make(stored, actor, name)).id for name in "abcde"]
    await database.fetch("UPDATE task.projects SET position = 'a5' WHERE user_id = $1", actor.user_id)
    ordered = await order_of(stored, actor)
    moved = ordered.pop()
    await write(stored, actor, ProjectMove(moved, after_id=ordered[1]))
    assert await order_of(stored, actor) == [*ordered[:2], moved, *ordered[2:]]
    assert sorted(made) == sorted(await order_of(stored, actor))


async def test_a_renewal_changes_at_most_five_hundred_neighbours(stored: PostgresProjects, database: Database, actor: Actor) -> None:
    made = [(await make(stored, actor, f"{n}")).id for n in range(800)]
    await database.fetch("UPDATE task.projects SET position = position || repeat('5', 95) WHERE user_id = $1", actor.user_id)
    low, high = made[399], made[400]
    # There is no short position between these two.
    positions = "UPDATE task.projects SET position = 'a5' || repeat('V', 98) || $3 WHERE user_id = $1 AND id = $2"
    await database.fetch("UPDATE task.projects SET position = 'a4' || position WHERE user_id = $1 AND id = ANY ($2)", actor.user_id, made[:399])
    await database.fetch(positions, actor.user_id, low, "1")
    await database.fetch(positions, actor.user_id, high, "2")
    before = len(await log_of(database, actor))
    await write(stored, actor, ProjectMove(made[-1], before_id=high))
    assert await order_of(stored, actor) == [*made[:400], made[-1], *made[400:-1]]
    assert len(await log_of(database, actor)) == before + 502


async def test_moves_at_once_end_in_one_order_and_lose_nothing(stored: PostgresProjects, actor: Actor) -> None:
    made = [(await make(stored, actor, f"{n}")).id for n in range(10)]
    rng = random.Random(3)
    moves = [ProjectMove(moved, before_id=other) for moved, other in (rng.sample(made, 2) for _ in range(100))]
    await asyncio.gather(*(stored.write(actor, move) for move in moves))
    found = await stored.list(ProjectQuery(actor.user_id), None, 100)
    assert sorted(project.id for project in found) == sorted(made)
    assert len({project.position for project in found}) == len(found)


async def test_random_moves_give_the_order_of_a_list(stored: PostgresProjects, actor: Actor) -> None:
    expected = [(await make(stored, actor, f"{n}")).id for n in range(8)]
    rng = random.Random(4)
    for _ in range(300):
        moved, other = rng.sample(expected, 2)
        expected.remove(moved)
        match rng.randrange(3):
            case 0:
                move = ProjectMove(moved, before_id=other)
                expected.insert(expected.index(other), moved)
            case 1:
                move = ProjectMove(moved, after_id=other)
                expected.insert(expected.index(other) + 1, moved)
            case _:
                move = ProjectMove(moved)
                expected.append(moved)
        await stored.write(actor, move)
        assert await order_of(stored, actor) == expected
