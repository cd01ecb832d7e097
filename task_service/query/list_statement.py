"""Builds the statement of a list. It is a single statement, so that the page, the count and the place in the user's change log have one snapshot.

The statement reads the tasks that are not deleted. If an index has the list's order, the statement reads that index once for each status, or the
index of labels once for each of its parts, and merges the rows. With `show_deleted` it also reads the deleted tasks, which are few. SQL is assembled
only from the constants of this module and of condition_sql; clients' values are always parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from task_service.query.condition_sql import about_status_alone, sql_of, status_sql, statuses_of
from task_service.query.domain import Comparison, Condition, Field, Operator, Status
from task_service.query.list_query import ListQuery, Position, SortValue
from task_service.query.order import NEWEST_FIRST, Order, OrderField, OrderKey

COLUMN_NAMES: Final = (
    *("user_id", "id", "title", "description", "status", "priority", "due_date", "labels"),
    *("created_at", "updated_at", "completed_at", "deleted_at", "version"),
)
# In a list, a task without a due date comes last in both directions.
_NO_DUE_DATE: Final = {False: "infinity", True: "-infinity"}

PLACE: Final = "(SELECT epoch FROM task.feed) AS epoch, COALESCE((SELECT last_seq FROM task.counters WHERE user_id = $1), 0) AS last_seq"
TASKS: Final = "task.tasks"
# The columns of task_labels have other names here, so that a name that both tables have means the column of the task. LIMIT 1 does not change the
# result, but makes PostgreSQL look up the tasks one by one. For a plain join the planner assumes that the keys are independent, expects almost no
# rows, and reads far ahead.
LABELLED: Final = (
    "(SELECT task_id, created_at AS labelled_at FROM task.task_labels WHERE user_id = $1 AND label = {label} AND {completed}) AS labelled"
    " CROSS JOIN LATERAL (SELECT * FROM task.tasks WHERE user_id = $1 AND id = task_id LIMIT 1) AS labelled_task"
)
# In this source, the columns that hold a task's position in the order.
PLACE_OF_LABELLED: Final[Mapping[str, str]] = {"created_at": "labelled_at", "id": "task_id"}
# The conditions that select the two parts of the labels' index, and the statuses in each part.
COMPLETED: Final[Mapping[str, frozenset[Status]]] = {
    "NOT completed": frozenset({Status.PENDING, Status.IN_PROGRESS}),
    "completed": frozenset({Status.COMPLETED}),
}


class Parameters:
    """The parameters of a statement. The first is the user's id."""

    def __init__(self, *values: object) -> None:
        self.values = list(values)

    def __call__(self, value: object) -> str:
        """Adds a value and returns its placeholder."""
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True, slots=True)
class Key:
    """A sort key: its SQL, and its name among the columns of the list. `turned` means that the SQL negates the value."""

    sql: str
    name: str
    descending: bool
    turned: bool = False


# The orders for which the tasks of one status have an index, in both directions: see migrations/0003_lists.sql.
DUE_DATE: Final = f"COALESCE(due_date, '{_NO_DUE_DATE[False]}')"
SERVED: Final = frozenset({("created_at", "id"), (DUE_DATE, "id"), ("(-priority)", DUE_DATE, "id")})


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
    parameters = Parameters(query.user_id)
    keys = _keys(query.order)
    sources = _sources(query, keys, parameters)
    position = [] if after is None else [parameters(value) for value in _values(after, keys)]
    columns = [*COLUMN_NAMES, *(f"{key.sql} AS {key.name}" for key in keys if key.name not in COLUMN_NAMES)]
    order = ", ".join(f"{key.name} {'DESC' if key.descending else 'ASC'}" for key in keys)
    page = _page([source.rows(columns, *_behind(keys, position, source.place)) for source in sources], order, skip, limit, parameters)
    counted = f", ({_total(query, sources)}) AS total_size" if with_total else ""
    # Sorted once more, because a join guarantees no order. A page is small, so this is cheap.
    sql = f"SELECT page.*, list.* FROM (SELECT {PLACE}{counted}) AS list LEFT JOIN ({page}) AS page ON true ORDER BY {order}"  # noqa: S608
    return sql, parameters.values


def _page(sources: Sequence[str], order: str, skip: int, limit: int, parameters: Parameters) -> str:
    """Returns a query for the first rows of all sources together. PostgreSQL reads each source only as far as it needs.

    A generic plan does not know the value of a parameter: the planner assumes that an unknown LIMIT returns a tenth of the rows, and prefers to sort.
    So each source also has a literal LIMIT, which shows how few rows are needed. It is a power of ten, so that there are few different statements.
    """
    few = " UNION ALL ".join(f"({source} ORDER BY {order} LIMIT {10 ** len(str(skip + limit))})" for source in sources)
    offset = f" OFFSET {parameters(skip)}" if skip else ""
    return f"SELECT * FROM ({few}) AS found ORDER BY {order} LIMIT {parameters(limit)}{offset}"  # noqa: S608


def _sources(query: ListQuery, keys: Sequence[Key], parameters: Parameters) -> list[Source]:
    conditions = query.conditions()
    statuses = statuses_of(conditions)
    label = _leading_label(query.order, conditions) if statuses else None
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
        split = tuple(key.sql for key in keys) in SERVED and statuses
        groups = [frozenset({status}) for status in sorted(statuses)] if split else [statuses]
        sources = [Source(TASKS, ["user_id = $1", "deleted_at IS NULL", *status_sql(group), *terms], {}) for group in groups]
    if query.show_deleted:
        sources.append(Source(TASKS, ["user_id = $1", "deleted_at IS NOT NULL", *status_sql(statuses), *terms, *labelled], {}))
    return sources


def _among(statuses: frozenset[Status], group: frozenset[Status]) -> list[str]:
    """Returns the terms that restrict tasks of the group to the statuses."""
    return [] if group <= statuses else status_sql(statuses & group)


def _leading_label(order: Order, conditions: Sequence[Condition]) -> Comparison | None:
    """Returns a condition whose label has an index with the list's order, or None."""
    if [key.field for key in order] != [key.field for key in NEWEST_FIRST]:
        return None
    for condition in conditions:
        if isinstance(condition, Comparison) and (condition.field, condition.operator, condition.negated) == (Field.LABELS, Operator.HAS, False):
            return condition
    return None


def _total(query: ListQuery, sources: Sequence[Source]) -> str:
    """Returns a query for the number of tasks in the list. The counter has the numbers of tasks that are not deleted, by status."""
    if not about_status_alone(query.conditions()):
        return _count(sources)
    numbers = " + ".join(status.name.lower() for status in sorted(statuses_of(query.conditions()))) or "0"
    counted = f"SELECT COALESCE((SELECT {numbers} FROM task.counters WHERE user_id = $1), 0)"  # noqa: S608
    # The source of the deleted tasks is the last one.
    return f"{counted} + ({_count(sources[-1:])})" if query.show_deleted else counted


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
        case OrderField.DUE_DATE:
            return Key(f"COALESCE(due_date, '{_NO_DUE_DATE[key.descending]}')", "due_date_key", key.descending)
        case OrderField.TITLE:
            return Key('title COLLATE "C"', "title_key", key.descending)
        case _:
            return Key(name, name, key.descending)


def _values(position: Position, keys: Sequence[Key]) -> list[SortValue | object]:
    turned = [-value if key.turned and isinstance(value, int) else value for key, value in zip(keys, position.values, strict=False)]
    return [*turned, position.id]


def _behind(keys: Sequence[Key], values: Sequence[str], place: Mapping[str, str]) -> list[str]:
    """Returns the terms for rows after a position: a row comparison if all keys have one direction, else the equivalent comparisons."""
    if not values:
        return []
    columns = [place.get(key.sql, key.sql) for key in keys]
    signs = ["<" if key.descending else ">" for key in keys]
    if len(set(signs)) == 1:
        return [f"({', '.join(columns)}) {signs[0]} ({', '.join(values)})"]
    cases = []
    for i, (column, sign) in enumerate(zip(columns, signs, strict=True)):
        equal = [f"{columns[j]} = {values[j]}" for j in range(i)]
        cases.append(" AND ".join([*equal, f"{column} {sign} {values[i]}"]))
    # The second term implies the first, but only the first lets PostgreSQL start an index scan at the position.
    return [f"{columns[0]} {signs[0]}= {values[0]}", f"({' OR '.join(f'({case})' for case in cases)})"]
