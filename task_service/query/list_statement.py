"""The statement of a list: a single one, so that the page, the count and the place in the user's change log are of one snapshot.

Its rows come from the tasks that are not deleted, by an index that has their order, once for each status, or by way of a label; all merged. With the
deleted ones, which are few, from those as well. SQL is put together from the constants of this module and of condition_sql alone; values are always
parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from task_service.query.condition_sql import sql_of, status_sql, statuses_of
from task_service.query.domain import Comparison, Condition, Field, Operator, Status
from task_service.query.list_query import ListQuery, Position, SortValue
from task_service.query.order import NEWEST_FIRST, Order, OrderField, OrderKey

COLUMN_NAMES: Final = (
    *("user_id", "id", "title", "description", "status", "priority", "due_date", "labels"),
    *("created_at", "updated_at", "completed_at", "deleted_at", "version"),
)
# In a list a task without a due date comes last, whatever the direction.
_NO_DUE_DATE: Final = {False: "infinity", True: "-infinity"}

PLACE: Final = "(SELECT epoch FROM task.feed) AS epoch, COALESCE((SELECT last_seq FROM task.counters WHERE user_id = $1), 0) AS last_seq"
TASKS: Final = "task.tasks"
# The labels' own columns under other names, since those of the tasks are meant wherever both have one. LIMIT 1 changes nothing but that tasks are
# looked up one after another: of a plain join the planner, which takes the keys to be independent, expects next to nothing, and reads far ahead.
LABELLED: Final = (
    "(SELECT task_id, created_at AS labelled_at FROM task.task_labels WHERE user_id = $1 AND label = {label} AND {completed}) AS labelled"
    " CROSS JOIN LATERAL (SELECT * FROM task.tasks WHERE user_id = $1 AND id = task_id LIMIT 1) AS labelled_task"
)
# What gives a task's place there.
PLACE_OF_LABELLED: Final[Mapping[str, str]] = {"created_at": "labelled_at", "id": "task_id"}
# The statuses that its index keeps apart.
COMPLETED: Final[Mapping[str, frozenset[Status]]] = {
    "NOT completed": frozenset({Status.PENDING, Status.IN_PROGRESS}),
    "completed": frozenset({Status.COMPLETED}),
}


class Parameters:
    """The values of a statement. The first is the user's id."""

    def __init__(self, *values: object) -> None:
        self.values = list(values)

    def __call__(self, value: object) -> str:
        """Adds one, and returns how it is written in the statement."""
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the order: in SQL, and the name that it has among a list's columns. `turned`: it is the value with the other sign."""

    sql: str
    name: str
    descending: bool
    turned: bool = False


# The orders that an index has for the tasks of one status, in either direction: see migrations/0003_lists.sql.
DUE_DATE: Final = f"COALESCE(due_date, '{_NO_DUE_DATE[False]}')"
SERVED: Final = frozenset({("created_at", "id"), (DUE_DATE, "id"), ("(-priority)", DUE_DATE, "id")})


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from and which they are. `place` has the columns that stand for others of the task."""

    tables: str
    terms: Sequence[str]
    place: Mapping[str, str]

    def rows(self, columns: Sequence[str], *more_terms: str) -> str:
        """The rows as a query."""
        selected = ", ".join(f"{self.place[name]} AS {name}" if name in self.place else name for name in columns)
        return f"SELECT {selected} FROM {self.tables} WHERE {' AND '.join([*self.terms, *more_terms])}"  # noqa: S608


def list_statement(query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool) -> tuple[str, list[object]]:
    """The statement and its parameters.

    Its rows have a task's columns, null in the one row of an empty page, then epoch, last_seq and, if wanted, total_size.
    """
    parameters = Parameters(query.user_id)
    keys = _keys(query.order)
    sources = _sources(query, keys, parameters)
    position = [] if after is None else [parameters(value) for value in _values(after, keys)]
    columns = [*COLUMN_NAMES, *(f"{key.sql} AS {key.name}" for key in keys if key.name not in COLUMN_NAMES)]
    order = ", ".join(f"{key.name} {'DESC' if key.descending else 'ASC'}" for key in keys)
    page = _page([source.rows(columns, *_behind(keys, position, source.place)) for source in sources], order, skip, limit, parameters)
    counted = f", ({_count(sources)}) AS total_size" if with_total else ""
    # Ordered once more since a join promises no order. It is a page, so it costs next to nothing.
    sql = f"SELECT page.*, list.* FROM (SELECT {PLACE}{counted}) AS list LEFT JOIN ({page}) AS page ON true ORDER BY {order}"  # noqa: S608
    return sql, parameters.values


def _page(sources: Sequence[str], order: str, skip: int, limit: int, parameters: Parameters) -> str:
    """The first rows of all sources together, which are read from each only as far as they are wanted.

    A generic plan does not know a parameter: of an unknown LIMIT it thinks that it lets a tenth through, and rather sorts. So each source is bounded
    by a number in round figures as well, which shows how few are wanted, and makes but few different statements.
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
        # Where all are sorted anyway, or there are none, once is enough.
        split = tuple(key.sql for key in keys) in SERVED and statuses
        groups = [frozenset({status}) for status in sorted(statuses)] if split else [statuses]
        sources = [Source(TASKS, ["user_id = $1", "deleted_at IS NULL", *status_sql(group), *terms], {}) for group in groups]
    if query.show_deleted:
        sources.append(Source(TASKS, ["user_id = $1", "deleted_at IS NOT NULL", *status_sql(statuses), *terms, *labelled], {}))
    return sources


def _among(statuses: frozenset[Status], group: frozenset[Status]) -> list[str]:
    """The terms by which tasks of a group have one of the statuses."""
    return [] if group <= statuses else status_sql(statuses & group)


def _leading_label(order: Order, conditions: Sequence[Condition]) -> Comparison | None:
    """The condition by whose label the list can be read in its order, if there is one."""
    if [key.field for key in order] != [key.field for key in NEWEST_FIRST]:
        return None
    for condition in conditions:
        if isinstance(condition, Comparison) and (condition.field, condition.operator, condition.negated) == (Field.LABELS, Operator.HAS, False):
            return condition
    return None


def _count(sources: Sequence[Source]) -> str:
    rows = " UNION ALL ".join(source.rows(["id"]) for source in sources)
    return f"SELECT count(*) FROM ({rows}) AS matching"  # noqa: S608


def _keys(order: Order) -> list[Key]:
    """The keys in SQL, all in one direction if possible. Ties go by id in the direction of the last, so that one index serves a list either way."""
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
    """The condition of being behind a position: a row comparison if all keys have one direction, else what it means written out."""
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
    # The bound on the first key is contained in the rest, but only this form lets an index begin there.
    return [f"{columns[0]} {signs[0]}= {values[0]}", f"({' OR '.join(f'({case})' for case in cases)})"]
