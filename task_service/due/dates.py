"""Days without a time (`due_on`): their text, and the instant at which one ends in a time zone."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from servicekit.errors import InvalidField
from task_service.due.domain import LAST_DAY
from task_service.due.zones import instant_of, wall_clock, zone_named

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PRECISION: Final = timedelta(microseconds=1)


def parse_day(field: str, text: str) -> date:
    """Returns the day of a text YYYY-MM-DD. Raises InvalidField for `field`."""
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or day > LAST_DAY:
        raise InvalidField.of(field, f"must be a day of the calendar from 0001-01-01 to {LAST_DAY}, in the form YYYY-MM-DD")
    return day


def due_at(due_date: datetime | None, due_on: date | None, time_zone: str) -> datetime | None:
    """Returns the instant at which a task is due, in UTC: `due_date`, or the end of the day `due_on` in its zone. None if it has neither.

    Raises UnknownZone, and OverflowError if `due_on` is after LAST_DAY.
    """
    if due_on is None:
        return due_date
    return day_end(due_on, zone_named(time_zone))


def day_end(day: date, zone: ZoneInfo) -> datetime:
    """Returns the instant, in UTC, from which on the date in the zone is later than `day`: normally the midnight that ends it.

    If the clock skips that midnight, the day ends where the gap begins. If the clock shows that midnight twice, the day ends at the first, unless the
    clock was put back into the day. Raises OverflowError if `day` is after LAST_DAY.
    """
    midnight = datetime.combine(day + timedelta(days=1), time())
    first = instant_of(midnight, zone)
    second = midnight.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if second > first:
        return second if wall_clock(second - _PRECISION, zone).date() <= day else first
    # In a gap, `second` is read with the offset after the gap, so it lies before the gap's beginning, and `first` lies at or after it.
    while first - second > _PRECISION:
        middle = second + (first - second) // 2
        if wall_clock(middle, zone).date() > day:
            first = middle
        else:
            second = middle
    return first
