"""When a task is due and how it recurs: plain values, independent of text, storage and wire format."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum, IntEnum
from typing import Final, NamedTuple

# The bounds of `due_date` in the protos. The storage uses the times just outside as infinities.
LAST_DUE: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
# The last day whose end is a time that can be stored in every time zone.
LAST_DAY: Final = date(9999, 12, 30)


class Frequency(Enum):
    """The period of a rule: FREQ (RFC 5545 §3.3.10)."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    YEARLY = "YEARLY"


class Anchor(IntEnum):
    """What the next due date follows: the old due date or the completion. The API and the table use the same numbers."""

    DUE = 1
    COMPLETION = 2


class WeekDay(NamedTuple):
    """A day of BYDAY. `weekday` counts from Monday = 0. `nth` is its number in the month or year, negative from the end; 0 means every one."""

    nth: int
    weekday: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A recurrence rule (RFC 5545 §3.3.10), as `rule_syntax.parse_rule` accepts it. Lists are sorted; an empty one means that its part is absent.

    `until` is a date or an aware time in UTC, and is the last that may recur.
    """

    frequency: Frequency
    interval: int = 1
    count: int | None = None
    until: date | datetime | None = None
    months: tuple[int, ...] = ()
    month_days: tuple[int, ...] = ()
    days: tuple[WeekDay, ...] = ()
    positions: tuple[int, ...] = ()
    week_start: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """When a task is due: at `due_date`, an aware time, or on the whole day `due_on`, but not both. `time_zone` is an IANA name, "" means UTC."""

    due_date: datetime | None = None
    due_on: date | None = None
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """What is stored with a recurring task beside its rule, so that the next one is exact although only this task is known.

    `start` (DTSTART) is the wall-clock time at which the series starts, without a zone; midnight if the task has `due_on`. The phase of INTERVAL, the
    time of day and the parts that the rule omits come from it: the due date does not tell them if a gap in the clock moved it. `number` says how many
    tasks of the series exist up to this one, so the first has 1. COUNT is its maximum.
    """

    start: datetime
    number: int


@dataclass(frozen=True, slots=True)
class NextTask:
    """When the next task is due, and its place in the series."""

    due: Due
    series: Series
