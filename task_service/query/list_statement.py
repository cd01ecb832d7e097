"""Builds the statement of a list. It is a single statement, so that the page, the count and the place in the user's change log have one snapshot.

The statement reads the tasks that are not deleted. If an index has the list's order, the statement reads that index once for each status, or the
index of labels once for each of its parts, and merges the rows. With `show_deleted` it also reads the deleted tasks, which are few. SQL is assembled
only from the constants of this module and of condition_sql; clients' values are always parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from task_service.query.condition_sql import about_status_alone, folded, sql_of, status_sql, statuses_of
from task_service.query.domain import Comparison, Condition, Field, Operator, Slot, Status
from task_service.query.list_query import ListQuery, Position, SortValue
from task_service.query.order import NEWEST_FIRST, Order, OrderField, OrderKey

COLUMN_NAMES: Final = (
    *("user_id", "id", "title", "description", "status", "priority", "due_date", "labels"),
    *("created_at", "updated_at", "completed_at", "deleted_at", "version", "project_id", "parent_id", "position"),
    *("due_on", "time_zone", "recurrence", "previous_id", "next_id", "reminders"),
)
# In a list, a task without a due date comes last in both directions.
_NO_DUE_DATE: Final = {False: "infinity", True: "-infinity"}

# A statement takes 1 KB to 20 KB. Most clients use few shapes.
CACHED_STATEMENTS: Final = 256

PLACE: Final = "(SELECT epoch FROM task.feed) AS epoch, COALESCE((SELECT last_seq FROM task.counters WHERE user_id = $1), 0) AS last_seq"
TASKS: Final = "task.tasks"
# The columns of task_labels have other names here, so that a name that both tables have means the column of the task. LIMIT 1 does not change the
# result, but makes PostgreSQL look up the tasks one by one. For a plain join the planner assumes that the keys are independent, expects almost no
# rows, and reads far ahead.
LABELLED: Final = (
    "(SELECT task_id, created_at AS labelled_at FROM task.task_labels WHERE user_id = $1 AND label = {label} AND {completed}) AS labelled"
    " CROSS JOIN LATERAL (SELECT * FROM task.tasks WHERE user_id = $1 AND id = task_id LIMIT 1) AS labelled_task"
)
# The task of a row that was found by its place in the order.
TASK_AT_PLACE: Final = "SELECT * FROM task.tasks WHERE user_id = $1 AND id = place.id LIMIT 1"
# In this source, the columns that hold a task's position in the order.
PLACE_OF_LABELLED: Final[Mapping[str, str]] = {"created_at": "labelled_at", "id": "task_id"}
# The conditions that select the two parts of the labels' index, and the statuses in each part.
COMPLETED: Final[Mapping[str, frozenset[Status]]] = {
    "NOT completed": frozenset({Status.PENDING, Status.IN_PROGRESS}),
    "completed": frozenset({Status.COMPLETED}),
}


class Shape(NamedTuple):
    """What the SQL of a list depends on. Lists that differ only in values have the same shape, and so the same statement."""

    order: Order
    conditions: tuple[Condition, ...]
    values: int  # the number of slots in the conditions
    show_deleted: bool
    continued: bool  # the page begins after a position
    skipping: bool
    rows: int  # a power of ten, and more than the rows that the statement walks over and returns
    counted: bool


@dataclass(frozen=True, slots=True)
class Parameters:
    """The placeholders of a statement: of the user's id, the maximum number of rows, the slots' values, the position, the number of rows to skip."""

    values: int
    position: int

    def __call__(self, value: object) -> str:
        """Returns the placeholder for a slot."""
        assert isinstance(value, Slot)
        return f"${3 + value.number}"

    def of_limit(self) -> str:
        """Returns the placeholder for the maximum number of rows."""
        return "$2"

    def of_position(self) -> list[str]:
        """Returns the placeholders for the values of the position."""
        return [f"${3 + self.values + i}" for i in range(self.position)]

    def of_skip(self) -> str:
        """Returns the placeholder for the number of rows to skip."""
        return f"${3 + self.values + self.position}"


@dataclass(frozen=True, slots=True)
class Key:
    """A sort key: its SQL, and its name among the columns of the list. `turned` means that the SQL negates the value."""

    sql: str
    name: str
    descending: bool
    turned: bool = False


# By the code points of the folded title.
TITLE_KEY: Final = '{} COLLATE "C"'
TITLE: Final = TITLE_KEY.format(folded("title"))
# The orders for which the tasks of one status have an index, in both directions: see migrations/0003_lists.sql and 0011_text.sql.
DUE_DATE: Final = f"COALESCE(due_date, '{_NO_DUE_DATE[False]}')"
# A task from before there were positions has that of its id: see migrations/0014_lists_of_projects.sql.
PLACE_KEY: Final = "COALESCE(position, '0' || encode(uuid_send(id), 'hex'))"
SERVED: Final = frozenset({("created_at", "id"), (DUE_DATE, "id"), ("(-priority)", DUE_DATE, "id"), ("(-priority)", TITLE, "id")})
# The first keys of the indexes. For any other order that begins with one of them, PostgreSQL reads an index, and sorts only the tasks that have the
# same value.
PRESORTED: Final = frozenset({"created_at", DUE_DATE, "priority", "(-priority)"})
# To walk over as many entries of an index takes PostgreSQL about a millisecond.
CHEAP_SKIP: Final = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """A source of rows: tables and conditions. `place` maps columns of the task to columns of the source that replace them."""

    tables: str
    terms: Sequence[str]
    place: Mapping[str, str]

    def rows(self, columns: Sequence[str], *more_terms: str) -> str:
        """Returns a query for the rows."""
        selected = ", ".join(f"{self.place[name]} AS {name}" if name in self.place else name for name in columns)
        return f"SELECT {selected} FROM {self.tables} WHERE {' AND '.join([*self.terms, *more_terms])}"  # noqa: S608


def list_statement(query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool) -> tuple[str, list[object]]:
    """Returns the statement and its parameters.

    Its rows have the task's columns, then epoch, last_seq and, if `with_total`, total_size. An empty page is one row whose task columns are null.
    """
    conditions, values = query.conditions()
    rows = 10 ** len(str(skip + limit))
    shape = Shape(query.order, conditions, len(values), query.show_deleted, after is not None, skip > 0, rows, with_total)
    position = _values(after, query.order) if after else ()
    return _sql(shape), [query.user_id, limit, *values, *position, *((skip,) if skip else ())]


def is_expensive(query: ListQuery, skip: int, *, with_total: bool) -> bool:
    """Whether PostgreSQL may read many tasks for one page: to search, sort or count them, or because it skips more than CHEAP_SKIP of them."""
    conditions = query.conditions()[0]
    return (
        skip > CHEAP_SKIP or (query.show_deleted and _reads_all_deleted(query.order, conditions)) or _reads_many(query.order, conditions, with_total)
    )


@lru_cache(CACHED_STATEMENTS)
def _reads_many(order: Order, conditions: tuple[Condition, ...], with_total: bool) -> bool:  # noqa: FBT001 - lru_cache is cheaper for positions
    if about_status_alone(conditions):
        return tuple(key.sql for key in _keys(order)) not in SERVED
    others = [condition for condition in conditions if not about_status_alone([condition])]
    if any(map(_is_of_few, others)) or (order[0].field is OrderField.POSITION and not with_total and all(map(_is_of_project, others))):
        return False
    return with_total or len(others) > 1 or not _is_by_creation(order) or not _is_served(others[0])


def _reads_all_deleted(order: Order, conditions: tuple[Condition, ...]) -> bool:
    """Whether PostgreSQL may read all deleted tasks: the one index that they have serves the order of `created_at`, and no condition."""
    return bool(conditions) or not _is_by_creation(order)


def _is_of_few(condition: Condition) -> bool:
    """Whether the condition is true for few tasks, which an index has: the subtasks of a task."""
    return isinstance(condition, Comparison) and (condition.field, condition.operator, condition.negated) == (Field.PARENT_ID, Operator.EQUAL, False)


def _is_of_project(condition: Condition) -> bool:
    """Whether an index has the tasks for which the condition is true, in the order of `position`: those of a project, or of the inbox."""
    if not isinstance(condition, Comparison) or condition.field is not Field.PROJECT_ID:
        return False
    return (condition.operator, condition.negated) in {(Operator.EQUAL, False), (Operator.PRESENT, True)}


def _is_of_inbox(condition: Condition) -> bool:
    return _is_of_project(condition) and isinstance(condition, Comparison) and condition.operator is Operator.PRESENT


def _is_served(condition: Condition) -> bool:
    """Whether an index has the tasks for which the condition is true, in the order of `created_at`."""
    if not isinstance(condition, Comparison) or condition.negated:
        return False
    return (condition.field, condition.operator) in {(Field.LABELS, Operator.HAS), (Field.PRIORITY, Operator.EQUAL)}


@lru_cache(CACHED_STATEMENTS)
def _sql(shape: Shape) -> str:
    keys = _keys(shape.order)
    parameters = Parameters(shape.values, len(keys) if shape.continued else 0)
    sources = _sources(shape, keys, parameters)
    page = _page_after_skip(shape, sources, keys, parameters) if shape.skipping else _page(shape, sources, keys, parameters)
    counted = f", ({_total(shape, sources)}) AS total_size" if shape.counted else ""
    # Sorted once more, because a join guarantees no order. A page is small, so this is cheap.
    return f"SELECT page.*, list.* FROM (SELECT {PLACE}{counted}) AS list LEFT JOIN ({page}) AS page ON true ORDER BY {_order(keys)}"  # noqa: S608


def _page(shape: Shape, sources: Sequence[Source], keys: Sequence[Key], parameters: Parameters) -> str:
    return f"{_merged(shape, sources, keys, COLUMN_NAMES, parameters)} LIMIT {parameters.of_limit()}"


def _page_after_skip(shape: Shape, sources: Sequence[Source], keys: Sequence[Key], parameters: Parameters) -> str:
    """Returns a query for the page after the skipped tasks. PostgreSQL walks over these in the index, and looks up only the tasks of the page."""
    selected = ", ".join([*(f"task.{name}" for name in COLUMN_NAMES), *(f"place.{key.name}" for key in keys if key.name not in COLUMN_NAMES)])
    walk = _walk(shape, sources, keys, parameters)
    return f"SELECT {selected} FROM ({walk}) AS place CROSS JOIN LATERAL ({TASK_AT_PLACE}) AS task"  # noqa: S608


def _walk(shape: Shape, sources: Sequence[Source], keys: Sequence[Key], parameters: Parameters) -> str:
    """Returns a query for the values of the sort keys of the page's tasks. If the counter has the length of the list, it begins at the nearer end."""
    limit, skip = parameters.of_limit(), parameters.of_skip()
    names = [key.name for key in keys if key.name in COLUMN_NAMES]
    forwards = f"{_merged(shape, sources, keys, names, parameters)} LIMIT {limit} OFFSET {skip}"
    if shape.continued or shape.show_deleted or not about_status_alone(shape.conditions):
        return forwards
    behind = f"(({_total(shape, sources)}) - {skip})"
    backwards = _merged(shape, sources, [replace(key, descending=not key.descending) for key in keys], names, parameters)
    # PostgreSQL executes only one of the two, because it evaluates the conditions first: they are about no row.
    return (
        f"(SELECT * FROM ({forwards}) AS forwards WHERE {skip} <= {behind})"  # noqa: S608
        f" UNION ALL (SELECT * FROM ({backwards} LIMIT greatest(least({limit}, {behind}), 0) OFFSET greatest({behind} - {limit}, 0)) AS backwards"
        f" WHERE {skip} > {behind})"
    )


def _merged(shape: Shape, sources: Sequence[Source], keys: Sequence[Key], names: Sequence[str], parameters: Parameters) -> str:
    """Returns a query for the rows of all sources together, in order. PostgreSQL reads each source only as far as it needs.

    A generic plan does not know the value of a parameter: the planner assumes that an unknown LIMIT returns a tenth of the rows, and prefers to sort.
    So each source also has a literal LIMIT, which shows how few rows are needed. It is a power of ten, so that there are few different statements.
    """
    ahead = _ahead(shape, keys)
    plain = [*names, *(key.name for key in ahead if key.name not in names)]
    columns = [*plain, *(f"{key.sql} AS {key.name}" for key in keys if key.name not in COLUMN_NAMES)]
    position = parameters.of_position()
    each = [source.rows(columns, *_behind(keys, position, source.place)) for source in sources]
    order = _order([*ahead, *keys])
    few = " UNION ALL ".join(f"({source} ORDER BY {order} LIMIT {shape.rows})" for source in each)
    return f"SELECT * FROM ({few}) AS found ORDER BY {order}"  # noqa: S608


def _ahead(shape: Shape, keys: Sequence[Key]) -> list[Key]:
    """Returns a key before the others that is NULL in all rows, if the list is the inbox in the order of positions.

    PostgreSQL takes the index for ordered by position only if the statement names the column before it; one that equals a value needs no naming.
    """
    if keys[0].sql == PLACE_KEY and any(map(_is_of_inbox, shape.conditions)):
        return [Key("project_id", "project_id", keys[0].descending)]
    return []


def _order(keys: Sequence[Key]) -> str:
    return ", ".join(f"{key.name} {'DESC' if key.descending else 'ASC'}" for key in keys)


def _sources(shape: Shape, keys: Sequence[Key], parameters: Parameters) -> list[Source]:
    conditions = shape.conditions
    statuses = statuses_of(conditions)
    label = _leading_label(shape.order, conditions) if statuses else None
    terms = sql_of([condition for condition in conditions if condition is not label], parameters)
    labelled = []
    if label is not None:
        written = parameters(label.value)
        labelled = [f"{written} = ANY (labels)"]
        sources = [
            Source(LABELLED.format(label=written, completed=which), ["deleted_at IS NULL", *_among(statuses, group), *terms], PLACE_OF_LABELLED)
            for which, group in COMPLETED.items()
            if statuses & group
        ]
    else:
        # If PostgreSQL sorts all tasks anyway, or no status is left, one source is enough.
        split = keys[0].sql in PRESORTED and statuses
        groups = [frozenset({status}) for status in sorted(statuses)] if split else [statuses]
        sources = [Source(TASKS, ["user_id = $1", "deleted_at IS NULL", *status_sql(group), *terms], {}) for group in groups]
    if shape.show_deleted:
        sources.append(Source(TASKS, ["user_id = $1", "deleted_at IS NOT NULL", *status_sql(statuses), *terms, *labelled], {}))
    return sources


def _among(statuses: frozenset[Status], group: frozenset[Status]) -> list[str]:
    """Returns the terms that restrict tasks of the group to the statuses."""
    return [] if group <= statuses else status_sql(statuses & group)


def _leading_label(order: Order, conditions: Sequence[Condition]) -> Comparison | None:
    """Returns a condition whose label has an index with the list's order, or None."""
    if not _is_by_creation(order):
        return None
    for condition in conditions:
        if isinstance(condition, Comparison) and (condition.field, condition.operator, condition.negated) == (Field.LABELS, Operator.HAS, False):
            return condition
    return None


def _is_by_creation(order: Order) -> bool:
    return [key.field for key in order] == [key.field for key in NEWEST_FIRST]


def _total(shape: Shape, sources: Sequence[Source]) -> str:
    """Returns a query for the number of tasks in the list. The counter has the numbers of tasks that are not deleted, by status."""
    if not about_status_alone(shape.conditions):
        return _count(sources)
    numbers = " + ".join(status.name.lower() for status in sorted(statuses_of(shape.conditions))) or "0"
    counted = f"SELECT COALESCE((SELECT {numbers} FROM task.counters WHERE user_id = $1), 0)"  # noqa: S608
    # The source of the deleted tasks is the last one.
    return f"{counted} + ({_count(sources[-1:])})" if shape.show_deleted else counted


def _count(sources: Sequence[Source]) -> str:
    rows = " UNION ALL ".join(source.rows(["id"]) for source in sources)
    return f"SELECT count(*) FROM ({rows}) AS matching"  # noqa: S608


def _keys(order: Order) -> list[Key]:
    """Returns the sort keys, all in one direction if possible. The id breaks ties in the last key's direction, so one index serves both."""
    last = order[-1].descending
    return [*(_key(key, wanted=last) for key in order), Key("id", "id", last)]


def _key(key: OrderKey, *, wanted: bool) -> Key:
    name = key.field.name.lower()
    match key.field:
        case OrderField.PRIORITY if key.descending != wanted:
            return Key("(-priority)", "priority_key", wanted, turned=True)
        case OrderField.DUE_DATE | OrderField.DUE_AT:
            return Key(f"COALESCE(due_date, '{_NO_DUE_DATE[key.descending]}')", "due_date_key", key.descending)
        case OrderField.DUE_ON:
            return Key(f"COALESCE(due_on, '{_NO_DUE_DATE[key.descending]}')", "due_on_key", key.descending)
        case OrderField.TITLE:
            return Key(TITLE, "title_key", key.descending)
        case OrderField.POSITION:
            return Key(PLACE_KEY, "place_key", key.descending)
        case _:
            return Key(name, name, key.descending)


def _values(position: Position, order: Order) -> list[SortValue | UUID]:
    turned = [-value if key.turned and isinstance(value, int) else value for key, value in zip(_keys(order), position.values, strict=False)]
    return [*turned, position.id]


def _behind(keys: Sequence[Key], values: Sequence[str], place: Mapping[str, str]) -> list[str]:
    """Returns the terms for rows after a position: a row comparison if all keys have one direction, else the equivalent comparisons."""
    if not values:
        return []
    columns = [place.get(key.sql, key.sql) for key in keys]
    # PostgreSQL folds the title at the position too, so both keys have the same version of Unicode.
    values = [TITLE_KEY.format(folded(f"{value}::text")) if key.sql == TITLE else value for key, value in zip(keys, values, strict=True)]
    signs = ["<" if key.descending else ">" for key in keys]
    if len(set(signs)) == 1:
        return [f"({', '.join(columns)}) {signs[0]} ({', '.join(values)})"]
    cases = []
    for i, (column, sign) in enumerate(zip(columns, signs, strict=True)):
        equal = [f"{columns[j]} = {values[j]}" for j in range(i)]
        cases.append(" AND ".join([*equal, f"{column} {sign} {values[i]}"]))
    # The second term implies the first, but only the first lets PostgreSQL start an index scan at the position.
    return [f"{columns[0]} {signs[0]}= {values[0]}", f"({' OR '.join(f'({case})' for case in cases)})"]
