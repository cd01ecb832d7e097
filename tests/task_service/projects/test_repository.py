"""Projects in PostgreSQL, with and without the cache of tasks over them: what each write changes, refuses and logs."""

import asyncio
from collections.abc import Mapping
from uuid import uuid4

import orjson
import pytest

from servicekit.errors import TokenInvalid
from servicekit.stores.postgres import Database
from task_service.projects.domain import MAX_PROJECTS, Project, ProjectFields
from task_service.projects.errors import ProjectChanged, ProjectNotDeleted, TooManyProjects
from task_service.projects.order import ProjectQuery
from task_service.projects.rows import project_of_snapshot
from task_service.projects.service import ProjectRepository
from task_service.projects.writes import Archiving, ProjectCreation, ProjectDeletion, ProjectMove, ProjectOperation, ProjectUndeletion, ProjectUpdate
from task_service.tasks.domain import Actor
from task_service.tasks.errors import IdempotencyKeyReused, ProjectNotFound
from tests.task_service.conftest import new_id
from tests.task_service.projects.conftest import FIELDS, idempotency, log_of, make, write

OTHER = ProjectFields(name="Garden", description="Outside", color="")
FILL = """
INSERT INTO task.projects (user_id, id, name, description, color, position, created_at, updated_at, version)
SELECT $1, gen_random_uuid(), 'One of many', '', '', 'a1', now(), now(), 1 FROM generate_series(1, $2)
"""
CREATED, UPDATED, DELETED, RESTORED = 1, 2, 3, 4


async def test_a_created_project_is_found_as_it_was_made(projects: ProjectRepository, actor: Actor) -> None:
    made = await make(projects, actor)
    assert (made.user_id, made.name, made.description, made.color) == (actor.user_id, "Home", "All about the house", "#00ff7F")
    assert (made.archived_at, made.deleted_at, made.version, made.created_at) == (None, None, 1, made.updated_at)
    assert await projects.find(actor.user_id, made.id) == made


async def test_another_users_project_is_not_there(projects: ProjectRepository, actor: Actor) -> None:
    made = await make(projects, actor)
    stranger = Actor(uuid4(), uuid4(), "")
    assert await projects.find(stranger.user_id, made.id) is None
    for operation in (each for kind, each in _writes(made).items() if kind != "create"):
        with pytest.raises(ProjectNotFound) as refused:
            await projects.write(stranger, operation)
        with pytest.raises(ProjectNotFound) as never:
            await projects.write(stranger, _writes(made._replace(id=uuid4()))["update"])
        assert str(refused.value) == str(never.value)
    assert await projects.find(actor.user_id, made.id) == made


async def test_an_update_sets_what_its_mask_names(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    made = await make(projects, actor)
    changed = await write(projects, actor, ProjectUpdate(made.id, OTHER, ["name", "color"]))
    assert changed == made._replace(name="Garden", color="", version=2, updated_at=changed.updated_at)
    assert changed.updated_at > made.updated_at
    assert await projects.find(actor.user_id, made.id) == changed
    assert await write(projects, actor, ProjectUpdate(made.id, OTHER, ["name", "color"])) == changed
    assert await log_of(database, actor) == [(CREATED, 1, True, []), (UPDATED, 2, True, ["name", "color"])]


async def test_an_archived_project_stays_as_it_is(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    made = await make(projects, actor)
    archived = await write(projects, actor, Archiving(made.id, archived=True))
    assert archived == made._replace(archived_at=archived.updated_at, version=2, updated_at=archived.updated_at)
    assert await write(projects, actor, Archiving(made.id, archived=True)) == archived
    back = await write(projects, actor, Archiving(made.id, archived=False))
    assert back == made._replace(version=3, updated_at=back.updated_at)
    assert await write(projects, actor, Archiving(made.id, archived=False)) == back
    assert await log_of(database, actor) == [(CREATED, 1, True, []), (UPDATED, 2, True, ["archived_at"]), (UPDATED, 3, True, ["archived_at"])]


async def test_the_bin_keeps_a_project_until_it_is_restored(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    made = await make(projects, actor)
    with pytest.raises(ProjectNotDeleted):
        await projects.write(actor, ProjectUndeletion(made.id))
    deleted = await write(projects, actor, ProjectDeletion(made.id))
    assert deleted == made._replace(version=2, deleted_at=deleted.updated_at, updated_at=deleted.updated_at)
    assert await projects.find(actor.user_id, made.id) is None
    for kind in ("update", "archive", "move", "delete"):
        with pytest.raises(ProjectNotFound):
            await projects.write(actor, _writes(made)[kind])
    restored = await write(projects, actor, ProjectUndeletion(made.id, ('"2"',)))
    assert restored == made._replace(version=3, updated_at=restored.updated_at)
    assert await projects.find(actor.user_id, made.id) == restored
    assert await log_of(database, actor) == [(CREATED, 1, True, []), (DELETED, 2, True, []), (RESTORED, 3, True, [])]


@pytest.mark.parametrize("kind", ["update", "archive", "move", "delete", "undelete"])
async def test_a_write_with_another_etag_changes_nothing_and_tells_the_current_one(
    projects: ProjectRepository, database: Database, actor: Actor, kind: str
) -> None:
    made = await make(projects, actor)
    await write(projects, actor, ProjectUpdate(made.id, OTHER, ["name"]))
    if kind == "undelete":
        await projects.write(actor, ProjectDeletion(made.id))
    current = '"3"' if kind == "undelete" else '"2"'
    before = await log_of(database, actor)
    for etags in [('"1"',), (), (f"W/{current}",)]:
        with pytest.raises(ProjectChanged) as refused:
            await projects.write(actor, _writes(made, etags)[kind])
        assert refused.value.metadata == {"etag": current}
    assert await log_of(database, actor) == before
    assert (await projects.write(actor, _writes(made, ('"1"', current))[kind])).replayed is False


@pytest.mark.parametrize("kind", ["create", "update", "archive", "move", "delete", "undelete"])
async def test_the_same_request_under_its_key_is_answered_once_more_and_done_once(
    projects: ProjectRepository, database: Database, actor: Actor, kind: str
) -> None:
    made = await make(projects, actor)
    await make(projects, actor, "Another")
    if kind == "undelete":
        await projects.write(actor, ProjectDeletion(made.id))
    first = await projects.write(actor, _writes(made)[kind], idempotency("key"))
    assert (first.replayed, first.more) == (False, False)
    before = await log_of(database, actor)
    again = await projects.write(actor, _writes(made)[kind], idempotency("key"))
    assert (again.replayed, again.project) == (True, None if kind == "delete" else first.project)
    assert await log_of(database, actor) == before
    with pytest.raises(IdempotencyKeyReused):
        await projects.write(actor, _writes(made)[kind], idempotency("key", "another request"))


async def test_a_key_is_good_for_one_user_and_a_refusal_keeps_nothing(projects: ProjectRepository, actor: Actor) -> None:
    made = await make(projects, actor)
    with pytest.raises(ProjectNotDeleted):
        await projects.write(actor, ProjectUndeletion(made.id), idempotency("key"))
    assert (await projects.write(actor, ProjectDeletion(made.id), idempotency("key"))).replayed is False
    stranger = Actor(uuid4(), uuid4(), "")
    assert (await projects.write(stranger, ProjectCreation(new_id(), FIELDS), idempotency("key"))).replayed is False


async def test_the_same_request_twice_at_once_is_done_once(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    key = idempotency("key")
    made = await asyncio.gather(*(projects.write(actor, ProjectCreation(new_id(), FIELDS), key) for _ in range(5)))
    assert sorted(each.replayed for each in made) == [False, True, True, True, True]
    assert len({each.project for each in made}) == 1
    assert await log_of(database, actor) == [(CREATED, 1, True, [])]


async def test_the_log_has_each_change_with_its_snapshot_and_who_made_it(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    told = [await make(projects, actor)]
    for kind in ("update", "archive", "delete", "undelete"):
        told.append(await write(projects, actor, _writes(told[0])[kind]))
    rows = await database.fetch(
        "SELECT snapshot, task_id, session_id, request_id, at FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id
    )
    assert [project_of_snapshot(orjson.loads(row["snapshot"])) for row in rows] == told
    for row, project in zip(rows, told, strict=True):
        assert tuple(row)[1:] == (project.id, actor.session_id, actor.request_id, project.updated_at)


async def test_a_user_may_have_a_thousand_projects_outside_the_bin(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    made = await make(projects, actor)
    await database.fetch(FILL, actor.user_id, MAX_PROJECTS - 2)
    await make(projects, actor)
    with pytest.raises(TooManyProjects) as refused:
        await make(projects, actor)
    assert refused.value.metadata == {"limit": str(MAX_PROJECTS)}
    await projects.write(actor, ProjectDeletion(made.id))
    await make(projects, actor)
    with pytest.raises(TooManyProjects):
        await projects.write(actor, ProjectUndeletion(made.id))
    assert len(await projects.list(ProjectQuery(actor.user_id), None, MAX_PROJECTS * 2)) == MAX_PROJECTS


async def test_a_closed_account_gets_no_project(projects: ProjectRepository, database: Database, actor: Actor) -> None:
    made = await make(projects, actor)
    await database.fetch("SELECT task.close_account($1)", actor.user_id)
    for operation in _writes(made).values():
        with pytest.raises(TokenInvalid):
            await projects.write(actor, operation)


def _writes(project: Project, etags: tuple[str, ...] | None = None) -> Mapping[str, ProjectOperation]:
    return {
        "create": ProjectCreation(new_id(), OTHER),
        "update": ProjectUpdate(project.id, ProjectFields(str(new_id())), ["name"], etags),
        "archive": Archiving(project.id, archived=True, etags=etags),
        "move": ProjectMove(project.id, etags),
        "delete": ProjectDeletion(project.id, etags),
        "undelete": ProjectUndeletion(project.id, etags),
    }
