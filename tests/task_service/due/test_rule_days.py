"""The days of a rule: the same as dateutil's where dateutil's walk ends, from any day on, and with bounded work."""

from collections.abc import Callable
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from itertools import dropwhile, islice
from typing import TypeVar

import pytest
from dateutil import rrule
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servicekit.errors import InvalidField
from task_service.due.domain import LAST_DAY, LAST_DUE, Anchor, Due, Frequency, Rule
from task_service.due.recurrence import check_recurs, next_due, series_from
from task_service.due.rule_days import days_from
from task_service.due.rule_syntax import parse_rule
from task_service.due.zones import wall_clock, zone_named
from tests.task_service.due.rules import days, rules
from tests.task_service.due.work import MAX_CALLS, work_of

Result = TypeVar("Result")

ZONES = ["", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "America/Sao_Paulo", "Etc/GMT+12", "Asia/Kathmandu"]
SPARSE = [
    "FREQ=DAILY;INTERVAL=7;BYDAY=TU",
    "FREQ=DAILY;INTERVAL=27;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=DAILY;INTERVAL=773;BYMONTHDAY=31",
    "FREQ=WEEKLY;INTERVAL=313;BYMONTH=2",
    "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=MONTHLY;BYMONTH=2;BYDAY=MO,TU;BYSETPOS=10",
    "FREQ=MONTHLY;INTERVAL=12;BYMONTH=2",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=YEARLY;BYDAY=MO,TU;BYSETPOS=106",
    "FREQ=YEARLY;BYMONTHDAY=31;BYSETPOS=8",
    "FREQ=YEARLY;INTERVAL=100;BYDAY=53MO",
    "FREQ=YEARLY;INTERVAL=999",
]


def _dateutil(rule: Rule, start: date) -> rrule.rrule:
    """The rule as dateutil walks all of it. With BYSETPOS it forgets the days of the week before the start, so it starts with that week."""
    if rule.frequency is Frequency.WEEKLY and rule.positions:
        start -= timedelta(days=(start.weekday() - rule.week_start) % 7)
    return rrule.rrule(
        getattr(rrule, rule.frequency.value),
        dtstart=datetime.combine(start, time()),
        interval=rule.interval,
        wkst=rule.week_start,
        bymonth=rule.months or None,
        bymonthday=rule.month_days or None,
        byweekday=[rrule.weekday(day.weekday, day.nth or None) for day in rule.days] or None,
        bysetpos=rule.positions or None,
    )


@given(rule=rules(endless=True), start=days)
@example(rule=parse_rule("rrule", "FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1"), start=date(2024, 4, 3))
@settings(max_examples=60)
def test_the_days_are_those_of_dateutil(rule: Rule, start: date) -> None:
    found = list(islice(days_from(rule, start, start), 30))
    if found and start.year > 1:
        # Without enough days, dateutil would walk to the year 9999.
        if rule.frequency is Frequency.WEEKLY and rule.positions and not rule.days:
            return  # dateutil would take the week day of the moved start
        expected = (day.date() for day in _dateutil(rule, start) if day.date() >= start)
        assert found == list(islice(expected, len(found)))


@given(rule=rules(endless=True), start=days, skipped=st.integers(0, 25))
@example(rule=parse_rule("rrule", "FREQ=WEEKLY;INTERVAL=3"), start=date(2024, 4, 3), skipped=7)
@settings(max_examples=60)
def test_a_search_may_begin_on_any_day(rule: Rule, start: date, skipped: int) -> None:
    found = list(islice(days_from(rule, start, start), 30))
    floor = found[min(skipped, len(found) - 1)] if found else start
    for begin in (floor, floor + timedelta(days=floor < date.max)):
        expected = list(dropwhile(lambda day: day < begin, found))  # noqa: B023 - consumed in this round
        assert list(islice(days_from(rule, start, begin), len(expected))) == expected


@given(
    rule=rules(),
    anchor=st.sampled_from(Anchor),
    zone=st.sampled_from(ZONES),
    start=days.filter(lambda day: day <= LAST_DAY),
    clock=st.none() | st.times(),
    later=st.timedeltas(min_value=timedelta(), max_value=timedelta(days=4_000_000)),
    completed_at=st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
)
@settings(max_examples=150)
def test_no_rule_makes_the_search_long(
    rule: Rule, anchor: Anchor, zone: str, start: date, clock: time | None, later: timedelta, completed_at: datetime
) -> None:
    first = Due(due_on=start, time_zone=zone) if clock is None else Due(due_date=datetime.combine(start, clock, UTC), time_zone=zone)
    try:
        series = series_from(first)
    except InvalidField:
        return
    # The series is old: the task at hand is due long after its start.
    end = datetime.combine(LAST_DAY, time(), UTC)
    if first.due_on is not None:
        due = Due(due_on=first.due_on + min(later, LAST_DAY - first.due_on), time_zone=zone)
    else:
        assert first.due_date is not None
        due = Due(due_date=first.due_date + min(later, max(end - first.due_date, timedelta())), time_zone=zone)

    found = work_of(lambda: next_due(rule, anchor, series, due, completed_at))

    if found is None:
        return
    assert found.series.number == 2
    assert found.due.time_zone == zone
    old, new = due.due_on or due.due_date, found.due.due_on or found.due.due_date
    assert old is not None
    assert new is not None
    assert type(old) is type(new)
    if found.due.due_date is not None:
        assert found.due.due_date <= LAST_DUE
    if anchor is Anchor.DUE:
        assert new > old  # type: ignore[operator]  # both are dates or both are times
    else:
        shown = found.due.due_on or wall_clock(found.due.due_date, zone_named(zone)).date()  # type: ignore[arg-type]  # one of the two is set
        assert shown > wall_clock(completed_at, zone_named(zone)).date()


@pytest.mark.parametrize("text", SPARSE)
@pytest.mark.parametrize("year", [1, 2023, 2024, 2196, MAXYEAR - 400, MAXYEAR])
def test_a_sparse_rule_does_not_make_the_search_long(text: str, year: int) -> None:
    rule, start = parse_rule("rrule", text), date(year, 1, 30)
    work_of(lambda: list(islice(days_from(rule, start, start), 3)))
    for month in (1, 2, 3):
        work_of(lambda: next(days_from(rule, date(year, month, 1), date(year, month, 1)), None))  # noqa: B023 - called in this round


def test_the_limit_of_work_is_noticed() -> None:
    endless = rrule.rrule(rrule.YEARLY, dtstart=datetime(2026, 1, 1), bymonth=2, bymonthday=30)  # noqa: DTZ001 - dateutil computes without a zone
    with pytest.raises(AssertionError, match=str(MAX_CALLS)):
        work_of(lambda: next(iter(endless), None))


@pytest.mark.parametrize(
    ("text", "due", "recurs"),
    [
        ("FREQ=DAILY;COUNT=1", date(2026, 1, 1), True),
        ("FREQ=YEARLY;BYMONTH=2", date(2026, 1, 29), True),
        ("FREQ=YEARLY;BYMONTH=2", date(2026, 1, 30), False),
        ("FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=29", date(2025, 1, 1), False),
        ("FREQ=YEARLY;INTERVAL=400;BYDAY=53MO", date(2026, 1, 1), False),
        ("FREQ=YEARLY;BYDAY=MO,TU;BYSETPOS=106", date(2026, 1, 1), True),
        ("FREQ=YEARLY;BYDAY=MO,TU;BYSETPOS=107", date(2026, 1, 1), False),
        ("FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", date(2026, 1, 1), True),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=TU", date(2026, 1, 5), False),
        ("FREQ=YEARLY;INTERVAL=999", date(9000, 1, 1), True),
        ("FREQ=YEARLY;INTERVAL=999", date(9001, 1, 1), False),
        ("FREQ=DAILY", LAST_DAY, True),
    ],
)
def test_a_rule_without_days_is_refused(text: str, due: date, recurs: bool) -> None:  # noqa: FBT001 - a column of the table
    check: Callable[[], None] = lambda: check_recurs("task.recurrence.rrule", parse_rule("rrule", text), Due(due_on=due))  # noqa: E731
    if recurs:
        work_of(check)
        return
    with pytest.raises(InvalidField, match="no day after the due date"):
        work_of(check)
