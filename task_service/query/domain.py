"""The conditions of a filter: comparisons of one field, joined by AND, OR and NOT. Values only, independent of the filter's text and of SQL.

The logic is two-valued: if a field is absent, every comparison with it is false, and the negation of the comparison is true.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import Enum, IntEnum
from typing import Final, TypeAlias
from uuid import UUID


class Status(IntEnum):
    """The status of a task. The API and the table use the same numbers."""

    PENDING = 1
    IN_PROGRESS = 2
    COMPLETED = 3


class Field(Enum):
    """A field of a task, by its name in the API."""

    TITLE = "title"
    DESCRIPTION = "description"
    STATUS = "status"
    PRIORITY = "priority"
    DUE_DATE = "due_date"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    COMPLETED_AT = "completed_at"
    DELETED_AT = "deleted_at"
    LABELS = "labels"
    PROJECT_ID = "project_id"
    PARENT_ID = "parent_id"
    DUE_AT = "due_at"
    DUE_ON = "due_on"
    TIME_ZONE = "time_zone"
    RECURRENCE = "recurrence"
    PREVIOUS_ID = "previous_id"
    NEXT_ID = "next_id"
    REMINDERS = "reminders"


class Operator(Enum):
    """How a field is compared. HAS means that the value is one of the labels, or that the text contains it in any case. PRESENT takes no value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HAS = ":"
    PRESENT = ":*"


# Error messages list the operators in this order.
TEXT_OPERATORS: Final = (Operator.EQUAL, Operator.NOT_EQUAL, Operator.HAS)
EQUALITY_OPERATORS: Final = (Operator.EQUAL, Operator.NOT_EQUAL)
LABEL_OPERATORS: Final = (Operator.HAS,)
ORDERED_OPERATORS: Final = tuple(operator for operator in Operator if operator not in {Operator.HAS, Operator.PRESENT})

TEXTS: Final = frozenset({Field.TITLE, Field.DESCRIPTION})
IDS: Final = frozenset({Field.PROJECT_ID, Field.PARENT_ID, Field.PREVIOUS_ID, Field.NEXT_ID})
# Fields that a filter only asks for presence.
PARTS: Final = frozenset({Field.RECURRENCE, Field.REMINDERS})
TIMES: Final = frozenset({Field.DUE_DATE, Field.DUE_AT, Field.CREATED_AT, Field.UPDATED_AT, Field.COMPLETED_AT, Field.DELETED_AT})


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in a shape for the value with this number, counted from 0."""

    number: int


Value: TypeAlias = str | int | Status | datetime | date | UUID | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field compared with a value: a Status, a priority, an aware time, else text. In a shape, with a Slot for a value."""

    field: Field
    operator: Operator
    value: Value | Slot
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """True if all terms are true. It has two or more terms, none of them an AllOf."""

    terms: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True if at least one term is true. It has two or more terms, none of them an AnyOf."""

    terms: "tuple[Condition, ...]"


Condition: TypeAlias = Comparison | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Filter:
    """The text of a filter, its condition, and the condition's shape and values: see `shape_of`."""

    text: str
    condition: Condition
    shape: Condition
    values: tuple[Value, ...]


def conjuncts(condition: Condition) -> tuple[Condition, ...]:
    """Returns the conditions that must all be true for the condition to be true."""
    return condition.terms if isinstance(condition, AllOf) else (condition,)


def all_of(terms: Sequence[Condition]) -> Condition:
    """Returns the conjunction of one or more conditions."""
    flat = tuple(inner for term in terms for inner in conjuncts(term))
    return flat[0] if len(flat) == 1 else AllOf(flat)


def any_of(terms: Sequence[Condition]) -> Condition:
    """Returns the disjunction of one or more conditions."""
    flat = tuple(inner for term in terms for inner in (term.terms if isinstance(term, AnyOf) else (term,)))
    return flat[0] if len(flat) == 1 else AnyOf(flat)


def negation(condition: Condition) -> Condition:
    """Returns the negation of the condition. It negates the comparisons instead of the whole, so that an index can serve each of them."""
    match condition:
        case AllOf(terms):
            return any_of([negation(term) for term in terms])
        case AnyOf(terms):
            return all_of([negation(term) for term in terms])
        case Comparison():
            return replace(condition, negated=not condition.negated)


def shape_of(condition: Condition) -> tuple[Condition, tuple[Value, ...]]:
    """Returns the condition with a Slot for each value, and the values. Conditions with the same shape have the same SQL: statuses are part of it."""
    values: list[Value] = []
    return _with_slots(condition, values), tuple(values)


def _with_slots(condition: Condition, values: list[Value]) -> Condition:
    match condition:
        case AllOf(terms):
            return AllOf(tuple(_with_slots(term, values) for term in terms))
        case AnyOf(terms):
            return AnyOf(tuple(_with_slots(term, values) for term in terms))
        case Comparison():
            value = condition.value
            if value is None or isinstance(value, Status | Slot):
                return condition
            values.append(value)
            return replace(condition, value=Slot(len(values) - 1))


def operators_of(field: Field) -> tuple[Operator, ...]:
    """Returns the operators that the field takes, without PRESENT, which all fields take."""
    if field in TEXTS:
        return TEXT_OPERATORS
    if field in IDS or field in {Field.STATUS, Field.TIME_ZONE}:
        return EQUALITY_OPERATORS
    if field in PARTS:
        return ()
    return LABEL_OPERATORS if field is Field.LABELS else ORDERED_OPERATORS
