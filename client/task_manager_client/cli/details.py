"""What the options of `add` and `edit` say about a task."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from task_manager_client.cli import every, options, remind, when
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import NONE
from task_manager_client.cli.zone import local_zone
from task_manager_client.due_values import Anchor, Recurrence, Reminder
from task_manager_client.values import TaskDetails

_REPEATS: Final = "--after-done belongs to --every: give both"


def due_details(text: str) -> TaskDetails:
    """Returns the fields that `--due` sets; `none` clears them. A day is due at its end in the local time zone. Raises UsageError."""
    if text.strip().lower() == NONE:
        return {"due_date": None, "due_on": None}
    at, zone = options.due(text), local_zone()
    if isinstance(at, datetime):
        # With its zone, a task that repeats keeps its time of day when the clock changes.
        return {"due_date": at, "time_zone": zone}
    # Without a name of the zone the server cannot know when the day ends.
    return {"due_on": at, "time_zone": zone} if zone else {"due_date": when.late_on(at)}


def recurrence(text: str | None, *, after_done: bool) -> Recurrence | None:
    """Returns what `--every` says; `none` is None. Raises UsageError."""
    if text is None or text.strip().lower() == NONE:
        if after_done:
            raise UsageError(_REPEATS)
        return None
    try:
        return Recurrence(every.rule(text), Anchor.COMPLETION if after_done else Anchor.DUE)
    except every.UnclearRule as error:
        raise UsageError(str(error)) from error


def reminders(texts: Sequence[str]) -> list[Reminder]:
    """Returns what `--remind` says; `none` means no reminders. Raises UsageError."""
    if [text.strip().lower() for text in texts] == [NONE]:
        return []
    try:
        return [remind.reminder(text, options.now()) for text in texts]
    except remind.UnclearReminder as error:
        raise UsageError(str(error)) from error


def details(
    *, description: str | None, priority: int | None, due: str | None, every: str | None, after_done: bool, remind: Sequence[str] | None
) -> TaskDetails:
    """Returns the fields that the options name. Raises UsageError."""
    found: TaskDetails = {}
    if description is not None:
        found["description"] = description
    if priority is not None:
        found["priority"] = priority
    if due is not None:
        found.update(due_details(due))
    if every is not None or after_done:
        found["recurrence"] = recurrence(every, after_done=after_done)
    if remind:
        found["reminders"] = reminders(remind)
    return found
