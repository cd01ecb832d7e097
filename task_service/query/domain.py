"""What a task can be asked for: comparisons of one field, joined by and, or and not. Values only; knows neither the text that says so nor SQL.

Two-valued: of a field that is absent every comparison is false, and its negation true.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, IntEnum
from typing import Final, TypeAlias


class Status(IntEnum):
    """How far a task has come. The numbers are those of the API and of the table."""

    PENDING = 1
    IN_PROGRESS = 2
    COMPLETED = 3


class Field(Enum):
    """A field, by its name in the API and in the table."""

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


class Operator(Enum):
    """How a field is compared. HAS is: among the labels, or within the text, in any case of letters. PRESENT has no value to compare with."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HAS = ":"
    PRESENT = ":*"


# In this order an error names them.
TEXT_OPERATORS: Final = (Operator.EQUAL, Operator.NOT_EQUAL, Operator.HAS)
STATUS_OPERATORS: Final = (Operator.EQUAL, Operator.NOT_EQUAL)
LABEL_OPERATORS: Final = (Operator.HAS,)
ORDERED_OPERATORS: Final = tuple(operator for operator in Operator if operator not in {Operator.HAS, Operator.PRESENT})

TEXTS: Final = frozenset({Field.TITLE, Field.DESCRIPTION})
TIMES: Final = frozenset({Field.DUE_DATE, Field.CREATED_AT, Field.UPDATED_AT, Field.COMPLETED_AT, Field.DELETED_AT})

Value: TypeAlias = str | int | Status | datetime | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field compared with a value: a Status, a priority, an aware time, else text."""

    field: Field
    operator: Operator
    value: Value
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """True if all terms are. There are two or more, none of them an AllOf."""

    terms: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True if one of the terms is. There are two or more, none of them an AnyOf."""

    terms: "tuple[Condition, ...]"


Condition: TypeAlias = Comparison | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as it was written, and what it means."""

    text: str
    condition: Condition


def conjuncts(condition: Condition) -> tuple[Condition, ...]:
    """What must all be true for the condition to be."""
    return condition.terms if isinstance(condition, AllOf) else (condition,)


def all_of(terms: Sequence[Condition]) -> Condition:
    """The conjunction of one or more."""
    flat = tuple(inner for term in terms for inner in conjuncts(term))
    return flat[0] if len(flat) == 1 else AllOf(flat)


def any_of(terms: Sequence[Condition]) -> Condition:
    """The disjunction of one or more."""
    flat = tuple(inner for term in terms for inner in (term.terms if isinstance(term, AnyOf) else (term,)))
    return flat[0] if len(flat) == 1 else AnyOf(flat)


def negation(condition: Condition) -> Condition:
    """The opposite, with the negation down at the comparisons, where each can be said in the way that an index serves."""
    match condition:
        case AllOf(terms):
            return any_of([negation(term) for term in terms])
        case AnyOf(terms):
            return all_of([negation(term) for term in terms])
        case Comparison():
            return replace(condition, negated=not condition.negated)


def operators_of(field: Field) -> tuple[Operator, ...]:
    """The operators that the field takes, beside PRESENT, which all take."""
    if field in TEXTS:
        return TEXT_OPERATORS
    if field is Field.STATUS:
        return STATUS_OPERATORS
    return LABEL_OPERATORS if field is Field.LABELS else ORDERED_OPERATORS
