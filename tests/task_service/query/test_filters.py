"""Filters on real PostgreSQL give the same tasks as a plain evaluator in Python: any filter, in any way of writing it."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servicekit.errors import InvalidField
from servicekit.stores.postgres import Database
from task_service.query.domain import Status
from task_service.query.filter_syntax import parse_filter
from task_service.query.list_query import ListQuery, Position
from task_service.query.list_statement import list_statement
from task_service.query.order import parse_order
from task_service.tasks.domain import Actor, Task, TaskFields
from task_service.tasks.pages import position_of
from task_service.tasks.repository import COLUMNS, PostgresTasks, to_task
from tests.task_service.conftest import FIELDS, delete, insert, new_id, update

TITLES = ("Plan", "plan the größte Party", 'it\'s "quoted" \\ back', "50%_off", "AND", "Straße", "δρόμος")
DESCRIPTIONS = ("", "All of it", "ÄÖÜ plan")
LABELS = ("work", "home", "später", "a b", "it's")
DUE = (None, datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 1, 12, 30, 0, 123456, tzinfo=UTC), datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC))
DUE_LAST = datetime.max.replace(tzinfo=UTC)
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NAMED_STATUSES = {name: status for status in Status for name in (status.name, status.name.lower(), f'"{status.name}"')}
ORDERS = ("", "created_at", "due_date", "priority desc, due_date", "title")


@dataclass(frozen=True)
class Written:
    """The text of a filter, and its meaning as a Python function."""

    text: str
    holds: Callable[[Task], bool]

    def __repr__(self) -> str:
        return self.text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def _texts(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(["title", "description"]))
    sign = draw(st.sampled_from(["=", "!=", ":"]))
    value = draw(st.sampled_from([*TITLES, *DESCRIPTIONS, "GRÖSSTE", "STRASSE", "ΔΡΌΜΟΣ", "pLa", "äö", "%", "_", "\\", "q"]))
    text = f"{name}{draw(_spaces)}{sign}{draw(_spaces)}{_quoted(value)}"
    if sign == ":":
        return Written(text, lambda task: value.casefold() in getattr(task, name).casefold())
    return Written(text, lambda task: SIGNS[sign](getattr(task, name), value))


@st.composite
def _statuses(draw: st.DrawFn) -> Written:
    sign, name = draw(st.sampled_from(["=", "!="])), draw(st.sampled_from(sorted(NAMED_STATUSES)))
    return Written(f"status{sign}{name}", lambda task: SIGNS[sign](task.status, NAMED_STATUSES[name]))


@st.composite
def _priorities(draw: st.DrawFn) -> Written:
    sign, value = draw(st.sampled_from(sorted(SIGNS))), draw(st.integers(1, 5))
    return Written(f"priority {sign} {value}", lambda task: SIGNS[sign](task.priority, value))


@st.composite
def _times(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(["due_date", "created_at", "updated_at", "completed_at", "deleted_at"]))
    sign = draw(st.sampled_from(sorted(SIGNS)))
    value = draw(st.sampled_from([*(due for due in DUE if due), datetime.now(UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]))
    text = value.isoformat()
    text = draw(st.sampled_from([text, text.replace("+00:00", "Z"), f'"{text}"']))

    def holds(task: Task) -> bool:
        time = getattr(task, name)
        return time is not None and SIGNS[sign](time, value)

    return Written(f"{name}{draw(_spaces)}{sign}{text}", holds)


@st.composite
def _labels(draw: st.DrawFn) -> Written:
    value = draw(st.sampled_from([*LABELS, "none", "Work"]))
    return Written(f"labels:{_quoted(value)}", lambda task: value in task.labels)


@st.composite
def _presences(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(["title", "description", "status", "due_date", "completed_at", "deleted_at", "labels", "created_at"]))
    return Written(f"{name}:*", lambda task: bool(getattr(task, name)))


def _negated(inner: Written, sign: str) -> Written:
    return Written(f"{sign}{inner.text}", lambda task: not inner.holds(task))


def _any(terms: Sequence[Written]) -> Written:
    return Written(" OR ".join(term.text for term in terms), lambda task: any(term.holds(task) for term in terms))


def _all(terms: Sequence[Written], sign: str) -> Written:
    return Written(sign.join(term.text for term in terms), lambda task: all(term.holds(task) for term in terms))


def _longer(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
    """Builds a longer filter by the grammar of AIP-160: terms joined by OR, these joined by AND or by white space, all in parentheses."""
    terms = inner | st.builds(_negated, inner, st.sampled_from(["NOT ", "-", "- "]))
    factors = st.lists(terms, min_size=1, max_size=3).map(_any)
    whole = st.builds(_all, st.lists(factors, min_size=1, max_size=3), st.sampled_from([" AND ", " ", "\n"]))
    return whole.map(lambda written: Written(f"({written.text})", written.holds))


_spaces = st.sampled_from(["", " ", "  "])
comparisons = _texts() | _statuses() | _priorities() | _times() | _labels() | _presences()
filters = st.recursive(comparisons, _longer, max_leaves=12)


@pytest.fixture(scope="module")
async def filled(database: Database) -> tuple[Actor, Sequence[Task]]:
    """A user with tasks that differ in every field of a filter, some of them deleted, and another user with tasks of the same fields."""
    repository = PostgresTasks(database)
    actor, neighbour = Actor(new_id(), new_id(), ""), Actor(new_id(), new_id(), "")
    tasks = []
    for i in range(60):
        labels = tuple(label for j, label in enumerate(LABELS) if (i >> j) & 1)
        fields = TaskFields(TITLES[i % 5], DESCRIPTIONS[i % 3], Status(1 + i % 3), 1 + i % 5, DUE[i % 4], labels)
        await insert(repository, neighbour, fields)
        task = await insert(repository, actor, fields)
        if i % 7 == 0:
            await update(repository, actor, task.id, replace(fields, status=Status(1 + (i + 1) % 3)), ["status"])
        elif i % 7 == 1:
            await delete(repository, actor, task.id)
        tasks.append(task.id)
    # Reads the current tasks without a filter.
    rows = await database.fetch(f"SELECT {COLUMNS} FROM task.tasks WHERE user_id = $1", actor.user_id)
    found = {task.id: task for task in map(to_task, rows)}
    return actor, [found[task_id] for task_id in tasks]


@settings(max_examples=400)
@given(written=filters, show_deleted=st.booleans(), order=st.sampled_from(ORDERS))
async def test_a_filter_gives_what_it_says(
    tasks: PostgresTasks, filled: tuple[Actor, Sequence[Task]], written: Written, order: str, *, show_deleted: bool
) -> None:
    actor, every = filled
    wanted = {task.id for task in every if written.holds(task) and (show_deleted or task.deleted_at is None)}
    query = ListQuery(actor.user_id, None, None, parse_order(order), parse_filter(written.text), show_deleted)
    listed = await tasks.list(query, None, 0, 100, with_total=True)
    assert {task.id for task in listed.tasks} == wanted
    assert listed.total_size == len(wanted) == len(listed.tasks)


@settings(max_examples=100)
@given(written=filters, status=st.sampled_from(Status), priority=st.integers(1, 5))
async def test_status_and_priority_narrow_it(
    tasks: PostgresTasks, filled: tuple[Actor, Sequence[Task]], written: Written, status: Status, priority: int
) -> None:
    actor, every = filled
    wanted = {task.id for task in every if written.holds(task) and not task.deleted_at and (task.status, task.priority) == (status, priority)}
    query = ListQuery(actor.user_id, status, priority, parse_order(""), parse_filter(written.text))
    assert {task.id for task in (await tasks.list(query, None, 0, 100)).tasks} == wanted


@settings(max_examples=200, suppress_health_check=[*settings().suppress_health_check, HealthCheck.filter_too_much])
@given(
    name=st.sampled_from(["title=", "title:", "labels:", "description!="]),
    value=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40),
)
async def test_any_text_is_a_value(tasks: PostgresTasks, actor: Actor, name: str, value: str) -> None:
    """The text is never part of the statement."""
    query = ListQuery(actor.user_id, None, None, parse_order(""), parse_filter(f"{name}{_quoted(value)}"))
    sql, args = list_statement(query, None, 0, 10, with_total=False)
    assert value in args
    assert sql == list_statement(replace(query, filter=parse_filter(f'{name}"x"')), None, 0, 10, with_total=False)[0]
    assert (await tasks.list(query, None, 0, 10)).tasks == []


@pytest.mark.parametrize("show_deleted", [False, True])
@pytest.mark.parametrize("order", ["", "priority desc, due_date", "title, priority desc"])
async def test_every_value_is_bound_to_its_place(
    tasks: PostgresTasks, filled: tuple[Actor, Sequence[Task]], order: str, *, show_deleted: bool
) -> None:
    """A statement with all kinds of values: of the request, of the filter, of a position, and the numbers of rows."""
    actor, every = filled
    text = "priority >= 2 AND (title:a OR NOT labels:work) AND created_at > 2020-01-01"
    query = ListQuery(actor.user_id, None, 4, parse_order(order), parse_filter(text), show_deleted)
    whole = (await tasks.list(query, None, 0, 100)).tasks
    assert {task.id for task in whole} == {
        task.id
        for task in every
        if task.priority == 4 and ("a" in task.title.lower() or "work" not in task.labels) and (show_deleted or not task.deleted_at)
    }
    assert len(whole) >= 5
    for start, skip, limit in product(range(len(whole)), (0, 1, 2), (1, 3)):
        listed = await tasks.list(query, position_of(whole[start], query.order), skip, limit, with_total=True)
        assert listed.tasks == whole[start + 1 + skip :][:limit]
        assert listed.total_size == len(whole)


def test_lists_of_the_same_shape_have_the_same_statement() -> None:
    """The values are not part of it. The statement is built once."""

    def sql(text: str, priority: int, skip: int, limit: int) -> str:
        query = ListQuery(new_id(), None, priority, parse_order("due_date"), parse_filter(text))
        return list_statement(query, Position((DUE_LAST,), new_id()), skip, limit, with_total=True)[0]

    one = sql('title:"one" AND NOT (priority < 3 OR labels:a)', 1, 200, 21)
    assert sql("title:two NOT (priority < 4 OR labels:b)", 5, 300, 51) is one
    others = [("title:one AND NOT (priority <= 3 OR labels:a)", 1, 200), ("title:one AND NOT (priority < 3 OR labels:a)", 1, 0), ("", 1, 200)]
    assert one not in {sql(*other, 21) for other in others}


@settings(max_examples=300)
@given(
    text=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60)
    | st.lists(comparisons.map(repr) | st.sampled_from("()-"), max_size=6).map(" ".join)
)
async def test_any_text_is_answered_or_refused(tasks: PostgresTasks, actor: Actor, text: str) -> None:
    try:
        parsed = parse_filter(text)
    except InvalidField:
        return
    await tasks.list(ListQuery(actor.user_id, None, None, parse_order(""), parsed, show_deleted=True), None, 0, 10, with_total=True)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", [1, 2, 3]),
        ("status != COMPLETED", [1, 2]),
        ("NOT status = COMPLETED", [1, 2]),
        ("status = PENDING OR status = IN_PROGRESS", [1, 2]),
        ("NOT (status = COMPLETED OR priority = 1)", [1, 2]),
        ("status != COMPLETED AND status != PENDING", [2]),
        ("status = PENDING", [1]),
        ("status = PENDING status = COMPLETED", []),
    ],
)
def test_a_list_is_read_by_status(text: str, read: list[int]) -> None:
    """However the filter is written, the statement reads once for each status that a task of the list can have."""
    query = ListQuery(new_id(), None, None, parse_order(""), parse_filter(text))
    sql, _ = list_statement(query, None, 0, 10, with_total=False)
    assert [int(number) for number in re.findall(r"status = (\d)", sql)] == read
    assert (" AND false" in sql) == (read == [])


async def test_the_number_of_the_last_change_comes_with_every_list(tasks: PostgresTasks, actor: Actor) -> None:
    query = ListQuery(actor.user_id, None, None, parse_order(""))
    assert (await tasks.list(query, None, 0, 10)).place.seq == 0
    made = await insert(tasks, actor, FIELDS)
    await insert(tasks, actor, FIELDS)
    assert [(await tasks.list(query, None, 0, limit)).place.seq for limit in (1, 10)] == [2, 2]
    await delete(tasks, actor, made.id)
    nothing = replace(query, filter=parse_filter("title:nothing"))
    empty = await tasks.list(nothing, None, 0, 10, with_total=True)
    assert (empty.tasks, empty.place.seq, empty.total_size) == ([], 3, 0)


async def test_the_total_is_of_all_pages(tasks: PostgresTasks, actor: Actor) -> None:
    for i in range(5):
        await insert(tasks, actor, replace(FIELDS, labels=("odd",) if i % 2 else ()))
    deleted = await insert(tasks, actor, replace(FIELDS, labels=("odd",)))
    await delete(tasks, actor, deleted.id)
    query = ListQuery(actor.user_id, None, None, parse_order(""))
    odd = replace(query, filter=parse_filter("labels:odd"))
    for each, total in ((query, 5), (odd, 2), (replace(query, show_deleted=True), 6), (replace(odd, show_deleted=True), 3)):
        for skip in (0, 1, 50):
            listed = await tasks.list(each, None, skip, 1, with_total=True)
            assert (listed.total_size, len(listed.tasks)) == (total, int(skip < total))
        assert (await tasks.list(each, None, 0, 1)).total_size is None
