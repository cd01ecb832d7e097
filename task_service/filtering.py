"""Which tasks a list has, in which order, and where its pages begin. Values only: the SQL of it is the repository's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from servicekit.errors import InvalidPageToken
from servicekit.paging import Key
from task_service.conditions import Comparison, Condition, Field, Filter, Operator, conjuncts
from task_service.domain import Order, OrderField, OrderKey, Status, Task
from task_service.times import from_micros, to_micros

# What stands for "no due date", so that such tasks come last in either direction. PostgreSQL has them as infinity and -infinity.
_LAST = {False: datetime.max.replace(tzinfo=UTC), True: datetime.min.replace(tzinfo=UTC)}

SortValue = str | int | datetime


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list is asked for. Everything in it must stay the same from page to page. `show_deleted`: deleted tasks as well (AIP-164)."""

    user_id: UUID
    status: Status | None
    priority: int | None
    order: Order
    filter: Filter | None = None
    show_deleted: bool = False

    def identity(self) -> list[Key]:
        """The query in a form that a page token can be bound to."""
        order = [item for key in self.order for item in (int(key.field), int(key.descending))]
        identity = ["ListTasks", str(self.user_id), self.status, self.priority, *order]
        # Only where they are used: tokens of before there were filters stay good.
        return [*identity, self.filter.text if self.filter else None, int(self.show_deleted)] if self.filter or self.show_deleted else identity

    def conditions(self) -> tuple[Condition, ...]:
        """What must all be true of a task for it to be in the list."""
        conditions: list[Condition] = []
        if self.status is not None:
            conditions.append(Comparison(Field.STATUS, Operator.EQUAL, self.status))
        if self.priority is not None:
            conditions.append(Comparison(Field.PRIORITY, Operator.EQUAL, self.priority))
        return (*conditions, *(conjuncts(self.filter.condition) if self.filter else ()))


@dataclass(frozen=True, slots=True)
class Position:
    """A place in an ordered list: behind the task with these values of the order's keys and this id."""

    values: tuple[SortValue, ...]
    id: UUID


def position_of(task: Task, order: Order) -> Position:
    """The place right behind `task`."""
    return Position(tuple(_sort_value(task, key) for key in order), task.id)


def to_token(position: Position) -> list[Key]:
    """The position as a page token carries it."""
    return [*(to_micros(value) if isinstance(value, datetime) else value for value in position.values), str(position.id)]


def from_token(keys: Sequence[Key], order: Order) -> Position:
    """The position in a page token of a query with that order. Raises InvalidPageToken if it is of another form."""
    *values, last = keys
    try:
        return Position(tuple(_parse(value, key) for value, key in zip(values, order, strict=True)), UUID(str(last)))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidPageToken from error


def _sort_value(task: Task, key: OrderKey) -> SortValue:
    match key.field:
        case OrderField.CREATED_AT:
            return task.created_at
        case OrderField.UPDATED_AT:
            return task.updated_at
        case OrderField.DUE_DATE:
            return task.due_date or _LAST[key.descending]
        case OrderField.PRIORITY:
            return task.priority
        case OrderField.TITLE:
            return task.title


def _parse(value: Key, key: OrderKey) -> SortValue:
    if key.field is OrderField.TITLE:
        return str(value)
    number = int(value or 0)
    return number if key.field is OrderField.PRIORITY else from_micros(number)
