"""List, then watch: a list and the changes after its resume token together give the complete state, whatever is written meanwhile."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest

from servicekit.rpc.paging import page_tokens
from task_service.feed.domain import ChangeKind
from task_service.feed.repository import PostgresChanges
from task_service.query.list_query import ListQuery
from task_service.query.order import NEWEST_FIRST
from task_service.tasks.domain import Actor, Place, Task
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import Page, TaskService
from task_service.tasks.writes import Creation, Deletion, Undeletion, Update
from tests.task_service.conftest import FIELDS, insert, new_id

SYNCS = 60
WRITERS = 4
MAX_TASKS = 40
# Far longer than a write takes.
WITHIN_SECONDS = 10.0


@pytest.fixture
def service(tasks: PostgresTasks) -> TaskService:
    return TaskService(tasks, page_tokens("a key for the tests of syncing, long enough"), new_id, lambda _: None)


@pytest.fixture
async def busy(tasks: PostgresTasks, actor: Actor) -> AsyncIterator[None]:
    """Runs writers on the user's tasks during the test."""
    made = [await insert(tasks, actor, FIELDS) for _ in range(MAX_TASKS // 2)]
    writing = [asyncio.create_task(_write(tasks, actor, [task.id for task in made[n::WRITERS]], random.Random(n))) for n in range(WRITERS)]
    yield
    assert not any(task.done() for task in writing)
    for task in writing:
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)


async def _write(tasks: PostgresTasks, actor: Actor, mine: list[UUID], rng: random.Random) -> None:
    """Updates, deletes and restores the writer's own tasks, and creates some."""
    for number in itertools.count():
        task_id = rng.choice(mine)
        title = replace(FIELDS, title=f"{number}")
        await tasks.write(actor, [Update(task_id, title, ["title"])])
        await tasks.write(actor, [Deletion(task_id)])
        if number % 5:
            await tasks.write(actor, [Undeletion(task_id)])
        else:
            mine.remove(task_id)
            (made,) = (await tasks.write(actor, [Creation(new_id(), title)])).tasks
            mine.append(made.id)


@pytest.mark.usefixtures("busy")
async def test_a_list_and_what_comes_behind_its_token_are_the_whole(
    service: TaskService, tasks: PostgresTasks, database_changes: PostgresChanges, actor: Actor
) -> None:
    query = ListQuery(actor.user_id, None, None, NEWEST_FIRST)
    for _ in range(SYNCS):
        page = await service.list_tasks(query, page_size=100, page_token="", skip=0, with_total=False)
        later = page
        # Something must have been written meanwhile.
        async with asyncio.timeout(WITHIN_SECONDS):
            while later.place == page.place:
                later = await service.list_tasks(query, page_size=100, page_token="", skip=0, with_total=False)
        assert await _caught_up(database_changes, actor, page, later.place) == {task.id: task for task in later.tasks}


@pytest.mark.usefixtures("busy")
async def test_of_several_pages_the_first_token_counts(service: TaskService, database_changes: PostgresChanges, actor: Actor) -> None:
    query = ListQuery(actor.user_id, None, None, NEWEST_FIRST)
    for _ in range(SYNCS // 4):
        pages = [await service.list_tasks(query, page_size=5, page_token="", skip=0, with_total=False)]
        while pages[-1].next_page_token:
            pages.append(await service.list_tasks(query, page_size=5, page_token=pages[-1].next_page_token, skip=0, with_total=False))
        shown = [task for page in pages for task in page.tasks]
        later = await service.list_tasks(query, page_size=100, page_token="", skip=0, with_total=False)
        whole = Page(shown, "", pages[0].place)
        assert await _caught_up(database_changes, actor, whole, later.place) == {task.id: task for task in later.tasks}


@pytest.fixture
def database_changes(tasks: PostgresTasks) -> PostgresChanges:
    return PostgresChanges(tasks._database)


async def _caught_up(changes: PostgresChanges, actor: Actor, page: Page, until: Place) -> dict[UUID, Task]:
    """Returns the state of a client that has listed and then watched up to a place, and has applied each change."""
    state = {task.id: task for task in page.tasks}
    seq = page.place.seq
    while seq < until.seq:
        for change in (await changes.list(actor.user_id, seq, min(100, until.seq - seq))).changes:
            assert change.seq == seq + 1
            seq = change.seq
            if change.kind is ChangeKind.DELETED:
                state.pop(change.subject.id, None)
            else:
                state[change.subject.id] = change.subject
    return state
