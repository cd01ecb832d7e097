"""Translates conditions to SQL. Values become parameters; only the numbers of statuses are literals."""

from collections.abc import Callable, Sequence
from typing import Final

from task_service.query.domain import TEXTS, AllOf, AnyOf, Comparison, Condition, Field, Operator, Status

ALL_STATUSES: Final = frozenset(Status)

# Adds a value to the parameters of a statement and returns its placeholder.
Parameter = Callable[[object], str]

_SIGNS: Final = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "<>",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
}
# The columns that have another name than the field. If a task has a due_on, its column due_date is the end of that day, and the API has no due_date.
# Lists order and filter due_date by due_at in any case.
_COLUMNS: Final = {Field.DUE_AT: "due_date"}
# The condition for presence, for fields that are never null.
_NOT_EMPTY: Final = {Field.DESCRIPTION: "description <> ''", Field.LABELS: "labels <> '{}'"}


def folded(text: str) -> str:
    """Returns the SQL for the full case folding of a text (Unicode, section 3.13), whatever the database's locale is."""
    return f'casefold({text} COLLATE "pg_unicode_fast")'


def statuses_of(conditions: Sequence[Condition]) -> frozenset[Status]:
    """Returns the statuses that a task can have if all conditions about the status alone are true."""
    told = [statuses for statuses in map(_statuses, conditions) if statuses is not None]
    return ALL_STATUSES.intersection(*told)


def about_status_alone(conditions: Sequence[Condition]) -> bool:
    """Whether `statuses_of` covers all of the conditions."""
    return all(_statuses(condition) is not None for condition in conditions)


def sql_of(conditions: Sequence[Condition], parameter: Parameter) -> list[str]:
    """Returns the SQL terms of the conditions that `statuses_of` does not cover. All terms are true if and only if these conditions are."""
    return [_sql(condition, parameter) for condition in conditions if _statuses(condition) is None]


def status_sql(statuses: frozenset[Status]) -> list[str]:
    """Returns the SQL term for having one of these statuses, or no term for all statuses."""
    if statuses == ALL_STATUSES:
        return []
    numbers = sorted(status.value for status in statuses)
    match numbers:
        case []:
            return ["false"]
        case [number]:
            return [f"status = {number}"]
        case _:
            return [f"status IN ({', '.join(map(str, numbers))})"]


def _sql(condition: Condition, parameter: Parameter) -> str:
    statuses = _statuses(condition)
    if statuses is not None:
        return " AND ".join(status_sql(statuses)) or "true"
    match condition:
        case AllOf(terms):
            return f"({' AND '.join(_sql(term, parameter) for term in terms)})"
        case AnyOf(terms):
            return f"({' OR '.join(_sql(term, parameter) for term in terms)})"
        case Comparison(field=field, operator=Operator.PRESENT, negated=True) if field not in _NOT_EMPTY:
            # In this form, an index serves it.
            return f"{_COLUMNS.get(field, field.value)} IS NULL"
        case Comparison():
            comparison = _comparison_sql(condition, parameter)
            return f"({comparison}) IS NOT TRUE" if condition.negated else comparison


def _comparison_sql(comparison: Comparison, parameter: Parameter) -> str:
    field, name = comparison.field, _COLUMNS.get(comparison.field, comparison.field.value)
    match comparison.operator:
        case Operator.PRESENT:
            return _NOT_EMPTY.get(field, f"{name} IS NOT NULL")
        case Operator.HAS if field in TEXTS:
            return f"strpos({folded(name)}, {folded(parameter(comparison.value))}) > 0"
        case Operator.HAS:
            return f"{parameter(comparison.value)} = ANY ({name})"
        case operator:
            return f"{name} {_SIGNS[operator]} {parameter(comparison.value)}"


def _statuses(condition: Condition) -> frozenset[Status] | None:
    """Returns the statuses for which the condition is true, or None if the condition is not about the status alone."""
    match condition:
        case Comparison(field=Field.STATUS, operator=operator, value=value, negated=negated):
            named = ALL_STATUSES if operator is Operator.PRESENT else frozenset({Status(value)})  # type: ignore[arg-type]  # a Status
            return ALL_STATUSES - named if negated != (operator is Operator.NOT_EQUAL) else named
        case AnyOf(terms) | AllOf(terms):
            each = [_statuses(term) for term in terms]
            known = [statuses for statuses in each if statuses is not None]
            if len(known) < len(each):
                return None
            return ALL_STATUSES.intersection(*known) if isinstance(condition, AllOf) else frozenset().union(*known)
        case _:
            return None
