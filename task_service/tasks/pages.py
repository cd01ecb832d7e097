"""The positions at which the pages of a list begin, and how page tokens hold them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidPageToken
from servicekit.rpc.paging import Key
from task_service.query.list_query import Position, SortValue
from task_service.query.order import Order, OrderField, OrderKey
from task_service.tasks.domain import Task

# Stand for "no due date", so that such tasks come last in both directions. In SQL these are infinity and -infinity.
_LAST = {False: datetime.max.replace(tzinfo=UTC), True: datetime.min.replace(tzinfo=UTC)}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def position_of(task: Task, order: Order) -> Position:
    """Returns the position directly after `task`."""
    return Position(tuple(_sort_value(task, key) for key in order), task.id)


def to_token(position: Position) -> list[Key]:
    """Returns the position in the form that a page token holds: times in microseconds since 1970."""
    return [*((value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value for value in position.values), str(position.id)]


def from_token(keys: Sequence[Key], order: Order) -> Position:
    """Returns the position in a page token of a query with that order. Raises InvalidPageToken if the token has another form."""
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
    return number if key.field is OrderField.PRIORITY else _EPOCH + timedelta(microseconds=number)
