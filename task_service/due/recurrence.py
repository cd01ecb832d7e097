"""The next due date of a recurring task: the days of its rule, placed in its time zone, up to COUNT and UNTIL."""

from datetime import date, datetime, time, timedelta
from typing import Final

from servicekit.errors import InvalidField
from task_service.due.domain import LAST_DAY, LAST_DUE, Anchor, Due, NextTask, Rule, Series
from task_service.due.rule_days import days_from
from task_service.due.zones import instant_of, wall_clock, zone_named

_DAY: Final = timedelta(days=1)


def series_from(due: Due, *, number: int = 1) -> Series:
    """Returns the series that starts at a due date, with the task as number `number` of the series.

    A task gets it with its rule, as number 1. If a client changes `due_date`, `due_on` or `time_zone` of a recurring task, the whole series moves: it
    starts anew there, and the number stays. Raises UnknownZone, and InvalidField if the zone's clock is outside the years 1 to 9999.
    """
    if due.due_on is not None:
        return Series(datetime.combine(due.due_on, time()), number)
    if due.due_date is None:
        raise InvalidField.of("task.recurrence", "needs due_date or due_on")
    try:
        return Series(wall_clock(due.due_date, zone_named(due.time_zone)), number)
    except OverflowError:
        raise InvalidField.of("task.due_date", "must be a time that the clock of time_zone shows within the years 1 to 9999") from None


def check_recurs(field: str, rule: Rule, due: Due) -> None:
    """Raises InvalidField for `field` if no day of the rule follows the due date, as for 29 February of every second year from an odd year on.

    COUNT and UNTIL are not looked at. Raises UnknownZone.
    """
    start = series_from(due).start.date()
    if start < date.max and next(days_from(rule, start, start + _DAY), None) is None:
        raise InvalidField.of(field, "has no day after the due date")


def next_due(rule: Rule, anchor: Anchor, series: Series, due: Due, completed_at: datetime) -> NextTask | None:
    """Returns when the next task is due after this one, which is due at `due` and was completed at `completed_at`, an aware time.

    With DUE it is due at the first occurrence after `due`, however late the completion was. With COMPLETION the rule starts anew on the day of the
    completion in the zone, at the time of day of the series, and the next task is due at the first occurrence on a later day; COUNT counts on.
    Returns None if the rule is used up: COUNT tasks exist, the occurrence is after UNTIL or after the year 9999, or there is none within reach
    (`rule_days.MAX_PERIODS`). Raises UnknownZone.
    """
    if rule.count is not None and series.number >= rule.count:
        return None
    zone = zone_named(due.time_zone)
    try:
        if anchor is Anchor.COMPLETION:
            day = wall_clock(completed_at, zone).date()
            return _first(rule, Series(datetime.combine(day, series.start.time()), series.number), due, day + _DAY, completed_at)
        if due.due_on is not None:
            return _first(rule, series, due, due.due_on + _DAY, None)
        if due.due_date is None:
            return None
        # A gap moves a time forward, even to the next day. So the occurrence of the day before can be after the due date.
        day = wall_clock(due.due_date, zone).date()
        return _first(rule, series, due, day if day == date.min else day - _DAY, due.due_date)
    except OverflowError:
        return None


def _first(rule: Rule, series: Series, due: Due, floor: date, after: datetime | None) -> NextTask | None:
    """Returns the first occurrence on the day `floor` or later, and for a task with `due_date` after the instant `after`."""
    zone = zone_named(due.time_zone)
    for day in days_from(rule, series.start.date(), floor):
        if due.due_on is not None:
            occurrence = Due(due_on=day, time_zone=due.time_zone)
            is_last = day > LAST_DAY or _is_after(instant_of(datetime.combine(day, time()), zone), day, rule.until)
        else:
            instant = instant_of(datetime.combine(day, series.start.time()), zone)
            if after is not None and instant <= after:
                continue
            occurrence = Due(due_date=instant, time_zone=due.time_zone)
            is_last = instant > LAST_DUE or _is_after(instant, day, rule.until)
        return None if is_last else NextTask(occurrence, Series(series.start, series.number + 1))
    return None


def _is_after(instant: datetime, day: date, until: date | datetime | None) -> bool:
    """Returns whether an occurrence on `day` of the rule is after UNTIL. `instant` is its time, or the beginning of a whole day.

    So UNTIL may be a date or a time for both: a date includes that whole day in the zone, and a time includes the whole day on which it is.
    """
    if isinstance(until, datetime):
        return instant > until
    return until is not None and day > until
