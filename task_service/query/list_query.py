"""The query of a list and the positions at which its pages begin. Values only: list_statement holds the SQL."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from servicekit.rpc.paging import Key
from task_service.query.domain import Comparison, Condition, Field, Filter, Operator, Slot, Status, Value, conjuncts
from task_service.query.order import Order

SortValue = str | int | datetime | date


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The query of a list, which must stay the same from page to page. `show_deleted` adds the deleted tasks (AIP-164)."""

    user_id: UUID
    status: Status | None
    priority: int | None
    order: Order
    filter: Filter | None = None
    show_deleted: bool = False
    # The project or the parent that the tasks must have; None means the inbox, or no parent.
    within: tuple[tuple[Field, UUID | None], ...] = ()

    def identity(self) -> list[Key]:
        """Returns the query in the form to which page tokens are bound."""
        order = [item for key in self.order for item in (int(key.field), int(key.descending))]
        identity = ["ListTasks", str(self.user_id), self.status, self.priority, *order]
        # Only added if they are used, so that page tokens from before there were filters, or projects, stay valid.
        if self.filter or self.show_deleted or self.within:
            identity += [self.filter.text if self.filter else None, int(self.show_deleted)]
        return identity + [item for field, value in self.within for item in (field.value, "" if value is None else str(value))]

    def conditions(self) -> tuple[tuple[Condition, ...], tuple[Value, ...]]:
        """Returns the shapes of the conditions that must all be true for a task to be in the list, and the values of their slots."""
        conditions, values = (conjuncts(self.filter.shape), self.filter.values) if self.filter else ((), ())
        if self.status is not None:
            conditions = (Comparison(Field.STATUS, Operator.EQUAL, self.status), *conditions)
        if self.priority is not None:
            conditions = (Comparison(Field.PRIORITY, Operator.EQUAL, Slot(len(values))), *conditions)
            values = (*values, self.priority)
        for field, value in self.within:
            if value is None:
                conditions = (Comparison(field, Operator.PRESENT, None, negated=True), *conditions)
            else:
                conditions = (Comparison(field, Operator.EQUAL, Slot(len(values))), *conditions)
                values = (*values, value)
        return conditions, values


@dataclass(frozen=True, slots=True)
class Position:
    """A position in an ordered list: after the task with this id and these values of the sort keys."""

    values: tuple[SortValue, ...]
    id: UUID
