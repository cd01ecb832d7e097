"""Single fields in the API's JSON, both ways: times, days and durations."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Self, TypeAlias

Json: TypeAlias = Mapping[str, Any]


class OpenEnum(StrEnum):
    """An enum to which a newer server can add values: it has a member UNKNOWN, which stands for them."""

    @classmethod
    def _missing_(cls, value: object) -> Self:  # noqa: ARG003 - the signature of Enum
        return cls["UNKNOWN"]


_SECOND = timedelta(seconds=1)


def time_of(text: str) -> datetime:
    """Returns a time, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def optional_time_of(text: str | None) -> datetime | None:
    """Returns a time, in UTC, or None if the field is absent."""
    return None if text is None else time_of(text)


def optional_day_of(text: str | None) -> date | None:
    """Returns a day, or None if the field is absent or empty."""
    return date.fromisoformat(text) if text else None


def optional_duration_of(text: str | None) -> timedelta | None:
    """Returns a duration such as 3600s, or None if the field is absent."""
    return None if text is None else timedelta(seconds=float(text.removesuffix("s")))


def sent_time(at: datetime) -> str:
    """Returns the text of a time. A naive time is in the local time zone."""
    # Not astimezone for a naive time: in the gap of a clock change it moves the time back.
    aware = at.astimezone(UTC) if at.tzinfo else datetime.fromtimestamp(at.timestamp(), UTC)
    return aware.isoformat().replace("+00:00", "Z")


def sent_duration(duration: timedelta) -> str:
    """Returns the text of a duration, in whole seconds."""
    return f"{duration // _SECOND}s"
