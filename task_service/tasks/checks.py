"""What is wrong with the requests of TaskService beyond the bounds in the protos. Each method is named `check_` and its RPC, in snake_case.

The pipeline calls it before the handler and adds its violations to those of the bounds, so an error names every invalid field.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import InvalidField, Violation, collected
from servicekit.rpc.call import Call
from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.resources import resource_id
from servicekit.rpc.retry import violations_of_unconditional_write, violations_of_write
from servicekit.rpc.timestamps import check_nanos
from task_service.due.dates import parse_day
from task_service.due.rule_syntax import parse_rule
from task_service.due.zones import check_zone
from task_service.query.filter_syntax import parse_filter
from task_service.query.order import parse_order
from task_service.tasks.domain import WRITABLE_FIELDS
from task_service.tasks.messages import etag, task_id, to_fields
from task_service.tasks.series import stored

MISSING_TITLE: Final = "must have 1 to 200 characters"
# The fields whose zero means the default. An explicit zero without a mask is refused: it could be a mistake, and it would reset the field.
DEFAULTED: Final = ("status", "priority")


class TaskChecks:
    """The checks."""

    def check_create_task(self, request: task_service_pb2.CreateTaskRequest, call: Call) -> Sequence[Violation]:
        """CreateTask."""
        return [*violations_of_unconditional_write(call), *_of_creation(request), *_of_lists(request)]

    def check_list_tasks(self, request: task_service_pb2.ListTasksRequest, _: Call) -> Sequence[Violation]:
        """ListTasks."""
        return collected(partial(parse_order, request.order_by), partial(parse_filter, request.filter))

    def check_update_task(self, request: task_service_pb2.UpdateTaskRequest, call: Call) -> Sequence[Violation]:
        """UpdateTask."""
        return [*violations_of_write(request.task.etag, call), *_of_update(request)]

    def check_replace_task(self, request: task_service_pb2.ReplaceTaskRequest, call: Call) -> Sequence[Violation]:
        """ReplaceTask."""
        return [*violations_of_write(request.task.etag, call), *_of_existing(request.task), *_of_creation(request)]

    def check_delete_task(self, request: task_service_pb2.DeleteTaskRequest, call: Call) -> Sequence[Violation]:
        """DeleteTask."""
        return violations_of_write(request.etag, call)

    def check_undelete_task(self, request: task_service_pb2.UndeleteTaskRequest, call: Call) -> Sequence[Violation]:
        """UndeleteTask."""
        return violations_of_write(request.etag, call)

    def check_move_task(self, request: task_service_pb2.MoveTaskRequest, call: Call) -> Sequence[Violation]:
        """MoveTask."""
        both = [Violation("before_id", "must not be set beside after_id")] if request.before_id and request.after_id else []
        return [*violations_of_write(request.etag, call), *both]

    def check_batch_create_tasks(self, request: task_service_pb2.BatchCreateTasksRequest, call: Call) -> Sequence[Violation]:
        """BatchCreateTasks."""
        return [
            *violations_of_unconditional_write(call),
            *_in_each(itertools.chain(_of_creation(each), _of_lists(each)) for each in request.requests),
        ]

    def check_batch_update_tasks(self, request: task_service_pb2.BatchUpdateTasksRequest, call: Call) -> Sequence[Violation]:
        """BatchUpdateTasks."""
        return [*violations_of_unconditional_write(call), *_in_each(_of_update(each) for each in request.requests)]

    def check_batch_delete_tasks(self, _: task_service_pb2.BatchDeleteTasksRequest, call: Call) -> Sequence[Violation]:
        """BatchDeleteTasks."""
        return violations_of_unconditional_write(call)


def _in_each(found: Iterator[Iterator[Violation]]) -> Iterator[Violation]:
    for index, violations in enumerate(found):
        for violation in violations:
            yield Violation(f"requests[{index}].{violation.field}", violation.description)


def _of_creation(request: Any) -> Iterator[Violation]:
    # Without a task the bounds have a violation already.
    if not request.HasField("task"):
        return
    task = request.task
    found = [*_of_task(task, WRITABLE_FIELDS)]
    yield from found
    # What is wrong with the fields together.
    if (task.due_on or task.HasField("recurrence")) and not found:
        yield from collected(partial(_store, task))


def _store(task: task_pb2.Task) -> None:
    """Raises InvalidField if the due date and the recurrence do not fit together. What has to do with neither may be out of its bounds."""
    schedule = task_pb2.Task(due_on=task.due_on, time_zone=task.time_zone)
    if task.HasField("recurrence"):
        schedule.recurrence.rrule = task.recurrence.rrule
    if task.HasField("due_date"):
        schedule.due_date.CopyFrom(task.due_date)
    # A due date out of its bounds has a violation already.
    with contextlib.suppress(OverflowError):
        stored(to_fields(schedule))


def _of_lists(request: task_service_pb2.CreateTaskRequest) -> Sequence[Violation]:
    """The ids of the lists to which a new task is added. Updates and replacements ignore them."""
    given = {name: getattr(request.task, name) for name in ("project_id", "parent_id")}
    return collected(*(partial(resource_id, f"task.{name}", value) for name, value in given.items() if value))


def _of_update(request: task_service_pb2.UpdateTaskRequest) -> Iterator[Violation]:
    task = request.task
    if not request.HasField("task"):
        return
    yield from _of_existing(task)
    try:
        mask = fields_to_set(request.update_mask, task, WRITABLE_FIELDS)
    except InvalidField as wrong:
        yield from wrong.violations
    else:
        yield from _of_task(task, mask)
    if not request.update_mask.paths:
        for name in DEFAULTED:
            if task.HasField(name) and not getattr(task, name):
                yield Violation(f"task.{name}", f"must not be 0 unless update_mask names it: then {name} gets the value of a new task")


def _of_existing(task: task_pb2.Task) -> Sequence[Violation]:
    return collected(partial(task_id, task), partial(etag, task))


def _of_task(task: task_pb2.Task, mask: Sequence[str]) -> Iterator[Violation]:
    if "title" in mask and not task.HasField("title"):
        yield Violation("task.title", MISSING_TITLE)
    if task.HasField("due_date"):
        yield from collected(partial(check_nanos, "task.due_date", task.due_date))
        if task.due_on and {"due_date", "due_on"} <= set(mask):
            yield Violation("task.due_on", "must not be set beside due_date")
    if task.due_on:
        yield from collected(partial(parse_day, "task.due_on", task.due_on))
    if task.time_zone:
        yield from collected(partial(check_zone, "task.time_zone", task.time_zone))
    if task.HasField("recurrence"):
        yield from collected(partial(parse_rule, "task.recurrence.rrule", task.recurrence.rrule))
    for index, reminder in enumerate(task.reminders):
        yield from _of_reminder(f"task.reminders[{index}]", reminder)


def _of_reminder(path: str, reminder: task_pb2.Reminder) -> Sequence[Violation]:
    if reminder.HasField("at"):
        return collected(partial(check_nanos, f"{path}.at", reminder.at))
    return [Violation(f"{path}.before_due", "must be a whole number of seconds")] if reminder.before_due.nanos else []
