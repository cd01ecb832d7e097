"""Days and times as people type them, in the local time zone: from text to a day or an instant, and back to text.

23:59 is shown as the day alone.
"""

import calendar
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

END_OF_DAY: Final = time(23, 59)
EXAMPLES: Final = "today, tomorrow 9am, fri 17:00, in 3 days, 1st, 24 dec, 2026-12-24, 2026-12-24T09:00+01:00"

_FILLERS: Final = frozenset({"at", "on", "by", "of", "the", "next"})
_DAYS: Final = tuple(name.lower() for name in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))
_MONTHS: Final = tuple(calendar.month_abbr[number].lower() for number in range(1, 13))
_NOON: Final = time(12)
# They mean the day alone.
_ENDS_OF_DAY: Final = frozenset({"", "midnight", "eod"})
_CLOCK: Final = re.compile(r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?(?P<half>am|pm)?")
_ELAPSED: Final = re.compile(r"(?:in |\+)(?P<count>\d{1,4}) ?(?P<unit>[a-z]+)\b *(?P<rest>.*)")
_ISO_DAY: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\b *(.*)")
_ORDINAL: Final = r"(?:st|nd|rd|th)"
_MONTH_DAY: Final = re.compile(
    rf"(?:(?P<day>\d{{1,2}})(?:\.|{_ORDINAL})? (?P<month>[a-z]{{3}})[a-z]*|(?P<month2>[a-z]{{3}})[a-z]* (?P<day2>\d{{1,2}}){_ORDINAL}?)"
    r"(?: (?P<year>\d{4}))?\b *(?P<rest>.*)"
)
_DAY_OF_MONTH: Final = re.compile(rf"(\d{{1,2}}){_ORDINAL}\b *(.*)")
_WEEK_DAYS: Final = 7
_HALF_DAY_HOURS: Final = 12
# Of three months one after the other, at least one later than this has 31 days.
_MONTHS_TO_TRY: Final = 3


class UnclearTime(ValueError):
    """The text is not a time that this module understands."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a time; for example: {EXAMPLES}")


def due(text: str, now: datetime) -> date:
    """Returns what a text means: an aware time, or a day if the text has no time of day.

    `now` is aware and in the local time zone. Raises UnclearTime.
    """
    full = _iso_time(text.strip())
    if full is not None:
        return full if full.tzinfo is not None else _local(full)
    words = " ".join(word for word in text.lower().replace(",", " ").split() if word not in _FILLERS)
    try:
        for parse in (_elapsed, _named_day, _iso_day, _month_day, _day_of_month, _clock_alone):
            found = parse(words, now.replace(tzinfo=None))
            if found is not None:
                return _local(found) if isinstance(found, datetime) else found
    except (ValueError, OverflowError) as error:
        raise UnclearTime(text) from error
    raise UnclearTime(text)


def late_on(day: date) -> datetime:
    """Returns 23:59 that day."""
    return _local(datetime.combine(day, END_OF_DAY))


def end_of(day: date) -> datetime:
    """Returns the midnight that ends a day; a time is its own end. Raises OverflowError for the last day of the calendar."""
    return day if isinstance(day, datetime) else _local(datetime.combine(day + timedelta(days=1), time()))


def shown(at: date, now: datetime) -> str:
    """Returns a short text for a time or a day: the day as people name it, and the time of day. `now` is as for `due`."""
    if not isinstance(at, datetime):
        return _shown_day(at, now)
    local = at.astimezone()
    day = _shown_day(local.date(), now)
    return day if local.time().replace(second=0, microsecond=0) == END_OF_DAY else f"{day} {local:%H:%M}"


def _shown_day(day: date, now: datetime) -> str:
    away = (day - now.date()).days
    if away in (-1, 0, 1):
        return ("yesterday", "today", "tomorrow")[away + 1]
    if 1 < away < _WEEK_DAYS:
        return f"{day:%a}"
    return f"{day.day} {day:%b}" if day.year == now.year else f"{day.day} {day:%b} {day.year}"


def _local(naive: datetime) -> datetime:
    """Returns the aware time. A time in the gap of a clock change moves forward; astimezone alone would move it back."""
    return datetime.fromtimestamp(naive.timestamp(), UTC).astimezone()


def _iso_time(text: str) -> datetime | None:
    if not re.match(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:", text, re.IGNORECASE):
        return None
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise UnclearTime(text) from error


def _elapsed(words: str, now: datetime) -> date | None:
    """`in 3 days`, `in 2 weeks 9am`, `in 90 minutes`, `+3d`."""
    if (found := _ELAPSED.fullmatch(words)) is None:
        return None
    count, unit = int(found["count"]), found["unit"]
    if unit in {"m", "min", "mins", "minute", "minutes"}:
        return _exactly(now + timedelta(minutes=count), found["rest"])
    if unit in {"h", "hour", "hours"}:
        return _exactly(now + timedelta(hours=count), found["rest"])
    days: Mapping[str, Callable[[], date]] = {
        "d": lambda: now.date() + timedelta(days=count),
        "w": lambda: now.date() + timedelta(weeks=count),
        "mo": lambda: _months_later(now.date(), count),
        "y": lambda: _months_later(now.date(), 12 * count),
    }
    short = re.sub(r"^(d|w|y)(?:ays?|eeks?|ears?)?$|^(mo)(?:nths?)?$", r"\1\2", unit)
    return _at(days[short](), found["rest"]) if short in days else None


def _named_day(words: str, now: datetime) -> date | None:
    """`today`, `tomorrow 9am`, `fri`: a weekday is the next one after today."""
    name, _, rest = words.partition(" ")
    if name in {"today", "tonight"}:
        return _at(now.date(), rest or ("20:00" if name == "tonight" else ""))
    if name in {"tomorrow", "tom"}:
        return _at(now.date() + timedelta(days=1), rest)
    for number, day in enumerate(_DAYS):
        if len(name) >= 3 and day.startswith(name):
            return _at(now.date() + timedelta(days=(number - now.weekday() - 1) % _WEEK_DAYS + 1), rest)
    return None


def _iso_day(words: str, _: datetime) -> date | None:
    found = _ISO_DAY.fullmatch(words)
    return _at(date.fromisoformat(found[1]), found[2]) if found else None


def _month_day(words: str, now: datetime) -> date | None:
    """`24 dec`, `december 24 2027`; without a year it is the next such day."""
    found = _MONTH_DAY.fullmatch(words)
    month = found and (found["month"] or found["month2"])
    if not found or month not in _MONTHS:
        return None
    number, day = _MONTHS.index(month) + 1, int(found["day"] or found["day2"])
    if found["year"]:
        return _at(date(int(found["year"]), number, day), found["rest"])
    this_year = date(now.year, number, day)
    return _at(this_year if this_year >= now.date() else this_year.replace(year=now.year + 1), found["rest"])


def _day_of_month(words: str, now: datetime) -> date | None:
    """`1st`, `31st 9am`: the next such day, in the first month that has it."""
    if (found := _DAY_OF_MONTH.fullmatch(words)) is None:
        return None
    number = int(found[1])
    for count in range(_MONTHS_TO_TRY):
        first = _months_later(now.date().replace(day=1), count)
        last = calendar.monthrange(first.year, first.month)[1]
        if number <= last and (day := first.replace(day=number)) >= now.date():
            return _at(day, found[2])
    raise ValueError(words)


def _clock_alone(words: str, now: datetime) -> date | None:
    """`9am`, `17:30`: today, or tomorrow if that time has passed."""
    if words in _ENDS_OF_DAY:
        return now.date() if words else None
    if (clock := _time(words)) is None:
        return None
    today = datetime.combine(now.date(), clock)
    return today if today > now else today + timedelta(days=1)


def _at(day: date, clock: str) -> date | None:
    if clock in _ENDS_OF_DAY:
        return day
    found = _time(clock)
    return None if found is None else datetime.combine(day, found)


def _exactly(at: datetime, rest: str) -> datetime | None:
    return None if rest else at.replace(microsecond=0)


def _time(text: str) -> time | None:
    """Returns a time of day; None for anything else, also for a bare number. Raises ValueError for an hour that does not exist."""
    if text == "noon":
        return _NOON
    found = _CLOCK.fullmatch(text.replace(" ", ""))
    if found is None or not (found["minute"] or found["half"]):
        return None
    hour = int(found["hour"])
    if found["half"]:
        if not 1 <= hour <= _HALF_DAY_HOURS:
            raise ValueError(text)
        hour = hour % _HALF_DAY_HOURS + (_HALF_DAY_HOURS if found["half"] == "pm" else 0)
    return time(hour, int(found["minute"] or 0))


def _months_later(day: date, count: int) -> date:
    """Returns the same day of a later month, or that month's last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + count, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
