"""Recurrence rules for tests: any rule of the language, the rare and the impossible ones more often than chance has them."""

from datetime import UTC, date
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from servicekit.errors import InvalidField
from task_service.due.domain import Frequency, Rule, WeekDay
from task_service.due.rule_syntax import MAX_COUNT, MAX_INTERVAL, parse_rule, rule_text

# Intervals that fit badly to weeks, leap years and the cycle of 400 years, so that rare days are met late or never.
AWKWARD = (2, 4, 7, 27, 28, 31, 52, 100, 111, 160, 313, 365, 366, 400, 730, 773, 800, 999)
ENDS = {"count": st.integers(1, MAX_COUNT), "until": st.dates() | st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(microsecond=0))}


@st.composite
def rules(draw: st.DrawFn, *, endless: bool = False) -> Rule:
    """Any rule that the language accepts. An endless one has neither COUNT nor UNTIL."""
    frequency = draw(st.sampled_from(Frequency))
    parts: dict[str, Any] = {"interval": draw(st.just(1) | st.sampled_from(AWKWARD) | st.integers(1, MAX_INTERVAL))}
    if not endless and (end := draw(st.sampled_from(["", "count", "until"]))):
        parts[end] = draw(ENDS[end])
    months = st.just([2]) | st.lists(st.integers(1, 12), unique=True, max_size=4)
    parts["months"] = draw(st.just([]) | months)
    if frequency is not Frequency.WEEKLY:
        signed = st.sampled_from([28, 29, 30, 31]) | st.integers(1, 31) | st.integers(-31, -1)
        parts["month_days"] = draw(st.just([]) | st.just([29]) | st.lists(signed, unique=True, max_size=5))
    parts["days"] = draw(st.just([]) | _days(frequency, parts))
    if frequency is not Frequency.DAILY and (parts["months"] or parts.get("month_days") or parts["days"]):
        most = {Frequency.WEEKLY: max(1, len(parts["days"])), Frequency.MONTHLY: 31, Frequency.YEARLY: 366}[frequency]
        position = st.integers(1, most) | st.integers(-most, -1) | st.integers(-min(most, 5), -1)
        parts["positions"] = draw(st.just([]) | st.lists(position, unique=True, max_size=3))
    parts["week_start"] = draw(st.integers(0, 6))
    rule = Rule(frequency, **{name: tuple(sorted(part)) if isinstance(part, list) else part for name, part in parts.items()})
    try:
        parse_rule("rrule", rule_text(rule))
    except InvalidField:
        assume(False)
    return rule


def _days(frequency: Frequency, parts: dict[str, Any]) -> st.SearchStrategy[list[WeekDay]]:
    plain = st.lists(st.integers(0, 6).map(lambda weekday: WeekDay(0, weekday)), unique=True, max_size=7)
    if frequency in {Frequency.DAILY, Frequency.WEEKLY} or parts.get("month_days"):
        return plain
    most = 53 if frequency is Frequency.YEARLY and not parts["months"] else 5
    nth = st.integers(1, most) | st.integers(-most, -1)
    return plain | st.lists(st.builds(WeekDay, nth, st.integers(0, 6)), unique=True, max_size=4)


# Days, the ends of the calendar more often than chance has them.
days = st.dates() | st.dates(min_value=date(9990, 1, 1)) | st.dates(max_value=date(4, 12, 31)) | st.dates(date(1890, 1, 1), date(2110, 1, 1))
