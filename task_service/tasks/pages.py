"""The positions at which the pages of a list begin, and how page tokens hold them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from servicekit.errors import InvalidPageToken
from servicekit.rpc.paging import Key
from task_service.query.list_query import Position, SortValue
from task_service.query.order import Order, OrderField, OrderKey
from task_service.tasks.domain import MAX_BYTES_PER_CHARACTER, MAX_PAGE_BYTES, Task

T = TypeVar("T")

# Stand for "no due date", so that such tasks come last in both directions. In SQL these are infinity and -infinity.
_LAST = {False: datetime.max.replace(tzinfo=UTC), True: datetime.min.replace(tzinfo=UTC)}

_LAST_DAY: Final = {False: date.max, True: date.min}
# By field: the value of a task. The flag says whether the order is descending.
_VALUES: Final[Mapping[OrderField, Callable[[Task, bool], SortValue]]] = {
    OrderField.CREATED_AT: lambda task, _: task.created_at,
    OrderField.UPDATED_AT: lambda task, _: task.updated_at,
    OrderField.DUE_DATE: lambda task, descending: task.due_date or _LAST[descending],
    OrderField.DUE_AT: lambda task, descending: task.due_date or _LAST[descending],
    OrderField.DUE_ON: lambda task, descending: task.due_on or _LAST_DAY[descending],
    OrderField.PRIORITY: lambda task, _: task.priority,
    OrderField.TITLE: lambda task, _: task.title,
    OrderField.POSITION: lambda task, _: task.place,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def fitting(items: Sequence[T], task_of: Callable[[T], Task]) -> Sequence[T]:
    """Returns as many of the first items as fit on a page of MAX_PAGE_BYTES, and at least the first one. `task_of` returns the task of an item."""
    # Nearly every page is far below the limit, and to count its characters is cheaper than to encode them.
    if MAX_BYTES_PER_CHARACTER * sum([task_of(item).characters for item in items]) <= MAX_PAGE_BYTES:
        return items
    size = 0
    for count, item in enumerate(items):
        size += task_of(item).text_bytes
        if size > MAX_PAGE_BYTES and count > 0:
            return items[:count]
    return items


def position_of(task: Task, order: Order) -> Position:
    """Returns the position directly after `task`."""
    return Position(tuple(_sort_value(task, key) for key in order), task.id)


def to_token(position: Position) -> list[Key]:
    """Returns the position in the form that a page token holds: times in microseconds since 1970."""
    return [*map(_key, position.values), str(position.id)]


def _key(value: SortValue) -> Key:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.toordinal() if isinstance(value, date) else value


def from_token(keys: Sequence[Key], order: Order) -> Position:
    """Returns the position in a page token of a query with that order. Raises InvalidPageToken if the token has another form."""
    *values, last = keys
    try:
        return Position(tuple(_parse(value, key) for value, key in zip(values, order, strict=True)), UUID(str(last)))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidPageToken from error


def _sort_value(task: Task, key: OrderKey) -> SortValue:
    return _VALUES[key.field](task, key.descending)


def _parse(value: Key, key: OrderKey) -> SortValue:
    if key.field in {OrderField.TITLE, OrderField.POSITION}:
        return str(value)
    number = int(value or 0)
    if key.field is OrderField.DUE_ON:
        return date.fromordinal(number)
    return number if key.field is OrderField.PRIORITY else _EPOCH + timedelta(microseconds=number)
