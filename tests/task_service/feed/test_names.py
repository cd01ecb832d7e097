"""The change log keeps the name of the API token that made a change, for every kind of write, and gives it to no other change."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import pytest

from servicekit.rpc.paging import page_tokens
from servicekit.stores.postgres import Database
from task_service.due.domain import Anchor
from task_service.feed.repository import PostgresChanges
from task_service.projects.domain import ProjectFields
from task_service.projects.repository import PostgresProjects
from task_service.projects.writes import Archiving, ProjectCreation, ProjectDeletion, ProjectMove, ProjectOperation, ProjectUndeletion, ProjectUpdate
from task_service.query.domain import Status
from task_service.tasks.domain import Actor, Recurrence, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskService
from task_service.tasks.writes import Creation, Deletion, Move, Operation, Undeletion, Update
from tests.task_service.conftest import FIELDS, insert, new_id, update

NAMES = "SELECT seq, actor_name FROM task.changes WHERE user_id = $1 ORDER BY seq"
WRITE = "SELECT o_replayed FROM task.write($1, 1::smallint, $2, ROW($1, $1, '', false)::task.author, NULL, NULL, 1000000, NULL, NULL, NULL)"
CREATION = {"n": 0, "title": "A", "description": "", "status": 1, "priority": 3, "due_date": None, "labels": []}
REPEATING = TaskFields(title="A", due_on=date(2026, 12, 1), recurrence=Recurrence("FREQ=DAILY", Anchor.DUE))


@pytest.fixture
def script(actor: Actor) -> Actor:
    """An API token of the same user. Its name has each length of UTF-8, and is as long as a name can be."""
    return replace(actor, session_id=new_id(), by_api_token=True, name="'aäあ🦊" * 20)


async def names(database: Database, actor: Actor) -> list[str | None]:
    return [row["actor_name"] for row in await database.fetch(NAMES, actor.user_id)]


async def test_each_write_of_tasks(tasks: PostgresTasks, database: Database, script: Actor) -> None:
    made, other, with_labels = new_id(), new_id(), replace(FIELDS, labels=("a",))
    writes: Sequence[Sequence[Operation]] = [
        [Creation(made, FIELDS)],
        [Creation(other, FIELDS), Creation(new_id(), replace(with_labels, parent_id=made))],
        [Update(made, replace(FIELDS, title="B"), ["title"]), Update(other, replace(FIELDS, title="B"), ["title"])],
        [Move(made, after_id=other)],
        # With its subtask.
        [Deletion(made)],
        [Undeletion(made)],
    ]
    for operations in writes:
        await tasks.write(script, operations)
    assert await names(database, script) == [script.name] * 10


async def test_the_task_that_follows_a_repeating_one(tasks: PostgresTasks, database: Database, script: Actor) -> None:
    service = TaskService(tasks, page_tokens("a key for the tests, long enough to be one"), new_id, lambda _: None)
    made = (await service.create_tasks(script, [REPEATING], None)).tasks[0]
    await service.update_tasks(script, [Update(made.id, replace(REPEATING, status=Status.COMPLETED), ["status"])], None)
    assert await names(database, script) == [script.name] * 3


async def test_each_write_of_projects(tasks: PostgresTasks, database: Database, script: Actor) -> None:
    projects, made, other, fields = PostgresProjects(database), new_id(), new_id(), ProjectFields("A", "", "")
    await insert(tasks, script, FIELDS)
    writes: Sequence[ProjectOperation] = [
        ProjectCreation(made, fields),
        ProjectCreation(other, fields),
        ProjectUpdate(made, ProjectFields("B", "", ""), ["name"]),
        Archiving(made, archived=True),
        ProjectMove(made, after_id=other),
        ProjectDeletion(made),
        ProjectUndeletion(made),
    ]
    for operation in writes:
        await projects.write(script, operation)
    assert await names(database, script) == [script.name] * 8


async def test_a_project_names_who_takes_its_tasks_to_the_bin(tasks: PostgresTasks, database: Database, actor: Actor, script: Actor) -> None:
    projects, made = PostgresProjects(database), new_id()
    await projects.write(actor, ProjectCreation(made, ProjectFields("A", "", "")))
    task = await insert(tasks, actor, replace(FIELDS, project_id=made))
    # Without a cache of tasks.
    await projects.write(script, ProjectDeletion(made, force=True), fenced=[task.id])
    assert await names(database, actor) == [None, None, script.name, script.name]


async def test_a_session_after_an_api_token_has_no_name(tasks: PostgresTasks, database: Database, actor: Actor, script: Actor) -> None:
    """Each of these writes gets the connection of the one before."""
    task = await insert(tasks, script, FIELDS)
    await update(tasks, actor, task.id, replace(FIELDS, title="B"), ["title"])
    await update(tasks, script, task.id, replace(FIELDS, title="C"), ["title"])
    await update(tasks, replace(script, name=""), task.id, replace(FIELDS, title="D"), ["title"])
    found = await PostgresChanges(database).list_of_task(actor.user_id, task.id, 100, 100)
    assert found is not None
    assert [(change.session_id, change.api_token_id, change.actor_name) for change in found] == [
        (None, script.session_id, ""),
        (None, script.session_id, script.name),
        (actor.session_id, None, ""),
        (None, script.session_id, script.name),
    ]


async def test_code_from_before_writes_without_names(tasks: PostgresTasks, database: Database, script: Actor) -> None:
    await insert(tasks, script, FIELDS)
    user_id = script.user_id
    await database.fetch(WRITE, user_id, json.dumps([CREATION | {"id": str(new_id())}]))
    writes = [
        {"n": n, "kind": 1, "operations": [CREATION | {"id": str(new_id())}], "session_id": str(user_id), "request_id": "", "by_api_token": True}
        for n in range(2)
    ]
    assert len(await database.fetch("SELECT o_write FROM task.write_all($1, $2, 1000000)", user_id, json.dumps(writes))) == 2
    assert await names(database, script) == [script.name, None, None, None]
