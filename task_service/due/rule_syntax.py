"""Parses recurrence rules from their text (RFC 5545 §3.3.10) and writes the one canonical text of each.

The language is narrower than the RFC's: only the parts in PARTS, and only combinations that have a meaning. Nothing else reaches dateutil.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

from servicekit.errors import InvalidField
from task_service.due.domain import Frequency, Rule, WeekDay

Item = TypeVar("Item", int, WeekDay)

MAX_CHARACTERS: Final = 200
MAX_INTERVAL: Final = 999
MAX_COUNT: Final = 999_999
WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
# Most tasks of a user have a few different rules.
CACHED_RULES: Final = 256
# Error messages quote at most this many characters of a part's name.
SHOWN_CHARACTERS: Final = 20

_NUMBER: Final = re.compile(r"[0-9]{1,6}")
_SIGNED: Final = re.compile(r"[+-]?[0-9]{1,3}")
_DAY: Final = re.compile(r"([+-]?[0-9]{1,2})?([A-Z]{2})")
_UNTIL: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:T([0-9]{2})([0-9]{2})([0-9]{2})Z)?")
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# The number of days in the longest period: the bound of BYSETPOS.
_PERIOD_DAYS: Final = {Frequency.WEEKLY: 7, Frequency.MONTHLY: 31, Frequency.YEARLY: 366}


class _Wrong(ValueError):
    """What is wrong with the rule, beginning with the name of the part."""


@lru_cache(CACHED_RULES)
def parse_rule(field: str, text: str) -> Rule:
    """Returns the rule of a text such as `FREQ=WEEKLY;BYDAY=MO`. Raises InvalidField for `field`, with a description that names the part."""
    try:
        return _parsed(text)
    except _Wrong as wrong:
        raise InvalidField.of(field, str(wrong)) from None


def rule_text(rule: Rule) -> str:
    """Returns the canonical text: capitals, the order of PARTS, sorted lists, plain numbers, and no part that only states a default."""
    values = {
        "FREQ": rule.frequency.value,
        "INTERVAL": str(rule.interval) if rule.interval > 1 else "",
        "COUNT": "" if rule.count is None else str(rule.count),
        "UNTIL": _until_text(rule.until),
        "BYMONTH": _joined(rule.months),
        "BYMONTHDAY": _joined(rule.month_days),
        "BYDAY": ",".join(f"{day.nth or ''}{WEEKDAYS[day.weekday]}" for day in rule.days),
        "BYSETPOS": _joined(rule.positions),
        "WKST": WEEKDAYS[rule.week_start] if rule.week_start else "",
    }
    return ";".join(f"{name}={value}" for name, value in values.items() if value)


def _joined(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _until_text(until: date | datetime | None) -> str:
    if until is None:
        return ""
    day = f"{until.year:04}{until.month:02}{until.day:02}"
    return f"{day}T{until:%H%M%S}Z" if isinstance(until, datetime) else day


def _parsed(text: str) -> Rule:
    if len(text) > MAX_CHARACTERS:
        raise _Wrong(f"must have at most {MAX_CHARACTERS} characters")
    if not text.isascii():  # other letters can have ASCII capitals
        raise _Wrong("must have only ASCII characters")
    values: dict[str, Any] = {}
    for part in text.upper().split(";"):
        name, _, value = part.partition("=")
        if not name or not value:
            raise _Wrong(f"{_shown(name) or 'a part'} must have the form NAME=VALUE, and one semicolon must stand between two parts")
        if name not in PARTS:
            raise _Wrong(f"{_shown(name)} must not stand in a rule: its parts are {', '.join(PARTS)}")
        attribute, parse = PARTS[name]
        if attribute in values:
            raise _Wrong(f"{name} must stand only once")
        values[attribute] = parse(name, value)
    if "frequency" not in values:
        raise _Wrong("FREQ must stand in every rule")
    rule = Rule(**values)
    for check in (_check_end, _check_month_days, _check_days, _check_positions):
        check(rule)
    return rule


def _shown(name: str) -> str:
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…"


def _frequency(name: str, value: str) -> Frequency:
    try:
        return Frequency(value)
    except ValueError:
        raise _Wrong(f"{name} must be one of {', '.join(each.value for each in Frequency)}") from None


def _number_to(most: int) -> Callable[[str, str], int]:
    def number(name: str, value: str) -> int:
        if not _NUMBER.fullmatch(value) or not 1 <= int(value) <= most:
            raise _Wrong(f"{name} must be a whole number from 1 to {most}")
        return int(value)

    return number


def _numbers_to(most: int, *, least: int) -> Callable[[str, str], tuple[int, ...]]:
    bounds = f"from 1 to {most}" if least > 0 else f"from 1 to {most} or from -{most} to -1"

    def number(name: str, value: str) -> int:
        if not _SIGNED.fullmatch(value) or not least <= int(value) <= most or not int(value):
            raise _Wrong(f"{name} must be whole numbers {bounds}, separated by commas")
        return int(value)

    return lambda name, value: _distinct(name, value, number)


def _distinct(name: str, value: str, parse: Callable[[str, str], Item]) -> tuple[Item, ...]:
    items = [parse(name, item) for item in value.split(",")]
    if len(set(items)) < len(items):
        raise _Wrong(f"{name} must have each value only once")
    return tuple(sorted(items))


def _week_days(name: str, value: str) -> tuple[WeekDay, ...]:
    return _distinct(name, value, _week_day)


def _week_day(name: str, value: str) -> WeekDay:
    found = _DAY.fullmatch(value)
    if not found or found[2] not in WEEKDAYS or (found[1] and not int(found[1])):
        raise _Wrong(f"{name} must be days such as MO, 1MO or -1SU, separated by commas")
    return WeekDay(int(found[1] or 0), WEEKDAYS.index(found[2]))


def _week_start(name: str, value: str) -> int:
    if value not in WEEKDAYS:
        raise _Wrong(f"{name} must be one of {', '.join(WEEKDAYS)}")
    return WEEKDAYS.index(value)


def _until(name: str, value: str) -> date | datetime:
    found = _UNTIL.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        if found[4] is None:
            return date(*map(int, found.groups()[:3]))
        year, month, day, hour, minute, second = map(int, found.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise _Wrong(f"{name} must be a date such as 20261231 or a time in UTC such as 20261231T120000Z") from None


def _check_end(rule: Rule) -> None:
    if rule.count is not None and rule.until is not None:
        raise _Wrong("COUNT and UNTIL must not stand in the same rule")


def _check_month_days(rule: Rule) -> None:
    if not rule.month_days:
        return
    if rule.frequency is Frequency.WEEKLY:
        raise _Wrong("BYMONTHDAY must not stand with FREQ=WEEKLY")
    longest = max(_LONGEST_MONTHS[month - 1] for month in rule.months or range(1, 13))
    if all(abs(day) > longest for day in rule.month_days):
        raise _Wrong("BYMONTHDAY must be a day that a month of BYMONTH has")


def _check_days(rule: Rule) -> None:
    counted = [day for day in rule.days if day.nth]
    if not counted:
        return
    if len(counted) < len(rule.days):
        raise _Wrong("BYDAY must have a number before each day or before none")
    if rule.frequency in {Frequency.DAILY, Frequency.WEEKLY}:
        raise _Wrong("BYDAY must have no numbers unless FREQ is MONTHLY or YEARLY")
    if rule.month_days:
        raise _Wrong("BYDAY must have no numbers if BYMONTHDAY stands in the rule")
    most = 53 if rule.frequency is Frequency.YEARLY and not rule.months else 5
    if any(abs(day.nth) > most for day in counted):
        raise _Wrong(f"BYDAY must have numbers from 1 to {most} or from -{most} to -1 in this rule")


def _check_positions(rule: Rule) -> None:
    if not rule.positions:
        return
    if rule.frequency is Frequency.DAILY:
        raise _Wrong("BYSETPOS must not stand with FREQ=DAILY")
    if not (rule.days or rule.month_days or rule.months):
        raise _Wrong("BYSETPOS must stand with BYDAY, BYMONTHDAY or BYMONTH")
    most = max(1, len(rule.days)) if rule.frequency is Frequency.WEEKLY else _PERIOD_DAYS[rule.frequency]
    if any(abs(position) > most for position in rule.positions):
        raise _Wrong(f"BYSETPOS must be from 1 to {most} or from -{most} to -1 in this rule")


# The parts of a rule in their canonical order: the attribute of Rule, and the function that parses the value.
PARTS: Final[Mapping[str, tuple[str, Callable[[str, str], object]]]] = {
    "FREQ": ("frequency", _frequency),
    "INTERVAL": ("interval", _number_to(MAX_INTERVAL)),
    "COUNT": ("count", _number_to(MAX_COUNT)),
    "UNTIL": ("until", _until),
    "BYMONTH": ("months", _numbers_to(12, least=1)),
    "BYMONTHDAY": ("month_days", _numbers_to(31, least=-31)),
    "BYDAY": ("days", _week_days),
    "BYSETPOS": ("positions", _numbers_to(366, least=-366)),
    "WKST": ("week_start", _week_start),
}
