"""Changes of projects in the feed: only streams that ask for them get them, and all streams pass them."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from taskmanager.task.v1 import task_service_pb2

from servicekit.identity import Identity
from servicekit.rpc.paging import PlaceTokens, page_tokens
from servicekit.stores.postgres import Database
from task_service.feed import watching
from task_service.feed.domain import Change, ChangeKind, WatchEvent
from task_service.feed.errors import InvalidResumeToken, ResumeTokenExpired
from task_service.feed.messages import to_event
from task_service.feed.repository import PostgresChanges
from task_service.feed.service import FeedService
from task_service.feed.watching import Watches
from task_service.projects.domain import Project
from task_service.projects.order import ProjectQuery
from task_service.projects.repository import PostgresProjects
from task_service.projects.service import ProjectService
from task_service.projects.writes import Archiving, ProjectDeletion, ProjectMove, ProjectUndeletion, ProjectUpdate
from task_service.query.list_query import ListQuery
from task_service.query.order import NEWEST_FIRST
from task_service.tasks.domain import Actor, Reminder, Task
from task_service.tasks.errors import WriteRefused
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Deletion, Undeletion, Update
from tests.task_service.conftest import FIELDS, insert, new_id
from tests.task_service.projects.conftest import FIELDS as PROJECT
from tests.task_service.projects.conftest import make, write

SECRET = "a key for the tests of projects in streams, long enough"
WITHIN_SECONDS = 5.0
FAR = 2**31

Watch = Callable[..., "contextlib.aclosing[AsyncIterator[WatchEvent]]"]


class NoWakeups:
    """The streams of these tests only read what was written before."""

    def subscribe(self, channel: str, callback: Callable[[], None]) -> None: ...

    def unsubscribe(self, channel: str, callback: Callable[[], None]) -> None: ...


@pytest.fixture
def projects(database: Database) -> PostgresProjects:
    return PostgresProjects(database, max_tasks=2)


@pytest.fixture
def service(projects: PostgresProjects) -> ProjectService:
    return ProjectService(projects, page_tokens(SECRET), new_id, lambda _: None)


@pytest.fixture
def watch(database: Database, actor: Actor) -> Watch:
    """Opens a stream of the actor, from the beginning of the log unless another token is given."""
    log, tokens = PostgresChanges(database), PlaceTokens(SECRET, "resume token", InvalidResumeToken)
    feed = FeedService(log, Watches(log, NoWakeups(), lambda _: None, CollectorRegistry()), tokens, page_tokens(SECRET))
    identity = Identity(actor.user_id, actor.session_id, "t", FAR)

    async def events(token: str, *, show_projects: bool) -> AsyncIterator[WatchEvent]:
        epoch = (await log.list(actor.user_id, None, 1)).epoch
        token = token or tokens.seal([epoch, 0], ["WatchTasks", str(actor.user_id)])
        async with contextlib.aclosing(feed.watch_tasks(identity, token, show_projects=show_projects)) as found:
            async for event in found:
                yield event

    return lambda token="", *, show_projects: contextlib.aclosing(events(token, show_projects=show_projects))


async def _next(events: AsyncIterator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(WITHIN_SECONDS):
        return await anext(events)


async def _told(events: AsyncIterator[WatchEvent], count: int) -> list[Change]:
    """Returns the next changes, after a checkpoint."""
    assert (await _next(events)).change is None
    found = [await _next(events) for _ in range(count)]
    return [event.change for event in found if event.change is not None]


@pytest.fixture
async def written(tasks: PostgresTasks, projects: PostgresProjects, service: ProjectService, actor: Actor) -> list[tuple[str, Task | Project]]:
    """Changes of a project and a task of it, in the order of the log, with what they left."""
    made = await make(projects, actor)
    task = await insert(tasks, actor, replace(FIELDS, project_id=made.id))
    renamed = await write(projects, actor, ProjectUpdate(made.id, replace(PROJECT, name="Garden"), ["name"]))
    archived = await write(projects, actor, Archiving(made.id, archived=True))
    deleted = (await service.delete_project(actor, ProjectDeletion(made.id, force=True), None)).project
    assert deleted is not None
    restored = await write(projects, actor, ProjectUndeletion(made.id))
    (back,) = (await tasks.find_all(actor.user_id, [task.id])).values()
    binned = back._replace(version=2, deleted_at=deleted.deleted_at)
    kinds = ("CREATED", "CREATED", "UPDATED", "UPDATED", "DELETED", "DELETED", "RESTORED", "RESTORED")
    return list(zip(kinds, (made, task, renamed, archived, binned, deleted, restored, back), strict=True))


def _names(changes: list[Change]) -> list[tuple[str, UUID, int]]:
    return [(change.kind.name, change.subject.id, change.subject.version) for change in changes]


async def test_a_stream_that_asks_for_projects_gets_all_changes_in_order(watch: Watch, written: list[tuple[str, Task | Project]]) -> None:
    async with watch(show_projects=True) as events:
        told = await _told(events, len(written))
    assert _names(told) == [(kind, subject.id, subject.version) for kind, subject in written]
    assert [change.subject for change in told if isinstance(change.subject, Project)] == [each for _, each in written if isinstance(each, Project)]


async def test_another_stream_gets_the_tasks_and_passes_the_projects(
    watch: Watch, written: list[tuple[str, Task | Project]], projects: PostgresProjects, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "HEARTBEAT_SECONDS", 0.1)
    expected = [(kind, subject.id, subject.version) for kind, subject in written if isinstance(subject, Task)]
    for n in range(5):
        await write(projects, actor, ProjectUpdate(written[0][1].id, replace(PROJECT, name=f"{n}"), ["name"]))
    async with watch(show_projects=False) as events:
        assert _names(await _told(events, len(expected))) == expected
        # The next message is a heartbeat, whose token is behind the last changes of the project.
        heartbeat = await _next(events)
    assert heartbeat.change is None
    await write(projects, actor, ProjectMove(written[0][1].id))
    await write(projects, actor, Archiving(written[0][1].id, archived=False))
    async with watch(heartbeat.resume_token, show_projects=True) as events:
        (change,) = await _told(events, 1)
        assert (change.kind, change.subject.archived_at) == (ChangeKind.UPDATED, None)


async def test_a_change_of_a_project_that_is_missing_is_a_gap_for_every_stream(
    watch: Watch, written: list[tuple[str, Task | Project]], database: Database, actor: Actor
) -> None:
    await database.fetchrow("DELETE FROM task.changes WHERE user_id = $1 AND seq = 3", actor.user_id)
    for show_projects in (False, True):
        with pytest.raises(ResumeTokenExpired):
            async with watch(show_projects=show_projects) as events:
                await _told(events, len(written))


async def test_a_reminder_is_a_change_of_its_task(watch: Watch, tasks: PostgresTasks, database: Database, actor: Actor) -> None:
    task = await insert(tasks, actor, replace(FIELDS, reminders=(Reminder(at=datetime.now(UTC) + timedelta(hours=1)),)))
    await database.fetchrow("UPDATE task.reminders SET fire_at = now() WHERE user_id = $1", actor.user_id)
    await database.fetchrow("SELECT task.fire_reminders($1, 10, true)", actor.user_id)
    async with watch(show_projects=False) as events:
        assert [(change.kind, change.subject) for change in await _told(events, 2)] == [(ChangeKind.CREATED, task), (ChangeKind.REMINDER, task)]


def test_the_message_has_either_a_task_or_a_project(written: list[tuple[str, Task | Project]]) -> None:
    for kind, subject in written:
        message = to_event(WatchEvent(Change(1, ChangeKind[kind], subject), "token"))
        assert task_service_pb2.WatchTasksResponse.Kind.Name(message.kind) == kind
        own, other = ("task", "project") if isinstance(subject, Task) else ("project", "task")
        assert (message.HasField(own), message.HasField(other)) == (True, False)
        assert getattr(message, own).etag == subject.etag


async def test_the_history_of_a_task_has_its_own_changes(written: list[tuple[str, Task | Project]], database: Database, actor: Actor) -> None:
    found = await PostgresChanges(database).list_of_task(actor.user_id, written[1][1].id, 2**62, 100)
    assert found is not None
    assert [(change.kind.name, change.task.version) for change in found] == [("RESTORED", 3), ("DELETED", 2), ("CREATED", 1)]
    assert await PostgresChanges(database).list_of_task(actor.user_id, written[0][1].id, 2**62, 100) is None


async def test_the_log_replayed_is_the_state(
    tasks: PostgresTasks, projects: PostgresProjects, service: ProjectService, database: Database, actor: Actor
) -> None:
    rng, made = random.Random(5), [await make(projects, actor, f"{n}") for n in range(4)]
    known = [(await insert(tasks, actor, FIELDS)).id]
    for number in range(120):
        await _step(rng, number, tasks, service, actor, [each.id for each in made], known)
    state: dict[UUID, Task | Project] = {}
    log = PostgresChanges(database)
    seq = 0
    while changes := (await log.list(actor.user_id, seq, 100)).changes:
        for change in changes:
            if change.kind is ChangeKind.DELETED:
                state.pop(change.subject.id, None)
            else:
                state[change.subject.id] = change.subject
        seq = changes[-1].seq
    there = [*(await tasks.list(ListQuery(actor.user_id, None, None, NEWEST_FIRST), None, 0, 1000)).tasks]
    assert state == {each.id: each for each in [*there, *await projects.list(ProjectQuery(actor.user_id, show_archived=True), None, 100)]}
    assert len(there) > 5


async def _step(
    rng: random.Random, number: int, tasks: PostgresTasks, service: ProjectService, actor: Actor, made: list[UUID], known: list[UUID]
) -> None:
    """Makes a random write. It may be refused."""
    project_id = rng.choice(made)
    with contextlib.suppress(WriteRefused):
        match rng.randrange(12):
            case 0 | 1 | 2 | 3:
                known.append((await insert(tasks, actor, replace(FIELDS, project_id=project_id))).id)
            case 4 | 5:
                known.append((await insert(tasks, actor, replace(FIELDS, parent_id=rng.choice(known)))).id)
            case 6:
                await tasks.write(actor, [Update(rng.choice(known), replace(FIELDS, title=f"{number}"), ["title"])])
            case 7:
                await tasks.write(actor, [rng.choice([Deletion, Undeletion])(rng.choice(known))])
            case 8:
                await service.delete_project(actor, ProjectDeletion(project_id, force=True), None)
            case 9 | 10:
                await service.undelete_project(actor, ProjectUndeletion(project_id), None)
            case 11:
                await service.move_project(actor, ProjectMove(project_id), None)
