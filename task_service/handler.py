"""taskmanager.task.v1.TaskService: maps messages to domain values and back. Knows protobuf, and nothing of storage."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.call import Call
from servicekit.errors import InvalidField
from servicekit.field_mask import fields_to_set
from task_service.domain import DEFAULT_PRIORITY, WRITABLE_FIELDS, Actor, Status, Task, TaskFields, parse_order
from task_service.filter_syntax import parse_filter
from task_service.filtering import ListQuery
from task_service.service import TaskService
from task_service.times import EPOCH

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MISSING_TITLE = "must have 1 to 200 characters"


class TaskHandler:
    """The RPCs, each named in snake_case."""

    def __init__(self, service: TaskService) -> None:
        self._service = service

    async def create_task(self, request: task_service_pb2.CreateTaskRequest, call: Call) -> task_pb2.Task:
        """CreateTask."""
        return to_message(await self._service.create_task(_actor(call), _fields(request.task, WRITABLE_FIELDS)))

    async def get_task(self, request: task_service_pb2.GetTaskRequest, call: Call) -> task_pb2.Task:
        """GetTask."""
        return to_message(await self._service.get_task(call.identity.user_id, UUID(request.id)))

    async def list_tasks(self, request: task_service_pb2.ListTasksRequest, call: Call) -> task_service_pb2.ListTasksResponse:
        """ListTasks."""
        query = ListQuery(
            user_id=call.identity.user_id,
            status=Status(request.status) if request.status else None,
            priority=request.priority or None,
            order=parse_order(request.order_by),
            filter=parse_filter(request.filter),
            show_deleted=request.show_deleted,
        )
        page = await self._service.list_tasks(
            query, page_size=request.page_size, page_token=request.page_token, skip=request.skip, with_total=request.include_total_size
        )
        return task_service_pb2.ListTasksResponse(tasks=map(to_message, page.tasks), next_page_token=page.next_page_token, total_size=page.total_size)

    async def update_task(self, request: task_service_pb2.UpdateTaskRequest, call: Call) -> task_pb2.Task:
        """UpdateTask."""
        mask = fields_to_set(request.update_mask, request.task, WRITABLE_FIELDS)
        return to_message(await self._service.update_task(_actor(call), _task_id(request.task), _fields(request.task, mask), mask))

    async def replace_task(self, request: task_service_pb2.ReplaceTaskRequest, call: Call) -> task_pb2.Task:
        """ReplaceTask."""
        fields = _fields(request.task, WRITABLE_FIELDS)
        return to_message(await self._service.replace_task(_actor(call), _task_id(request.task), fields))

    async def delete_task(self, request: task_service_pb2.DeleteTaskRequest, call: Call) -> task_service_pb2.DeleteTaskResponse:
        """DeleteTask."""
        await self._service.delete_task(_actor(call), UUID(request.id))
        return task_service_pb2.DeleteTaskResponse()


def to_message(task: Task) -> task_pb2.Task:
    """The task as the API shows it. Times that are not are absent."""
    return task_pb2.Task(
        id=str(task.id),
        user_id=str(task.user_id),
        title=task.title,
        description=task.description,
        status=task.status.value,  # type: ignore[arg-type]  # the numbers are the same ones
        priority=task.priority,
        labels=task.labels,
        etag=task.etag,
        created_at=_timestamp(task.created_at),
        updated_at=_timestamp(task.updated_at),
        due_date=_timestamp(task.due_date),
        completed_at=_timestamp(task.completed_at),
        deleted_at=_timestamp(task.deleted_at),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    """A third of what Timestamp.FromDatetime costs, which is for any zone."""
    if time is None:
        return None
    since = time - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def _fields(message: task_pb2.Task, mask: Sequence[str]) -> TaskFields:
    """What the message says of the fields in `mask`; what is absent is as in a new task. Raises InvalidField."""
    if "title" in mask and not message.title:
        raise InvalidField.of("task.title", MISSING_TITLE)
    return TaskFields(
        title=message.title,
        description=message.description,
        status=Status(message.status or Status.PENDING),
        priority=message.priority or DEFAULT_PRIORITY,
        due_date=_time("task.due_date", message.due_date) if message.HasField("due_date") else None,
        labels=tuple(message.labels),
    )


def _task_id(message: task_pb2.Task) -> UUID:
    # In the one form that buf.validate takes as well; UUID() takes braces, `urn:uuid:` and no hyphens besides.
    if not _UUID.fullmatch(message.id):
        raise InvalidField.of("task.id", "must be a valid UUID")
    return UUID(message.id)


def _time(field: str, message: Timestamp) -> datetime:
    if not 0 <= message.nanos < 1_000_000_000:
        raise InvalidField.of(field, "must have nanos of 0 to 999 999 999")
    time: datetime = message.ToDatetime(UTC)
    return time


def _actor(call: Call) -> Actor:
    identity = call.identity
    return Actor(identity.user_id, identity.session_id, call.request_id)
