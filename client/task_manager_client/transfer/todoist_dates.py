"""Todoist's dates: what people type, such as `24 dec 10:00` or `every! 3 days at 9am starting 1 jan`."""

import re
from datetime import UTC, date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from task_manager_client.due_values import Anchor, Recurrence
from task_manager_client.transfer.records import Source
from task_manager_client.transfer.sheet import set_due
from task_manager_client.values import NewTaskDetails

_EVERY: Final = re.compile(r"(?:every|ev)(!?)\s+(.*)", re.DOTALL)
_AFTER: Final = re.compile(r"after\s+(.*)")
_WORDS: Final = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "quarterly": "3 months", "workday": "weekday"}
_TIME: Final = re.compile(r"\s*(?:\bat\s+|@)?\b(\d{1,2})(?::(\d{2}))?\s*(am|pm)?$")
_STARTING: Final = re.compile(r"\s+(?:starting|from)\s+(?:on\s+)?(.+)$")
_UNTIL: Final = re.compile(r"\s+(?:until|ending)\s+(?:on\s+)?(.+)$")
_LAST_DAY: Final = re.compile(r"\blast day\b(?: of the month)?$")
_MONTH_DAY: Final = re.compile(r"(\d{1,2})(?: of the month)?$")
_NOON_HOURS: Final = 12


class UnclearDate(ValueError):
    """The text is not a date that this module understands."""


def read_date(text: str, zone: str, fields: NewTaskDetails, source: Source) -> None:
    """Sets when a task is due and how it repeats. `zone` is the name of its time zone, or "" for the local one. Raises UnclearDate."""
    said = " ".join(text.lower().split())
    try:
        if (every := _EVERY.fullmatch(said)) is not None:
            _read_rule(every[2], Anchor.COMPLETION if every[1] else Anchor.DUE, fields, source)
        elif (after := _AFTER.fullmatch(said)) is not None:
            _read_rule(after[1], Anchor.COMPLETION, fields, source)
        elif said.partition(" ")[0] in _WORDS:
            _read_rule(said, Anchor.DUE, fields, source)
        else:
            set_due(fields, source.due(text, source.written), source.zone)
    except ValueError as error:
        raise UnclearDate(str(error)) from error
    if zone:
        _move(fields, zone, source)


def _read_rule(said: str, anchor: Anchor, fields: NewTaskDetails, source: Source) -> None:
    said, start = _taken(_STARTING, said)
    said, end = _taken(_UNTIL, said)
    said, at = _time(said)
    rule = _rule(said, source)
    if end:
        rule += f";UNTIL={_day(end, source):%Y%m%d}"
    # Todoist's file has no date of the next occurrence.
    day = _first(rule, _day(start, source) if start else source.written.astimezone(source.local).date())
    due: date = day if at is None else datetime.combine(day, at, source.local).astimezone(UTC)
    set_due(fields, due, source.zone)
    if source.zone:
        fields["time_zone"] = source.zone
    fields["recurrence"] = Recurrence(rule, anchor)


def _taken(pattern: re.Pattern[str], said: str) -> tuple[str, str]:
    """Returns the text without the part that the pattern finds, and what that part says."""
    found = pattern.search(said)
    return (said, "") if found is None else (said[: found.start()], found[1])


def _time(said: str) -> tuple[str, time | None]:
    found = _TIME.search(said)
    if found is None or not (found[2] or found[3] or "at " in found[0] or "@" in found[0]):
        return said, None
    hour = int(found[1])
    if found[3]:
        hour = hour % _NOON_HOURS + (_NOON_HOURS if found[3] == "pm" else 0)
    return said[: found.start()], time(hour, int(found[2] or 0))


def _rule(said: str, source: Source) -> str:
    if _LAST_DAY.search(said):
        return "FREQ=MONTHLY;BYMONTHDAY=-1"
    if (day := _MONTH_DAY.fullmatch(said)) is not None:
        return f"FREQ=MONTHLY;BYMONTHDAY={int(day[1])}"
    words = [_WORDS.get(word, word) for word in said.split()]
    return source.rule(" ".join(words))


def _day(text: str, source: Source) -> date:
    at = source.due(text, source.written)
    return at.date() if isinstance(at, datetime) else at


def _first(rule: str, day: date) -> date:
    """Returns the first day of a rule, from a day on. Raises UnclearDate."""
    # It is slow to import, and few files have such dates.
    from dateutil.rrule import rrulestr  # noqa: PLC0415

    begin = datetime.combine(day, time())
    found: datetime | None = rrulestr(rule, dtstart=begin).after(begin, inc=True)
    if found is None:
        raise UnclearDate("it never happens")
    return found.date()


def _move(fields: NewTaskDetails, zone: str, source: Source) -> None:
    """Moves a due date to the same time on the clock of another zone."""
    try:
        other = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # Todoist also writes a city without its continent.
        return
    fields["time_zone"] = zone
    due = fields.get("due_date")
    if due is not None:
        fields["due_date"] = due.astimezone(source.local).replace(tzinfo=other).astimezone(UTC)
