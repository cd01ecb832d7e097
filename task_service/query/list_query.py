"""Which tasks a list has, in which order, and where its pages begin. Values only: the SQL of it is the repository's."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from servicekit.rpc.paging import Key
from task_service.query.domain import Comparison, Condition, Field, Filter, Operator, Status, conjuncts
from task_service.query.order import Order

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
