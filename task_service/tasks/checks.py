"""What is wrong with the requests of TaskService beyond the bounds in the protos. Each method is named `check_` and its RPC, in snake_case.

The pipeline calls it before the handler and adds its violations to those of the bounds, so an error names every invalid field.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import InvalidField, Violation, collected
from servicekit.rpc.call import Call
from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.retry import check_key, refuse_if_match, required_etags
from servicekit.rpc.timestamps import check_nanos
from task_service.query.filter_syntax import parse_filter
from task_service.query.order import parse_order
from task_service.tasks.domain import WRITABLE_FIELDS
from task_service.tasks.messages import etag, task_id

MISSING_TITLE: Final = "must have 1 to 200 characters"
# The fields whose zero means the default. An explicit zero without a mask is refused: it could be a mistake, and it would reset the field.
DEFAULTED: Final = ("status", "priority")


class TaskChecks:
    """The checks."""

    def check_create_task(self, request: task_service_pb2.CreateTaskRequest, call: Call) -> Sequence[Violation]:
        """CreateTask."""
        return [*_of_unconditional(call), *_of_creation(request)]

    def check_list_tasks(self, request: task_service_pb2.ListTasksRequest, _: Call) -> Sequence[Violation]:
        """ListTasks."""
        return collected(partial(parse_order, request.order_by), partial(parse_filter, request.filter))

    def check_update_task(self, request: task_service_pb2.UpdateTaskRequest, call: Call) -> Sequence[Violation]:
        """UpdateTask."""
        return [*_of_write(request.task.etag, call), *_of_update(request)]

    def check_replace_task(self, request: task_service_pb2.ReplaceTaskRequest, call: Call) -> Sequence[Violation]:
        """ReplaceTask."""
        return [*_of_write(request.task.etag, call), *_of_existing(request.task), *_of_creation(request)]

    def check_delete_task(self, request: task_service_pb2.DeleteTaskRequest, call: Call) -> Sequence[Violation]:
        """DeleteTask."""
        return _of_write(request.etag, call)

    def check_undelete_task(self, request: task_service_pb2.UndeleteTaskRequest, call: Call) -> Sequence[Violation]:
        """UndeleteTask."""
        return _of_write(request.etag, call)

    def check_batch_create_tasks(self, request: task_service_pb2.BatchCreateTasksRequest, call: Call) -> Sequence[Violation]:
        """BatchCreateTasks."""
        return [*_of_unconditional(call), *_in_each(_of_creation(each) for each in request.requests)]

    def check_batch_update_tasks(self, request: task_service_pb2.BatchUpdateTasksRequest, call: Call) -> Sequence[Violation]:
        """BatchUpdateTasks."""
        return [*_of_unconditional(call), *_in_each(_of_update(each) for each in request.requests)]

    def check_batch_delete_tasks(self, _: task_service_pb2.BatchDeleteTasksRequest, call: Call) -> Sequence[Violation]:
        """BatchDeleteTasks."""
        return _of_unconditional(call)


def _of_write(given: str, call: Call) -> Sequence[Violation]:
    return collected(partial(required_etags, given, call), partial(check_key, call))


def _of_unconditional(call: Call) -> Sequence[Violation]:
    return collected(partial(refuse_if_match, call), partial(check_key, call))


def _in_each(found: Iterator[Iterator[Violation]]) -> Iterator[Violation]:
    for index, violations in enumerate(found):
        for violation in violations:
            yield Violation(f"requests[{index}].{violation.field}", violation.description)


def _of_creation(request: Any) -> Iterator[Violation]:
    # Without a task the bounds have a violation already.
    if request.HasField("task"):
        yield from _of_task(request.task, WRITABLE_FIELDS)


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
