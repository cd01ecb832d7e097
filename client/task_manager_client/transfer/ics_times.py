"""Times and durations of iCalendar (RFC 5545, sections 3.3.4 to 3.3.6), both ways."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from task_manager_client.transfer.content_lines import Property, written

_DURATION: Final = re.compile(r"([+-])?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_DAY: Final = "%Y%m%d"
_TIME: Final = "%Y%m%dT%H%M%S"


def day_or_time(found: Property, local: ZoneInfo) -> date:
    """Returns the day, or the aware time in UTC, of a property. A time without a zone, or with an unknown one, is in the local zone.

    Raises ValueError.
    """
    text = found.value.strip()
    if "T" not in text:
        return datetime.strptime(text, _DAY).date()  # noqa: DTZ007 - a day has no zone
    at = datetime.strptime(text.removesuffix("Z"), _TIME)  # noqa: DTZ007 - its zone follows
    zone = UTC if text.endswith("Z") else zone_named(zone_name(found)) or local
    return at.replace(tzinfo=zone).astimezone(UTC)


def zone_name(found: Property) -> str:
    """Returns the IANA name of a property's zone, or "". Some programs write a path before it."""
    name = found.parameters.get("TZID", "")
    parts = name.strip("/").split("/")
    candidates = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((each for each in candidates if zone_named(each) is not None), "")


def zone_named(name: str) -> ZoneInfo | None:
    """Returns a zone, or None if there is none of this name."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def duration(text: str) -> timedelta:
    """Returns a duration. Raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    weeks, days, hours, minutes, seconds = (int(each or 0) for each in found.groups()[1:])
    length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    return -length if found[1] == "-" else length


def duration_text(length: timedelta) -> str:
    """Returns the text of a duration, in seconds."""
    seconds = round(length.total_seconds())
    return f"{'-' if seconds < 0 else ''}PT{abs(seconds)}S"


def day_line(name: str, day: date) -> bytes:
    """Returns the lines of a property that is a day."""
    return written(name, f"{day:%Y%m%d}".rjust(len("20261224"), "0"), VALUE="DATE")


def time_line(name: str, at: datetime, zone: str = "") -> bytes:
    """Returns the lines of a property that is a time: in the zone, if it says the same instant there, or else in UTC."""
    local = zone_named(zone)
    if local is not None:
        wall = at.astimezone(local)
        if wall.replace(fold=0).astimezone(UTC) == at and wall.year >= 1000:
            return written(name, f"{wall:%Y%m%dT%H%M%S}", TZID=zone)
    return written(name, time_text(at))


def time_text(at: datetime) -> str:
    """Returns an instant as text."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S}".rjust(len("20261224T120000"), "0") + "Z"
