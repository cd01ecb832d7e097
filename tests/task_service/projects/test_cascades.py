"""A project takes its tasks to the bin and back, in several transactions. Tested with and without the cache of tasks."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from servicekit.rpc.paging import page_tokens
from servicekit.stores.postgres import Database
from task_service.projects.cache import CachedProjects
from task_service.projects.domain import Project
from task_service.projects.errors import ProjectChanged, ProjectNotDeleted, ProjectNotEmpty
from task_service.projects.repository import PostgresProjects
from task_service.projects.service import ProjectRepository, ProjectService
from task_service.projects.writes import ProjectDeletion, ProjectUndeletion, ProjectUpdate
from task_service.query.domain import Status
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import Actor, Reminder, Task
from task_service.tasks.errors import NotFenced, ProjectDeleted, ProjectNotFound, TaskNotFound, TooManySubtasks
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation, Deletion, Undeletion
from tests.task_service.conftest import FIELDS as TASK
from tests.task_service.conftest import find, insert, new_id
from tests.task_service.projects.conftest import FIELDS, MAX_TASKS, idempotency, log_of, make, write

SECRET = "a key for the tests of projects, long enough"
# How many trees of eight tasks the project has.
TREES = 3
LOGGED = """
SELECT xmin::text AS transaction, kind, task_id, is_project, (snapshot ->> 'parent_id')::uuid AS parent_id
  FROM task.changes WHERE user_id = $1 AND seq > $2 ORDER BY seq
"""


class Service(ProjectService):
    """The service, with the number of its announcements."""

    def __init__(self, projects: ProjectRepository) -> None:
        self.announced = 0
        super().__init__(projects, page_tokens(SECRET), new_id, self._count)

    def _count(self, _: UUID) -> None:
        self.announced += 1


@pytest.fixture
def service(projects: ProjectRepository) -> Service:
    return Service(projects)


@pytest.fixture
async def project(stored: PostgresProjects, actor: Actor) -> Project:
    return await make(stored, actor)


@pytest.fixture
async def family(tasks: PostgresTasks, cached: CachedTasks, actor: Actor, project: Project) -> Sequence[Task]:
    """The project's tasks, which the cache has. Each tree has a task, two subtasks, and one or four below these."""
    made = []
    for n in range(TREES):
        top = await insert(tasks, actor, replace(TASK, title=f"Tree {n}", status=Status(n % 3 + 1), project_id=project.id))
        subtasks = [await insert(tasks, actor, replace(TASK, parent_id=top.id)) for _ in range(2)]
        below = [await insert(tasks, actor, replace(TASK, labels=(), parent_id=subtasks[0].id)) for _ in range(4)]
        below.append(await insert(tasks, actor, replace(TASK, parent_id=subtasks[1].id)))
        made += [top, *subtasks, *below]
    for task in made:
        assert await find(cached, actor.user_id, task.id) is not None
    return made


async def test_a_project_with_tasks_is_deleted_only_with_force(
    service: Service, database: Database, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    before = await log_of(database, actor)
    with pytest.raises(ProjectNotEmpty):
        await service.delete_project(actor, ProjectDeletion(project.id), None)
    assert await log_of(database, actor) == before


async def test_completed_tasks_and_subtasks_are_tasks_too(service: Service, tasks: PostgresTasks, actor: Actor, project: Project) -> None:
    done = await insert(tasks, actor, replace(TASK, status=Status.COMPLETED, project_id=project.id))
    with pytest.raises(ProjectNotEmpty):
        await service.delete_project(actor, ProjectDeletion(project.id), None)
    await tasks.write(actor, [Deletion(done.id)])
    await service.delete_project(actor, ProjectDeletion(project.id), None)


async def test_its_tasks_go_first_each_behind_its_subtasks_and_the_project_last(
    service: Service, database: Database, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    before = len(await log_of(database, actor))
    deleted = (await service.delete_project(actor, ProjectDeletion(project.id, ('"1"',), force=True), None)).project
    assert deleted is not None
    assert (deleted.version, deleted.deleted_at) == (2, deleted.updated_at)
    rows = await database.fetch(LOGGED, actor.user_id, before)
    assert {row["kind"] for row in rows} == {3}
    assert [row["is_project"] for row in rows] == [False] * len(family) + [True]
    gone: set[UUID] = set()
    for row in rows:
        assert row["parent_id"] not in gone
        gone.add(row["task_id"])
    assert gone == {task.id for task in family} | {project.id}
    sizes = [sum(1 for row in rows if row["transaction"] == each) for each in dict.fromkeys(row["transaction"] for row in rows)]
    assert sizes == [MAX_TASKS] * (len(family) // MAX_TASKS) + [len(family) % MAX_TASKS + 1]
    assert service.announced == len(sizes)


async def test_what_went_with_the_project_comes_back_as_it_was_the_project_first(
    service: Service, database: Database, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    alone = family[-1]
    await tasks.write(actor, [Deletion(alone.id)])
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    before = len(await log_of(database, actor))
    back = (await service.undelete_project(actor, ProjectUndeletion(project.id, ('"2"',)), None)).project
    assert back is not None
    assert back == project._replace(version=3, updated_at=back.updated_at)
    rows = await database.fetch(LOGGED, actor.user_id, before)
    assert [(row["kind"], row["is_project"]) for row in rows] == [(4, n == 0) for n in range(len(family))]
    seen: set[UUID | None] = {None}
    for row in rows[1:]:
        assert row["parent_id"] in seen
        seen.add(row["task_id"])
    found = await tasks.find_all(actor.user_id, [task.id for task in family])
    assert found == {task.id: task._replace(version=3, updated_at=found[task.id].updated_at) for task in family[:-1]}
    with pytest.raises(ProjectNotDeleted):
        await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    await tasks.write(actor, [Undeletion(alone.id)])


async def test_no_reader_of_the_cache_sees_a_task_that_is_gone_or_misses_one_that_is_back(
    stored: PostgresProjects, cached: CachedTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    service = Service(CachedProjects(stored, cached))
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    assert [await find(cached, actor.user_id, task.id) for task in family] == [None] * len(family)
    await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    assert None not in [await find(cached, actor.user_id, task.id) for task in family]
    state = cached._state.relied_on
    assert state is not None
    assert await cached._values.keep(state) == 0, "fences are left"


async def test_a_write_that_would_change_a_task_without_a_fence_changes_nothing(
    stored: PostgresProjects, cached: CachedTasks, database: Database, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    before = await log_of(database, actor)
    deletion = ProjectDeletion(project.id, force=True)
    told = await stored.list_next_tasks(actor.user_id, deletion)
    assert len(told) == MAX_TASKS
    state = cached._state.relied_on
    for fenced in ((), told[1:], [task.id for task in family if task.id not in told]):
        with pytest.raises(NotFenced) as refused:
            await stored.write(actor, deletion, idempotency("key"), state=state if fenced else None, fenced=fenced)
        assert refused.value.task_ids == set(told)
    assert await log_of(database, actor) == before
    assert (await stored.write(actor, deletion, idempotency("key"), state=state, fenced=told)).more


async def test_the_numbers_the_labels_and_the_reminders_follow(
    service: Service, tasks: PostgresTasks, database: Database, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    reminders = (Reminder(at=datetime.now(UTC) + timedelta(days=1)),)
    await insert(tasks, actor, replace(TASK, project_id=project.id, reminders=reminders))
    before = await _figures(database, actor)
    assert before != ([0, 0, 0], 0, 0)
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    assert await _figures(database, actor) == ([0, 0, 0], 0, 0)
    await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    assert await _figures(database, actor) == before


@pytest.mark.parametrize("etags", [None, ('"1"',)])
async def test_a_deletion_that_was_cut_off_is_continued_by_a_repetition(
    service: Service,
    projects: ProjectRepository,
    tasks: PostgresTasks,
    actor: Actor,
    project: Project,
    family: Sequence[Task],
    etags: tuple[str] | None,
) -> None:
    key, deletion = idempotency("key"), ProjectDeletion(project.id, etags, force=True)
    assert (await projects.write(actor, deletion, key)).more
    assert len(await tasks.find_all(actor.user_id, [task.id for task in family])) == len(family) - MAX_TASKS
    assert await projects.find(actor.user_id, project.id) == project
    assert (await service.delete_project(actor, deletion, key)).replayed is False
    assert await projects.find(actor.user_id, project.id) is None
    assert await tasks.find_all(actor.user_id, [task.id for task in family]) == {}
    assert (await service.delete_project(actor, deletion, key)).replayed is True
    with pytest.raises(ProjectNotFound):
        await service.delete_project(actor, deletion, None)


@pytest.mark.parametrize("etags", [None, ('"2"',)])
async def test_an_undeletion_that_was_cut_off_is_continued_by_a_repetition(
    service: Service,
    projects: ProjectRepository,
    tasks: PostgresTasks,
    actor: Actor,
    project: Project,
    family: Sequence[Task],
    etags: tuple[str] | None,
) -> None:
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    key, undeletion = idempotency("key"), ProjectUndeletion(project.id, etags)
    begun = await projects.write(actor, undeletion, key)
    assert begun.more
    assert await projects.find(actor.user_id, project.id) == begun.project
    assert len(await tasks.find_all(actor.user_id, [task.id for task in family])) == MAX_TASKS
    with pytest.raises(ProjectChanged):
        await service.undelete_project(actor, ProjectUndeletion(project.id, ('"1"',)), None)
    done = await service.undelete_project(actor, undeletion, key)
    assert (done.project, done.replayed) == (begun.project, False)
    assert len(await tasks.find_all(actor.user_id, [task.id for task in family])) == len(family)
    again = await service.undelete_project(actor, undeletion, key)
    assert (again.project, again.replayed) == (begun.project, True)


async def test_a_deletion_that_was_cut_off_can_be_taken_back(
    service: Service, projects: ProjectRepository, tasks: PostgresTasks, database: Database, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    before = await _figures(database, actor)
    await projects.write(actor, ProjectDeletion(project.id, force=True))
    assert (await service.undelete_project(actor, ProjectUndeletion(project.id), None)).project == project
    assert len(await tasks.find_all(actor.user_id, [task.id for task in family])) == len(family)
    assert await _figures(database, actor) == before


async def test_a_project_that_changes_meanwhile_is_not_deleted_under_an_etag(
    projects: ProjectRepository, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    deletion = ProjectDeletion(project.id, ('"1"',), force=True)
    await projects.write(actor, deletion)
    await projects.write(actor, ProjectUpdate(project.id, replace(FIELDS, name="Kept"), ["name"]))
    with pytest.raises(ProjectChanged):
        await projects.write(actor, replace(deletion, continues=True))


async def test_tasks_that_are_added_meanwhile_go_too(
    projects: ProjectRepository, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    service = Service(projects)
    added: list[UUID] = []

    def announce(_: UUID) -> None:
        # Each write is followed by a creation, at first.
        if len(added) < 3:
            added.append(new_id())
            adding.append(asyncio.create_task(tasks.write(actor, [Creation(added[-1], replace(TASK, project_id=project.id))])))

    adding: list[asyncio.Task[object]] = []
    service._announce = announce
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    await asyncio.gather(*adding)
    assert len(added) == 3
    assert await tasks.find_all(actor.user_id, [*added, *(task.id for task in family)]) == {}
    await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    assert len(await tasks.find_all(actor.user_id, [*added, *(task.id for task in family)])) == len(added) + len(family)


async def test_two_at_once_change_each_task_once(
    service: Service, database: Database, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    deleting = (service.delete_project(actor, ProjectDeletion(project.id, force=True), None) for _ in range(3))
    results = await asyncio.gather(*deleting, return_exceptions=True)
    undeleting = (service.undelete_project(actor, ProjectUndeletion(project.id), None) for _ in range(3))
    for found, late in ((results, ProjectNotFound), (await asyncio.gather(*undeleting, return_exceptions=True), ProjectNotDeleted)):
        # Whoever comes when it is done is refused.
        assert any(not isinstance(result, BaseException) for result in found)
        assert [result for result in found if isinstance(result, BaseException) and not isinstance(result, late)] == []
    for kind in (3, 4):
        rows = await database.fetch("SELECT task_id FROM task.changes WHERE user_id = $1 AND kind = $2", actor.user_id, kind)
        assert sorted(row["task_id"] for row in rows) == sorted([project.id, *(task.id for task in family)])


async def test_a_continuation_after_another_call_has_done_the_rest_succeeds(
    service: Service, projects: ProjectRepository, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    deletion, undeletion = ProjectDeletion(project.id, ('"1"',), force=True), ProjectUndeletion(project.id, ('"2"',))
    await projects.write(actor, deletion)
    await service.delete_project(actor, deletion, None)
    assert (await projects.write(actor, replace(deletion, continues=True))).more is False
    await projects.write(actor, undeletion)
    await service.undelete_project(actor, undeletion, None)
    assert (await projects.write(actor, replace(undeletion, etags=None, continues=True))).more is False
    await service.delete_project(actor, replace(deletion, etags=None), None)
    with pytest.raises(ProjectNotFound):
        await projects.write(actor, replace(undeletion, etags=None, continues=True))


async def test_a_task_of_a_deleted_project_comes_back_only_with_it(
    service: Service, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    with pytest.raises(ProjectDeleted):
        await tasks.write(actor, [Undeletion(family[0].id)])
    with pytest.raises(ProjectNotFound):
        await tasks.write(actor, [Creation(new_id(), replace(TASK, project_id=project.id))])


async def test_a_task_without_room_under_its_parent_stays_in_the_bin_by_itself(
    service: Service, projects: ProjectRepository, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    await projects.write(actor, ProjectDeletion(project.id, force=True))
    live = await tasks.find_all(actor.user_id, [task.id for task in family])
    child = next(task for task in family if task.id not in live and task.parent_id in live)
    room = 500 - sum(1 for task in live.values() if task.parent_id == child.parent_id)
    await tasks.write(actor, [Creation(new_id(), replace(TASK, labels=(), parent_id=child.parent_id)) for _ in range(room)])
    await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    left = {task.id for task in family} - (await tasks.find_all(actor.user_id, [task.id for task in family])).keys()
    assert left
    assert left <= {task.id for task in family if task.parent_id == child.parent_id}
    with pytest.raises(ProjectNotDeleted):
        await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    with pytest.raises(TooManySubtasks):
        await tasks.write(actor, [Undeletion(left.pop())])


async def test_a_task_whose_parent_is_in_the_bin_waits_for_it(
    service: Service, projects: ProjectRepository, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    await projects.write(actor, ProjectDeletion(project.id, force=True))
    live = await tasks.find_all(actor.user_id, [task.id for task in family])
    child = next(task for task in family if task.id not in live and task.parent_id in live)
    assert child.parent_id is not None
    await tasks.write(actor, [Deletion(child.parent_id)])
    # The fifth task has another parent.
    await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    with pytest.raises(ProjectNotDeleted):
        await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    assert await tasks.find(actor.user_id, child.id) is None
    await tasks.write(actor, [Undeletion(child.parent_id)])
    await service.undelete_project(actor, ProjectUndeletion(project.id), None)
    assert await tasks.find(actor.user_id, child.id) is not None


async def test_another_project_and_another_user_keep_their_tasks(
    service: Service, projects: ProjectRepository, tasks: PostgresTasks, actor: Actor, project: Project, family: Sequence[Task]
) -> None:
    other = await make(projects, actor, "Other")
    kept = [await insert(tasks, actor, replace(TASK, project_id=other.id)), await insert(tasks, actor, TASK)]
    stranger = Actor(uuid4(), uuid4(), "")
    with pytest.raises(ProjectNotFound):
        await service.delete_project(stranger, ProjectDeletion(project.id, force=True), None)
    await service.delete_project(actor, ProjectDeletion(project.id, force=True), None)
    assert await tasks.find_all(actor.user_id, [task.id for task in kept]) == {task.id: task for task in kept}
    with pytest.raises(TaskNotFound):
        await tasks.write(actor, [Deletion(family[0].id)])
    assert (await write(projects, actor, ProjectDeletion(other.id, force=True))).deleted_at is not None


async def _figures(database: Database, actor: Actor) -> tuple[list[int], int, int]:
    """Returns the numbers of tasks by status, of the rows of labels and of the reminders."""
    row = await database.fetchrow(
        "SELECT pending, in_progress, completed, (SELECT count(*) FROM task.task_labels WHERE user_id = $1) AS labels,"
        " (SELECT count(*) FROM task.reminders WHERE user_id = $1) AS reminders FROM task.counters WHERE user_id = $1",
        actor.user_id,
    )
    assert row is not None
    return [row[0], row[1], row[2]], row[3], row[4]
