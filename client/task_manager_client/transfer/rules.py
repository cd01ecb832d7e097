"""Which recurrence rules of RFC 5545 the API has, as far as a client must know it to say what an import leaves out. The server checks the rest."""

import re
from typing import Final

MAX_CHARACTERS: Final = 200
MAX_INTERVAL: Final = 999
_FREQUENCIES: Final = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_PARTS: Final = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "BYMONTH", "BYMONTHDAY", "BYDAY", "BYSETPOS", "WKST")
# A time without Z is in a zone that the rule does not name: its date is kept.
_LOCAL_UNTIL: Final = re.compile(r"(\d{8})T\d{6}")


class UnknownRule(ValueError):
    """The API does not have this rule."""


def checked(text: str) -> str:
    """Returns a rule in capitals and in the API's form. Raises UnknownRule."""
    parts = {}
    for part in text.strip().upper().removeprefix("RRULE:").rstrip(";").split(";"):
        name, _, value = part.partition("=")
        if not value or name not in _PARTS:
            raise UnknownRule(f"{name or 'a part'} is no part of a rule here")
        parts[name] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        raise UnknownRule(f"FREQ must be one of {', '.join(_FREQUENCIES)}")
    interval = parts.get("INTERVAL", "1")
    if not interval.isdecimal() or not 1 <= int(interval) <= MAX_INTERVAL:
        raise UnknownRule(f"INTERVAL must be from 1 to {MAX_INTERVAL}")
    if found := _LOCAL_UNTIL.fullmatch(parts.get("UNTIL", "")):
        parts["UNTIL"] = found[1]
    rule = ";".join(f"{name}={value}" for name, value in parts.items())
    if len(rule) > MAX_CHARACTERS:
        raise UnknownRule(f"a rule has at most {MAX_CHARACTERS} characters")
    return rule


def every(interval: int, unit: str, days: str = "") -> str:
    """Returns the rule of an interval, such as every 2 WEEKLY."""
    parts = {"FREQ": unit, "INTERVAL": str(interval) if interval > 1 else "", "BYDAY": days}
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)
