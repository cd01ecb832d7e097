"""The days of a recurrence rule, in their order, with bounded work.

The walk from period to period (INTERVAL) is arithmetic: it begins near the wanted day however old the series is, and it ends. dateutil says which
days a month or a year has. Its own walk has no bound: for a rule without days it counts up to the year 9999.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import replace
from datetime import MAXYEAR, date, datetime
from itertools import islice
from math import gcd
from typing import Final

from dateutil.rrule import MONTHLY, YEARLY, rrule, weekday

from task_service.due.domain import Frequency, Rule, WeekDay

# How many periods a search looks at, from `floor` on. Of a day, a week, and a month or year without a wanted day this is all the cost.
MAX_PERIODS: Final = 2_000
# How many of these periods may be given to dateutil, which takes about 0.05 ms for each. Only a rule that needs 29 February on a certain weekday, or
# something as rare, needs more than a few.
MAX_EXPANDED: Final = 100
# The calendar, weekdays included, repeats after 400 years. So a rule of months or years without a day in a whole cycle never has one.
CYCLE_MONTHS: Final = 4_800


def days_from(rule: Rule, start: date, floor: date) -> Iterator[date]:
    """Yields the days of the rule from `floor` on, in their order, up to the year 9999. COUNT and UNTIL are not looked at.

    `start` is the day on which the series starts (DTSTART): from it come the phase of INTERVAL and the parts that the rule omits. The days end if
    there are none in the next MAX_PERIODS periods.
    """
    floor = max(floor, start)
    rule = _completed(rule, start)
    match rule.frequency:
        case Frequency.DAILY:
            days = _of_days(rule, start, floor)
        case Frequency.WEEKLY:
            days = _of_weeks(rule, start, floor)
        case Frequency.MONTHLY | Frequency.YEARLY:
            days = _of_months_or_years(rule, start, floor)
    return (day for day in days if day >= floor)


def _completed(rule: Rule, start: date) -> Rule:
    """Returns the rule with the parts that it takes from its start."""
    if rule.days or rule.month_days or rule.frequency is Frequency.DAILY:
        return rule
    if rule.frequency is Frequency.WEEKLY:
        return replace(rule, days=(WeekDay(0, start.weekday()),))
    if rule.frequency is Frequency.YEARLY:
        return replace(rule, month_days=(start.day,), months=rule.months or (start.month,))
    return replace(rule, month_days=(start.day,))


def _of_days(rule: Rule, start: date, floor: date) -> Iterator[date]:
    weekdays = {day.weekday for day in rule.days}
    ordinal = _aligned(start.toordinal(), floor.toordinal(), rule.interval)
    for _ in range(MAX_PERIODS):
        if ordinal > date.max.toordinal():
            return
        day = date.fromordinal(ordinal)
        if rule.months and day.month not in rule.months:
            ordinal = _aligned(ordinal, ordinal + monthrange(day.year, day.month)[1] - day.day + 1, rule.interval)
            continue
        if (not weekdays or day.weekday() in weekdays) and _has_month_day(rule, day):
            yield day
        ordinal += rule.interval


def _aligned(first: int, least: int, interval: int) -> int:
    """Returns the first of `first`, `first + interval` … that is at least `least`."""
    return first + max(0, -(-(least - first) // interval)) * interval


def _has_month_day(rule: Rule, day: date) -> bool:
    if not rule.month_days:
        return True
    return day.day in rule.month_days or day.day - monthrange(day.year, day.month)[1] - 1 in rule.month_days


def _of_weeks(rule: Rule, start: date, floor: date) -> Iterator[date]:
    weekdays = {day.weekday for day in rule.days}
    first = start.toordinal() - (start.weekday() - rule.week_start) % 7
    for week in islice(range(_aligned(first, floor.toordinal() - 6, 7 * rule.interval), date.max.toordinal() + 1, 7 * rule.interval), MAX_PERIODS):
        # The first week of year 1 and the last of 9999 can be cut off.
        week_days = map(date.fromordinal, range(max(week, 1), min(week + 7, date.max.toordinal() + 1)))
        days = [day for day in week_days if day.weekday() in weekdays and (not rule.months or day.month in rule.months)]
        yield from _at_positions(days, rule.positions)


def _at_positions(days: list[date], positions: tuple[int, ...]) -> list[date]:
    if not positions:
        return days
    chosen = {position - 1 if position > 0 else len(days) + position for position in positions}
    return [day for index, day in enumerate(days) if index in chosen]


def _of_months_or_years(rule: Rule, start: date, floor: date) -> Iterator[date]:
    months = 12 if rule.frequency is Frequency.YEARLY else 1
    # Periods are counted in months since year 0. A year begins with its January.
    first, least = (12 * day.year + (day.month - 1 if months == 1 else 0) for day in (start, floor))
    step = months * rule.interval
    cycle = CYCLE_MONTHS // gcd(CYCLE_MONTHS, step)
    periods = islice(range(_aligned(first, least, step), 12 * (MAXYEAR + 1), step), min(MAX_PERIODS, cycle + 1))
    expanded = 0
    for period in periods:
        year, month = period // 12, period % 12 + 1
        if not _may_have_days(rule, year, month):
            continue
        if expanded == MAX_EXPANDED:
            return
        expanded += 1
        yield from _expanded(rule, datetime(year, month, 1))  # noqa: DTZ001 - dateutil computes without a zone


def _may_have_days(rule: Rule, year: int, month: int) -> bool:
    """Returns whether the month, or one of the year's months, is in BYMONTH and long enough for BYMONTHDAY: a cheap question before dateutil's."""
    months = rule.months or range(1, 13)
    if rule.frequency is Frequency.MONTHLY:
        if month not in months:
            return False
        months = (month,)
    if not rule.month_days:
        return True
    shortest = min(map(abs, rule.month_days))
    return shortest <= 28 or any(shortest <= monthrange(year, each)[1] for each in months)  # every month has 28


def _expanded(rule: Rule, begin: datetime) -> Iterator[date]:
    """Yields the days of the one month or year that begins there. The interval leads dateutil out of the calendar, which ends its walk."""
    is_year = rule.frequency is Frequency.YEARLY
    found = rrule(
        YEARLY if is_year else MONTHLY,
        dtstart=begin,
        interval=MAXYEAR if is_year else 12 * MAXYEAR,
        bymonth=rule.months or None,
        bymonthday=rule.month_days or None,
        byweekday=[weekday(day.weekday, day.nth or None) for day in rule.days] or None,
        bysetpos=rule.positions or None,
    )
    return (time.date() for time in found)
