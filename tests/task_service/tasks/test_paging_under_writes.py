"""Pages while others write: a task that does not move in the order is on the pages exactly once, whatever the writers create, change or delete."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from servicekit.rpc.paging import page_tokens
from task_service.query.domain import Status
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery
from task_service.query.order import parse_order
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskService
from tests.task_service.conftest import delete, insert, new_id, update

DAY = datetime(2026, 5, 1, tzinfo=UTC)
TASKS = 120
WRITERS = 4
PAUSE_SECONDS = 0.002
# Far longer than a write takes.
WITHIN_SECONDS = 10.0
LISTS = [
    ("", ""),
    ("created_at", "status != COMPLETED"),
    ("due_date", ""),
    ("priority desc, due_date", "status != COMPLETED"),
    ("priority, due_date desc", ""),
    ("", "labels:a"),
    ("title desc", "labels:a OR labels:b"),
]


@dataclass
class Writers:
    """Writes to a user's tasks until it is cancelled, and records the tasks that it created, moved or deleted."""

    tasks: PostgresTasks
    actor: Actor
    ids: list[UUID]
    random: random.Random
    touched: set[UUID] = field(default_factory=set)
    described: int = 0
    inserts: int = 0
    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            # Each of them once in every four, so that a few pages are enough for all kinds of writes.
            for write in self.random.sample(WRITES, len(WRITES)):
                # Half of the tasks are never moved. The writers pause, so that they write no faster than pages are read.
                await write(self, self.random.choice(self.ids if write is Writers.describe else self.ids[::2]))
                self.wrote.set()
                await asyncio.sleep(PAUSE_SECONDS)

    async def insert(self, _: UUID) -> None:
        """Creates a task, but at most TASKS in all: a list that grows at its end as fast as it is read has no last page."""
        self.inserts += 1
        if self.inserts > TASKS:
            return
        self.touched.add((await insert(self.tasks, self.actor, _fields(self.random))).id)

    async def move(self, task_id: UUID) -> None:
        """Moves the task in every order, and in and out of every filter."""
        self.touched.add(task_id)
        await update(self.tasks, self.actor, task_id, _fields(self.random), ["title", "status", "priority", "due_date", "labels"])

    async def describe(self, task_id: UUID) -> None:
        """Changes the description, which moves the task in none of the orders."""
        self.described += 1
        await update(self.tasks, self.actor, task_id, TaskFields(description=f"Changed {self.random.random()}"), ["description"])

    async def delete(self, task_id: UUID) -> None:
        self.touched.add(task_id)
        await delete(self.tasks, self.actor, task_id)


WRITES: list[Callable[[Writers, UUID], Awaitable[None]]] = [Writers.insert, Writers.move, Writers.describe, Writers.delete]


def _fields(rng: random.Random) -> TaskFields:
    due = rng.choice([None, DAY + timedelta(days=rng.randrange(5))])
    labels = tuple(label for label in "ab" if rng.random() < 0.6)
    return TaskFields(f"{rng.randrange(30):02}", "", rng.choice(list(Status)), rng.randrange(1, 6), due, labels)


@pytest.mark.parametrize("show_deleted", [False, True], ids=["live", "all"])
@pytest.mark.parametrize(("order", "text"), LISTS)
async def test_what_was_not_moved_is_on_the_pages_once(tasks: PostgresTasks, actor: Actor, order: str, text: str, *, show_deleted: bool) -> None:
    rng = random.Random(f"{order}{text}{show_deleted}")
    before = [await insert(tasks, actor, replace(_fields(rng), description="As made")) for _ in range(TASKS)]
    query = ListQuery(actor.user_id, None, None, parse_order(order), parse_filter(text), show_deleted)
    wanted = {task.id for task in (await tasks.list(query, None, 0, TASKS)).tasks}
    writers = Writers(tasks, actor, [task.id for task in before], rng)
    writing = [asyncio.create_task(writers.run()) for _ in range(WRITERS)]
    try:
        service = TaskService(tasks, page_tokens("a key for the tests of paging, long enough"), new_id, lambda _: None)
        seen = Counter(await _ids(service, query, writers.wrote))
    finally:
        for writer in writing:
            writer.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    assert not [writer for writer in writing if not writer.cancelled()], "a writer failed"
    assert {task_id: seen[task_id] for task_id in wanted - writers.touched} == dict.fromkeys(wanted - writers.touched, 1)
    assert {task_id for task_id, times in seen.items() if times > 1} <= writers.touched
    # The test is valid only if tasks were moved, others were changed without a move, and some were never moved.
    assert writers.touched
    assert writers.described
    assert wanted - writers.touched


async def test_page_total_and_number_of_the_last_change_are_of_one_moment(tasks: PostgresTasks, actor: Actor) -> None:
    """For a user who only creates tasks, all three are the number of tasks."""
    rng = random.Random("moment")
    query = ListQuery(actor.user_id, None, None, parse_order(""))
    seen = set()

    async def look() -> None:
        listed = await tasks.list(query, None, 0, 100, with_total=True)
        assert len(listed.tasks) == listed.total_size == listed.place.seq
        seen.add(listed.place.seq)

    making: list[asyncio.Task[Task]] = []
    # Some at a time, so that the first look cannot find all of them already.
    for _ in range(10):
        making += [asyncio.create_task(insert(tasks, actor, _fields(rng))) for _ in range(6)]
        await look()
    while not all(made.done() for made in making):
        await look()
    await asyncio.gather(*making)
    await look()
    assert len(seen) > 1


async def _ids(service: TaskService, query: ListQuery, wrote: asyncio.Event) -> list[UUID]:
    """Returns the ids on all pages, in the order of the pages. Waits for a write between two pages."""
    found: list[UUID] = []
    token = ""
    while True:
        page = await service.list_tasks(query, page_size=4, page_token=token, skip=0)
        found += [task.id for task in page.tasks]
        assert len(found) < 10 * TASKS, "the pages have no end"
        token = page.next_page_token
        if not token:
            return found
        wrote.clear()
        async with asyncio.timeout(WITHIN_SECONDS):
            await wrote.wait()
