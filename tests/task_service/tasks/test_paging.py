"""Lists page by page: in any order, the pages together are the list without gaps or repeats, also while tasks come and go."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product

import pytest

from servicekit.errors import InvalidField, InvalidPageToken
from servicekit.rpc.paging import page_tokens
from servicekit.stores.postgres import Database
from task_service.query.domain import Field, Status
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery
from task_service.query.order import OrderField, parse_order
from task_service.tasks.domain import MAX_PAGE_BYTES, Actor, Task, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskService
from tests.task_service.conftest import FIELDS, delete, insert, new_id

FIELD_NAMES = [field.name.lower() for field in OrderField]
ORDERS = [
    *(f"{name} {direction}" for name, direction in product(FIELD_NAMES, ("asc", "desc"))),
    "priority desc, due_date",
    "priority, due_date desc",
    "due_date desc, priority",
    "due_date, title desc, priority desc",
    "title, created_at desc",
    "priority desc, due_date desc, title desc",
]


@pytest.fixture
def service(tasks: PostgresTasks) -> TaskService:
    return TaskService(tasks, page_tokens("a key for the tests of paging, long enough"), new_id, lambda _: None)


@pytest.fixture(scope="module")
async def filled(database: object) -> Actor:
    """A user with 40 tasks with many equal values, some without a due date."""
    actor = Actor(new_id(), new_id(), "")
    repository = PostgresTasks(database)  # type: ignore[arg-type]  # it is a Database
    day = datetime(2026, 5, 1, tzinfo=UTC)
    for i in range(40):
        due = None if i % 4 == 0 else day + timedelta(days=i % 3)
        fields = TaskFields(title="AbCä"[i % 4], status=Status(1 + i % 3), priority=1 + i % 5, due_date=due)
        await insert(repository, actor, fields)
    return actor


@pytest.fixture(scope="module")
async def thinned(database: Database) -> Actor:
    """A user with 24 tasks, 10 of them deleted, half of them with the label `even` and half with `odd`."""
    actor = Actor(new_id(), new_id(), "")
    repository = PostgresTasks(database)
    for i in range(24):
        due = None if i % 4 == 0 else datetime(2026, 5, 1 + i % 3, tzinfo=UTC)
        labels = ("even",) if i % 2 == 0 else ("odd",)
        made = await insert(repository, actor, TaskFields("ABCÄ"[i % 4], "", Status(1 + i % 3), 1 + i % 5, due, labels))
        if i % 5 < 2:
            await delete(repository, actor, made.id)
    return actor


async def _pages(service: TaskService, query: ListQuery, size: int) -> list[Task]:
    tasks: list[Task] = []
    token = ""
    while True:
        page = await service.list_tasks(query, page_size=size, page_token=token, skip=0)
        tasks += page.tasks
        assert len({task.id for task in tasks}) == len(tasks)
        token = page.next_page_token
        if not token:
            return tasks
        assert len(page.tasks) == size


@pytest.mark.parametrize("order", ORDERS)
async def test_the_pages_together_are_the_list(service: TaskService, filled: Actor, order: str) -> None:
    query = ListQuery(filled.user_id, None, None, parse_order(order))
    whole = await _pages(service, query, 100)
    assert len({task.id for task in whole}) == 40
    assert whole == sorted(whole, key=_key(query))
    for size in (1, 7, 39, 40):
        assert await _pages(service, query, size) == whole


@pytest.mark.parametrize("text", ["", "labels:even", "-labels:even", "status != COMPLETED"])
@pytest.mark.parametrize("order", ORDERS)
async def test_with_the_deleted_ones_the_pages_together_are_the_list(service: TaskService, thinned: Actor, order: str, text: str) -> None:
    live = ListQuery(thinned.user_id, None, None, parse_order(order), parse_filter(text))
    every = replace(live, show_deleted=True)
    whole = await _pages(service, every, 100)
    assert whole == sorted(whole, key=_key(every))
    assert [task for task in whole if task.deleted_at is None] == await _pages(service, live, 100)
    assert 0 < sum(task.deleted_at is not None for task in whole) < len(whole)
    for size in (1, 4, len(whole)):
        assert await _pages(service, every, size) == whole
    skipped = await service.list_tasks(every, page_size=5, page_token="", skip=3)
    assert skipped.tasks == whole[3:8]


async def test_pages_stay_right_while_tasks_come_and_go(service: TaskService, tasks: PostgresTasks, actor: Actor) -> None:
    made = [await insert(tasks, actor, replace(FIELDS, title=f"{i:02}")) for i in range(10)]
    query = ListQuery(actor.user_id, None, None, parse_order("title"))
    first = await service.list_tasks(query, page_size=4, page_token="", skip=0)
    await delete(tasks, actor, made[3].id)
    await delete(tasks, actor, made[5].id)
    await insert(tasks, actor, replace(FIELDS, title="00"))
    await insert(tasks, actor, replace(FIELDS, title="065"))
    rest = await service.list_tasks(query, page_size=10, page_token=first.next_page_token, skip=0)
    assert [task.title for task in rest.tasks] == ["04", "06", "065", "07", "08", "09"]


async def test_a_token_is_good_for_its_own_query_only(service: TaskService, filled: Actor) -> None:
    query = ListQuery(filled.user_id, None, None, parse_order("title"))
    token = (await service.list_tasks(query, page_size=5, page_token="", skip=0)).next_page_token
    others = [
        replace(query, user_id=new_id()),
        replace(query, status=Status.PENDING),
        replace(query, priority=3),
        replace(query, order=parse_order("title desc")),
        replace(query, order=parse_order("created_at")),
        replace(query, filter=parse_filter("priority:*")),
        replace(query, show_deleted=True),
        replace(query, within=((Field.PROJECT_ID, None),)),
        replace(query, within=((Field.PARENT_ID, new_id()),)),
    ]
    for other in others:
        with pytest.raises(InvalidPageToken):
            await service.list_tasks(other, page_size=5, page_token=token, skip=0)
    assert (await service.list_tasks(query, page_size=5, page_token=token, skip=0, with_total=True)).total_size == 40
    filtered = replace(query, filter=parse_filter("priority >= 1"))
    token = (await service.list_tasks(filtered, page_size=5, page_token="", skip=0)).next_page_token
    for text in ("", "priority >= 2", "priority>=1"):
        with pytest.raises(InvalidPageToken):
            await service.list_tasks(replace(filtered, filter=parse_filter(text)), page_size=5, page_token=token, skip=0)
    assert (await service.list_tasks(filtered, page_size=5, page_token=token, skip=0)).tasks


def test_a_token_from_before_there_were_filters_is_still_good() -> None:
    user_id = new_id()
    query = ListQuery(user_id, Status.PENDING, 3, parse_order("due_date, title desc"))
    assert query.identity() == ["ListTasks", str(user_id), 1, 3, 3, 0, 5, 1]


async def test_skip_counts_from_the_token(service: TaskService, filled: Actor) -> None:
    query = ListQuery(filled.user_id, None, None, parse_order("created_at"))
    whole = await _pages(service, query, 100)
    assert (await service.list_tasks(query, page_size=5, page_token="", skip=7)).tasks == whole[7:12]
    token = (await service.list_tasks(query, page_size=5, page_token="", skip=7)).next_page_token
    assert (await service.list_tasks(query, page_size=5, page_token=token, skip=3)).tasks == whole[15:20]
    assert await service.list_tasks(query, page_size=5, page_token="", skip=40) == await service.list_tasks(
        query, page_size=5, page_token="", skip=4000
    )


@pytest.mark.parametrize("text", ["", "status != COMPLETED", "status = PENDING status = COMPLETED", "priority > 2"])
@pytest.mark.parametrize("order", ORDERS)
async def test_the_page_after_any_number_of_skipped_tasks(service: TaskService, tasks: PostgresTasks, filled: Actor, order: str, text: str) -> None:
    """PostgreSQL reaches the page from the beginning or from the end of the list, and finds the same tasks."""
    query = ListQuery(filled.user_id, None, None, parse_order(order), parse_filter(text))
    whole = await _pages(service, query, 100)
    for skip, limit in product((*range(1, 43), 100_000), (3, 25)):
        assert (await tasks.list(query, None, skip, limit)).tasks == whole[skip:][:limit]


async def test_page_sizes(service: TaskService, filled: Actor, tasks: PostgresTasks, actor: Actor) -> None:
    query = ListQuery(filled.user_id, None, None, parse_order(""))
    assert len((await service.list_tasks(query, page_size=0, page_token="", skip=0)).tasks) == 20
    for _ in range(101):
        await insert(tasks, actor, FIELDS)
    largest = await service.list_tasks(ListQuery(actor.user_id, None, None, parse_order("")), page_size=1000, page_token="", skip=0)
    assert len(largest.tasks) == 100
    assert largest.next_page_token


async def test_a_page_ends_early_when_it_is_too_large(service: TaskService, tasks: PostgresTasks, actor: Actor) -> None:
    for _ in range(60):
        await insert(tasks, actor, replace(FIELDS, description="\N{GRINNING FACE}" * 10_000))
    query = ListQuery(actor.user_id, None, None, parse_order(""))
    page = await service.list_tasks(query, page_size=100, page_token="", skip=0)
    assert 0 < len(page.tasks) < 60
    assert sum(task.text_bytes for task in page.tasks) <= MAX_PAGE_BYTES
    rest = await service.list_tasks(query, page_size=100, page_token=page.next_page_token, skip=0)
    assert len(page.tasks) + len(rest.tasks) == 60
    assert not rest.next_page_token


@pytest.mark.parametrize("text", ["nope", "title up", "title, title desc", ",", "title,", "title desc desc", "Title", "user_id"])
def test_a_wrong_order_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidField, match="order_by"):
        parse_order(text)


def _key(query: ListQuery) -> "object":
    """Returns a sort key for Python, an independent definition of the order."""

    def key(task: Task) -> tuple[object, ...]:
        parts: list[object] = []
        for order in query.order:
            # In a task, due_date is the time at which it is due.
            value = getattr(task, {"position": "place", "due_at": "due_date"}.get(order.field.name.lower(), order.field.name.lower()))
            if order.field in {OrderField.DUE_DATE, OrderField.DUE_AT, OrderField.DUE_ON}:
                parts.append(value is None)
            if order.field is OrderField.TITLE:
                number: float = ord(value.casefold())
            elif isinstance(value, str):
                number = int.from_bytes(value.encode().ljust(40, b"\0"))
            elif isinstance(value, datetime):
                number = value.timestamp()
            elif isinstance(value, date):
                number = value.toordinal()
            else:
                number = float(value or 0)
            parts.append(-number if order.descending else number)
        parts.append(-task.id.int if query.order[-1].descending else task.id.int)
        return tuple(parts)

    return key
