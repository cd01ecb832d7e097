"""How a task repeats, as people type it: from text to a rule of RFC 5545, and back to text."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

EXAMPLES: Final = 'day, weekday, week, "2 weeks", month, year, "mon,thu", "2 weeks fri", 15th, "last fri", or a rule such as FREQ=DAILY;COUNT=3'

_FILLERS: Final = frozenset({"and", "each", "every", "of", "on", "the"})
_DAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_DAY_NAMES: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORKDAYS: Final = "MO,TU,WE,TH,FR"
_GROUPS: Final = {**dict.fromkeys(("weekday", "weekdays"), _WORKDAYS), **dict.fromkeys(("weekend", "weekends"), "SA,SU")}
_UNITS: Final = {
    **dict.fromkeys(("day", "days", "daily"), "DAILY"),
    **dict.fromkeys(("week", "weeks", "weekly"), "WEEKLY"),
    **dict.fromkeys(("month", "months", "monthly"), "MONTHLY"),
    **dict.fromkeys(("year", "years", "yearly"), "YEARLY"),
}
_NAMES: Final = {"DAILY": "day", "WEEKLY": "week", "MONTHLY": "month", "YEARLY": "year"}
_ORDINAL: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th)")
_COUNT: Final = re.compile(r"\d{1,4}")


class UnclearRule(ValueError):
    """The text is not a rule that this module understands."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} does not say how to repeat; for example: {EXAMPLES}")


def rule(text: str) -> str:
    """Returns the rule that a text means. A text with `=` is a rule already, which the server checks. Raises UnclearRule."""
    if "=" in text:
        return text.strip().upper().removeprefix("RRULE:")
    words = [word for word in re.split(r"[,\s]+", text.lower()) if word and word not in _FILLERS]
    interval, words = _interval(words)
    unit, words = _unit(words)
    frequency, days = _days(text, words)
    if not (unit or days) or (days and unit not in ("", frequency)) or (interval and not unit):
        raise UnclearRule(text)
    parts = {"FREQ": unit or frequency, "INTERVAL": interval, **days}
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)


def described(rrule: str) -> str:
    """Returns a rule as people say it, or the rule itself if it has more parts than this module writes."""
    parts = dict(part.split("=", 1) for part in rrule.upper().split(";") if "=" in part)
    unit, interval, days = _NAMES.get(parts.pop("FREQ", ""), ""), parts.pop("INTERVAL", "1"), parts.pop("BYDAY", "")
    month_days = parts.pop("BYMONTHDAY", "")
    if parts or not unit or (days and month_days):
        return rrule
    if days == _WORKDAYS and (unit, interval) == ("week", "1"):
        return "every weekday"
    often = f"every {unit}" if interval == "1" else f"every {interval} {unit}s"
    names = [_said(day) for day in days.split(",")] if days else [_nth_day(day) for day in month_days.split(",")] if month_days else []
    return f"{often} on {', '.join(names)}" if names else often


def _interval(words: list[str]) -> tuple[str, list[str]]:
    """Returns the interval, "" for none or 1, and the other words."""
    if words and (words[0] == "other" or _COUNT.fullmatch(words[0])):
        count = 2 if words[0] == "other" else int(words[0])
        return "" if count == 1 else str(count), words[1:]
    return "", words


def _unit(words: list[str]) -> tuple[str, list[str]]:
    """Returns the frequency that stands before the days (`2 weeks on fri`) or behind them (`last fri of the month`), "" for none, and the days."""
    if words and (unit := _UNITS.get(words[0])):
        return unit, words[1:]
    return ("MONTHLY", words[:-1]) if words[1:] and words[-1] == "month" else ("", words)


def _days(text: str, words: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """Returns the frequency that days have, and their part of the rule: weekdays, weekdays of a month, or days of a month. Raises UnclearRule."""
    weekdays, month_days, nth = list[str](), list[str](), ""
    for word in words:
        if (number := _number(word)) and not nth:
            nth = number
        elif number or (word == "day" and nth):
            month_days.append(nth)
            nth = number
        elif (day := _weekday(word)) and not (nth and "," in day):
            weekdays.append(nth + day)
            nth = ""
        else:
            raise UnclearRule(text)
    if nth == "-1":
        raise UnclearRule(text)
    month_days += [nth] if nth else []
    is_monthly = {day[0] in "-0123456789" for day in weekdays}
    if (weekdays and month_days) or len(is_monthly) > 1:
        raise UnclearRule(text)
    if month_days:
        return "MONTHLY", {"BYMONTHDAY": ",".join(month_days)}
    return "MONTHLY" if True in is_monthly else "WEEKLY", {"BYDAY": ",".join(weekdays)} if weekdays else {}


def _number(word: str) -> str:
    """Returns the number of `2nd`, -1 for `last`, or ""."""
    if word == "last":
        return "-1"
    found = _ORDINAL.fullmatch(word)
    return str(int(found[1])) if found else ""


def _weekday(word: str) -> str:
    """Returns the days that a word means, or ""."""
    if word in _GROUPS:
        return _GROUPS[word]
    return next((day for day, name in zip(_DAYS, _DAY_NAMES, strict=True) if len(word) >= 3 and name.startswith(word.removesuffix("s"))), "")


def _said(day: str) -> str:
    """Returns a day of BYDAY, such as 2TU, as people say it."""
    nth, name = day[:-2], day[-2:]
    if name not in _DAYS:
        return day
    said = _DAY_NAMES[_DAYS.index(name)].capitalize()[:3]
    return f"the {_counted(nth)} {said}" if nth else said


def _nth_day(number: str) -> str:
    return f"the {_counted(number)}" + (" day" if number.startswith("-") else "")


def _counted(number: str) -> str:
    """Returns a number as 1st, 2nd, 3rd, 4th, last."""
    if not number.isdecimal():
        return {"-1": "last"}.get(number, number)
    ending = "th" if number in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return f"{number}{ending}"
