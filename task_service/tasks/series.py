"""What an update of a due date or a recurrence means for the task as it is, and which task follows a completed one. Pure functions.

The repository compares the version of the task with the one that was planned for, so a plan never meets another task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidField, Violation
from task_service.due.dates import due_at
from task_service.due.domain import Due
from task_service.due.recurrence import check_recurs, next_due, series_from
from task_service.due.rule_syntax import parse_rule
from task_service.query.domain import Status
from task_service.tasks.domain import Recurrence, Task, TaskFields
from task_service.tasks.writes import NextTask, Update

DUE_FIELDS: Final = frozenset({"due_date", "due_on", "time_zone"})
# The fields in which an update sets what it sets in another one too.
_COUPLED: Final = ("due_date", "due_on", "time_zone", "recurrence")


def stored(fields: TaskFields) -> TaskFields:
    """Returns the fields of a new task in the form in which they are stored. Raises InvalidField for a field of `task`."""
    if fields.due_on is None and fields.recurrence is None:
        return fields
    due = Due(fields.due_date, fields.due_on, fields.time_zone)
    recurrence = None if fields.recurrence is None else _begun(fields.recurrence, due)
    return replace(fields, due_date=due_at(due.due_date, due.due_on, due.time_zone), recurrence=recurrence)


def needs_task(update: Update) -> bool:
    """Whether the update can only be planned for the task as it is. A completion may need it too, if the task recurs."""
    touched = DUE_FIELDS.intersection(update.mask)
    return bool(touched - {"due_date"} and touched < DUE_FIELDS) or ("recurrence" in update.mask and update.fields.recurrence is not None)


def independent(update: Update) -> Update:
    """Returns the plan of an update that does not need the task."""
    fields = update.fields
    # A recurrence that the mask names needs the task.
    if fields.recurrence is not None:
        fields = replace(fields, recurrence=None)
    if fields.due_on is not None and "due_on" in update.mask:
        fields = replace(fields, due_date=due_at(None, fields.due_on, fields.time_zone))
    return update if fields is update.fields else replace(update, fields=fields)


def unplanned(update: Update) -> Update:
    """Returns a plan that no task agrees with, so the write is refused, unless it is a repetition."""
    return replace(update, fields=TaskFields(), mask=(), basis=0)


def planned(
    updates: Sequence[Update], tasks: Mapping[UUID, Task], now: datetime, new_id: Callable[[], UUID], path: Callable[[int], str]
) -> Sequence[Update]:
    """Returns the plans of updates that follow one another, for the tasks as they are. That of a task that is not there changes nothing.

    Raises InvalidField. `path` returns the field of the request that has the task of an update.
    """
    known = dict(tasks)
    plans = []
    for index, update in enumerate(updates):
        task = known.get(update.id)
        if task is None:
            # The write refuses it. If the task is there by then, the basis differs.
            plans.append(unplanned(update))
            continue
        try:
            plan, known[update.id] = _planned(update, task, now, new_id)
        except InvalidField as error:
            raise InvalidField(*(Violation(each.field.replace("task", path(index), 1), each.description) for each in error.violations)) from error
        plans.append(plan)
    return plans


def _planned(update: Update, task: Task, now: datetime, new_id: Callable[[], UUID]) -> tuple[Update, Task]:
    """Returns the plan of an update, and the task after it."""
    due, recurrence = _due_after(update, task), task.recurrence
    if "recurrence" in update.mask:
        recurrence = update.fields.recurrence
    if recurrence is not None:
        recurrence = _continued(recurrence, due, task)
    fields = replace(
        update.fields, due_date=due_at(due.due_date, due.due_on, due.time_zone), due_on=due.due_on, time_zone=due.time_zone, recurrence=recurrence
    )
    mask = [*(name for name in update.mask if name not in _COUPLED), *_COUPLED]
    after = task._replace(**{name: getattr(fields, name) for name in mask})
    following = None
    if recurrence is not None and after.status is Status.COMPLETED and task.status is not Status.COMPLETED and task.next_id is None:
        following = _next(recurrence, due, now, new_id)
        after = after._replace(next_id=following.id if following else None)
    if after != task:
        after = after._replace(version=task.version + 1)
    return replace(update, fields=fields, mask=mask, basis=task.version, next=following), after


def _due_after(update: Update, task: Task) -> Due:
    """Returns the due date after the update: to set `due_date` clears `due_on`, and the reverse."""
    fields, due = update.fields, task.due
    if "due_date" in update.mask:
        due = replace(due, due_date=fields.due_date, due_on=None if fields.due_date else due.due_on)
    if "due_on" in update.mask:
        due = replace(due, due_on=fields.due_on, due_date=None if fields.due_on else due.due_date)
    if "time_zone" in update.mask:
        due = replace(due, time_zone=fields.time_zone)
    return due


def _continued(recurrence: Recurrence, due: Due, task: Task) -> Recurrence:
    """Returns the recurrence with its series: the one that the task has, unless the rule or the due date is another one now."""
    before = task.recurrence
    if before is None or (before.rrule, before.anchor) != (recurrence.rrule, recurrence.anchor) or before.series is None:
        return _begun(recurrence, due)
    if due == task.due:
        return before
    return replace(before, series=series_from(due, number=before.series.number))


def _begun(recurrence: Recurrence, due: Due) -> Recurrence:
    """Returns the recurrence with a series that begins at the due date."""
    series = series_from(due)
    check_recurs("task.recurrence.rrule", parse_rule("task.recurrence.rrule", recurrence.rrule), due)
    return replace(recurrence, series=series)


def _next(recurrence: Recurrence, due: Due, now: datetime, new_id: Callable[[], UUID]) -> NextTask | None:
    """Returns the task that follows one that is completed now, or None if the rule is used up."""
    assert recurrence.series is not None
    following = next_due(parse_rule("task.recurrence.rrule", recurrence.rrule), recurrence.anchor, recurrence.series, due, now)
    if following is None:
        return None
    due = following.due
    fields = TaskFields(
        due_date=due_at(due.due_date, due.due_on, due.time_zone),
        due_on=due.due_on,
        time_zone=due.time_zone,
        recurrence=replace(recurrence, series=following.series),
    )
    return NextTask(new_id(), fields)
