"""At most two expensive lists of a user run at the same time. Other lists, and other users, do not wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from servicekit.stores.postgres import Database
from servicekit.turns import Turns
from task_service.query.domain import Status
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery
from task_service.query.list_statement import CHEAP_SKIP, is_expensive
from task_service.query.order import parse_order
from task_service.tasks.domain import Actor
from task_service.tasks.repository import EXPENSIVE_LISTS, PostgresTasks
from tests.servicekit.stores import databases
from tests.task_service.conftest import FIELDS, WITHIN_SECONDS, insert, new_id

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
ONE, OTHER = UUID(int=1), UUID(int=2)


@contextlib.asynccontextmanager
async def _locked(database_url: str) -> AsyncIterator[None]:
    """Holds all statements that read tasks, until the block ends."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE task.tasks IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def _running(database: Database, number: int) -> None:
    """Waits until so many statements are held, and shows that no more come."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while (await database.fetch(WAITING))[0][0] < number:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert (await database.fetch(WAITING))[0][0] == number


def _search(user_id: UUID) -> ListQuery:
    return ListQuery(user_id, None, None, parse_order(""), parse_filter("title:plan"))


async def test_two_expensive_lists_of_a_user_run_at_once(tasks: PostgresTasks, database: Database, database_url: str, actor: Actor) -> None:
    await insert(tasks, actor, FIELDS)
    async with asyncio.TaskGroup() as group, _locked(database_url):
        lists = [group.create_task(tasks.list(_search(actor.user_id), None, 0, 10)) for _ in range(5)]
        await _running(database, EXPENSIVE_LISTS)
        lists.append(group.create_task(tasks.list(ListQuery(actor.user_id, None, None, parse_order("")), None, 0, 10)))
        await _running(database, EXPENSIVE_LISTS + 1)
        group.create_task(tasks.list(_search(new_id()), None, 0, 10))
        await _running(database, EXPENSIVE_LISTS + 2)
    assert [len((await each).tasks) for each in lists] == [1] * 6


async def test_a_list_that_leaves_gives_its_turn_to_the_next(tasks: PostgresTasks, database: Database, database_url: str, actor: Actor) -> None:
    async with _locked(database_url):
        leaving, waiting, staying = ([asyncio.create_task(tasks.list(_search(actor.user_id), None, 0, 10)) for _ in range(2)] for _ in range(3))
        await _running(database, EXPENSIVE_LISTS)
        for each in (*leaving, *waiting):
            each.cancel()
        await asyncio.wait([*leaving, *waiting])
        await _running(database, EXPENSIVE_LISTS)
    assert [(await each).tasks for each in staying] == [[], []]


async def test_the_expensive_lists_of_all_users_leave_half_of_the_pool(database_url: str) -> None:
    async with databases.pool(database_url, size=6) as database:
        tasks = PostgresTasks(database)
        async with asyncio.TaskGroup() as group, databases.pool(database_url) as watcher, _locked(database_url):
            for _ in range(4):
                user_id = new_id()
                for _ in range(3):
                    group.create_task(tasks.list(_search(user_id), None, 0, 10))
            await _running(watcher, 3)
            for _ in range(3):
                group.create_task(tasks.find(new_id(), new_id()))
            await _running(watcher, 6)


async def test_users_share_the_turns_of_all() -> None:
    turns, order = Turns(2, 1), list[UUID]()

    async def call(user_id: UUID) -> None:
        async with turns.turn(user_id):
            order.append(user_id)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for user_id in [*[ONE] * 10, OTHER]:
            group.create_task(call(user_id))
    assert order.index(OTHER) == 2, "two calls of the other user come first, and not all ten"


async def test_turns_come_in_the_order_of_arrival() -> None:
    turns = Turns(2, 10)
    order: list[int] = []
    gate = asyncio.Event()

    async def call(number: int) -> None:
        async with turns.turn(ONE):
            order.append(number)
            await gate.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(call(number))
        await asyncio.sleep(0)
        async with turns.turn(OTHER):
            assert order == [0, 1]
            assert len(turns) == 2
        gate.set()
    assert order == [*range(6)]
    assert len(turns) == 0


async def test_a_turn_that_lasts_too_long_is_given_to_the_next_once() -> None:
    turns, running = Turns(1, 2, seconds=0.02), set[int]()
    begun = asyncio.Queue[int]()

    async def call(number: int) -> None:
        async with turns.turn(ONE):
            running.add(number)
            begun.put_nowait(number)
            await asyncio.Event().wait()

    calls = [asyncio.create_task(call(number)) for number in range(3)]
    assert [await begun.get() for _ in calls] == [0, 1, 2]
    await asyncio.sleep(0.1)
    for each in calls:
        each.cancel()
    await asyncio.wait(calls)
    # Each turn was given back once: only one call has a turn.
    async with turns.turn(ONE):
        waiting = asyncio.create_task(call(3))
        await asyncio.sleep(0)
        assert 3 not in running
    assert await begun.get() == 3
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(turns) == 0


CHEAP = [
    ("", None, None, ""),
    ("created_at", None, None, "status != COMPLETED"),
    ("due_date", Status.PENDING, None, ""),
    ("priority desc, due_date", None, None, "status = PENDING OR status = COMPLETED"),
    ("priority desc, title", Status.PENDING, None, ""),
    ("", None, 3, ""),
    ("", Status.PENDING, None, "priority = 3"),
    ("", None, None, "labels:work status = PENDING"),
]
EXPENSIVE = [
    ("title", None, None, ""),
    ("due_date desc", None, None, ""),
    ("updated_at", Status.PENDING, None, ""),
    ("created_at, title", None, None, ""),
    ("priority desc", None, None, ""),
    ("priority, title", None, None, ""),
    ("", None, None, "title:plan"),
    ("", None, None, "NOT labels:work"),
    ("", None, None, "priority != 3"),
    ("", None, None, "priority = 3 OR labels:work"),
    ("", None, 3, "labels:work"),
    ("due_date", None, 3, ""),
    ("due_date", None, None, "labels:work"),
]


@pytest.mark.parametrize(("order", "status", "priority", "text"), [*CHEAP, *EXPENSIVE])
def test_a_list_is_expensive_if_no_index_serves_it(order: str, status: Status | None, priority: int | None, text: str) -> None:
    query = ListQuery(ONE, status, priority, parse_order(order), parse_filter(text))
    expensive = (order, status, priority, text) in EXPENSIVE
    assert is_expensive(query, 0, with_total=False) == expensive
    assert is_expensive(query, CHEAP_SKIP, with_total=False) == expensive
    assert is_expensive(query, CHEAP_SKIP + 1, with_total=False)


@pytest.mark.parametrize(
    ("order", "text", "expensive"),
    [("", "", False), ("created_at", "", False), ("due_date", "", True), ("", "status = PENDING", True), ("", "labels:work", True)],
)
def test_a_list_with_deleted_tasks_is_expensive_if_it_reads_them_all(order: str, text: str, *, expensive: bool) -> None:
    query = ListQuery(ONE, None, None, parse_order(order), parse_filter(text), show_deleted=True)
    assert is_expensive(query, 0, with_total=False) == expensive


@pytest.mark.parametrize(("text", "expensive"), [("", False), ("status = PENDING", False), ("labels:work", True), ("priority = 3", True)])
def test_a_total_with_a_filter_is_expensive(text: str, *, expensive: bool) -> None:
    """The counter of the user has the numbers of tasks by status. PostgreSQL counts the others."""
    assert is_expensive(ListQuery(ONE, None, None, parse_order(""), parse_filter(text)), 0, with_total=True) == expensive
