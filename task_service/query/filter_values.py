"""Parses the values with which a filter compares fields."""

import re
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from task_service.query.domain import IDS, TIMES, Field, Status, Value

# A date alone, or a time of RFC 3339 as REST bodies have it (gateway/times.lua): T and Z in capitals, at most 9 digits of a second, no leap second.
_HOUR_MINUTE: Final = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(T{_HOUR_MINUTE}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_HOUR_MINUTE}))?")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PRIORITY: Final = re.compile(r"[1-5]")


class WrongValue(ValueError):
    """The text is not a valid value of its field. The message says what is valid: `must be …`."""


def value_of(field: Field, text: str) -> Value:
    """Parses the text as a value of the field. Raises WrongValue."""
    if field is Field.STATUS:
        return _status(text)
    if field is Field.PRIORITY:
        return _priority(text)
    if field in IDS:
        return _id(text)
    if field is Field.DUE_ON:
        return _day(text)
    return _time(text) if field in TIMES else text


def _status(text: str) -> Status:
    for status in Status:
        if status.name.lower() == text.lower():
            return status
    raise WrongValue(f"must be one of {', '.join(status.name for status in Status)}")


def _priority(text: str) -> int:
    if not _PRIORITY.fullmatch(text):
        raise WrongValue("must be a whole number from 1 to 5")
    return int(text)


def _id(text: str) -> UUID:
    if not _UUID.fullmatch(text):
        raise WrongValue("must be the id of an object, a UUID")
    return UUID(text)


def _day(text: str) -> date:
    try:
        if not _DAY.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise WrongValue("must be a date such as 2026-12-31") from None


def _time(text: str) -> datetime:
    """Parses a time to the microsecond, like the times of tasks. A date alone means midnight in UTC."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise WrongValue("must be a time such as 2026-12-31T12:00:00Z, or a date such as 2026-12-31") from None
