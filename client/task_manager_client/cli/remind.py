"""When a task reminds, as people type it: from text to a reminder, and back to text."""

import re
from datetime import datetime, timedelta
from typing import Final

from task_manager_client.cli import when
from task_manager_client.due_values import Reminder

EXAMPLES: Final = '10m, 2h, 1d, 1w before it is due, or a time such as "fri 9am"'

_BEFORE: Final = re.compile(r"((?:\d{1,5} ?[a-z]+ ?){1,3}?)(?: ?before)?")
_PIECE: Final = re.compile(r"(\d+) ?([a-z]+)")
_UNITS: Final = {
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), timedelta(minutes=1)),
    **dict.fromkeys(("h", "hour", "hours"), timedelta(hours=1)),
    **dict.fromkeys(("d", "day", "days"), timedelta(days=1)),
    **dict.fromkeys(("w", "week", "weeks"), timedelta(weeks=1)),
}
_NAMES: Final = (("week", timedelta(weeks=1)), ("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))


class UnclearReminder(ValueError):
    """The text is not a reminder that this module understands."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} does not say when to remind; for example: {EXAMPLES}")


def reminder(text: str, now: datetime) -> Reminder:
    """Returns the reminder that a text means. `now` is aware and in the local time zone. Raises UnclearReminder."""
    words = " ".join(text.lower().split())
    if words in {"0", "due", "at due", "when due"}:
        return Reminder(before_due=timedelta())
    before = _before(words)
    if before is not None:
        return Reminder(before_due=before)
    try:
        at = when.due(text, now)
    except when.UnclearTime as error:
        raise UnclearReminder(text) from error
    if not isinstance(at, datetime):
        # Nobody wants to be reminded at midnight.
        raise UnclearReminder(text)
    return Reminder(at=at)


def shown(reminder: Reminder, now: datetime) -> str:
    """Returns a short text for a reminder. `now` is as for `reminder`."""
    if reminder.at is not None:
        return when.shown(reminder.at, now)
    left = reminder.before_due or timedelta()
    pieces = []
    for name, unit in _NAMES:
        count, left = divmod(left, unit)
        pieces += [f"{count} {name}{'s' if count > 1 else ''}"] if count else []
    pieces += [f"{left // timedelta(seconds=1)} seconds"] if left else []
    return f"{' '.join(pieces)} before" if pieces else "when due"


def _before(words: str) -> timedelta | None:
    """`10m`, `1h 30m`, `2 days before`; None for anything else."""
    found = _BEFORE.fullmatch(words)
    pieces = _PIECE.findall(found[1]) if found else []
    if not pieces or not all(unit in _UNITS for _, unit in pieces):
        return None
    return sum((int(count) * _UNITS[unit] for count, unit in pieces), timedelta())
