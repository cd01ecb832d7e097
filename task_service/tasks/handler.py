"""Maps the messages of taskmanager.task.v1.TaskService to domain values and back. Must not access storage."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.rpc.call import Call
from servicekit.rpc.retry import IDEMPOTENCY_REPLAYED, Etags, idempotency, required_etags
from task_service.tasks.domain import Actor, Place, Task
from task_service.tasks.errors import OperationRefused
from task_service.tasks.messages import etag, to_creation, to_message, to_move, to_query, to_replacement, to_update
from task_service.tasks.service import TaskService
from task_service.tasks.writes import Deletion, Undeletion, Written

Answer = TypeVar(
    "Answer",
    task_service_pb2.ListTasksResponse,
    task_service_pb2.BatchGetTasksResponse,
    task_service_pb2.BatchCreateTasksResponse,
    task_service_pb2.BatchUpdateTasksResponse,
)


class TaskHandler:
    """The RPCs of TaskService except WatchTasks. Each method is named after its RPC, in snake_case."""

    def __init__(self, service: TaskService, resume_token: Callable[[UUID, Place], str]) -> None:
        """`resume_token` creates the token for a place in a user's change log."""
        self._service = service
        self._resume_token = resume_token

    async def create_task(self, request: task_service_pb2.CreateTaskRequest, call: Call) -> task_pb2.Task | bytes:
        """CreateTask."""
        return _task(await self._service.create_tasks(_actor(call), [to_creation(request.task)], idempotency(request, call)), call)

    async def get_task(self, request: task_service_pb2.GetTaskRequest, call: Call) -> task_pb2.Task | bytes:
        """GetTask."""
        found = await self._service.get_task(call.identity.user_id, UUID(request.id))
        return to_message(found) if isinstance(found, Task) else found

    async def list_tasks(self, request: task_service_pb2.ListTasksRequest, call: Call) -> task_service_pb2.ListTasksResponse:
        """ListTasks."""
        query = to_query(request, call.identity.user_id)
        page = await self._service.list_tasks(
            query, page_size=request.page_size, page_token=request.page_token, skip=request.skip, with_total=request.include_total_size
        )
        response = task_service_pb2.ListTasksResponse(
            next_page_token=page.next_page_token, total_size=page.total_size, resume_token=self._resume_token(call.identity.user_id, page.place)
        )
        return _with_tasks(response, page.tasks)

    async def update_task(self, request: task_service_pb2.UpdateTaskRequest, call: Call) -> task_pb2.Task | bytes:
        """UpdateTask."""
        update = to_update(request, required_etags(etag(request.task), call))
        return _task(await self._service.update_tasks(_actor(call), [update], idempotency(request, call)), call)

    async def replace_task(self, request: task_service_pb2.ReplaceTaskRequest, call: Call) -> task_pb2.Task | bytes:
        """ReplaceTask."""
        replacement = to_replacement(request, required_etags(etag(request.task), call))
        return _task(await self._service.update_tasks(_actor(call), [replacement], idempotency(request, call)), call)

    async def delete_task(self, request: task_service_pb2.DeleteTaskRequest, call: Call) -> task_service_pb2.DeleteTaskResponse:
        """DeleteTask."""
        deletion = Deletion(UUID(request.id), required_etags(request.etag, call))
        _note(await self._service.delete_tasks(_actor(call), [deletion], idempotency(request, call)), call)
        return task_service_pb2.DeleteTaskResponse()

    async def undelete_task(self, request: task_service_pb2.UndeleteTaskRequest, call: Call) -> task_pb2.Task | bytes:
        """UndeleteTask."""
        undeletion = Undeletion(UUID(request.id), required_etags(request.etag, call))
        return _task(await self._service.undelete_task(_actor(call), undeletion, idempotency(request, call)), call)

    async def move_task(self, request: task_service_pb2.MoveTaskRequest, call: Call) -> task_pb2.Task | bytes:
        """MoveTask."""
        move = to_move(request, required_etags(request.etag, call))
        return _task(await self._service.move_task(_actor(call), move, idempotency(request, call)), call)

    async def batch_get_tasks(self, request: task_service_pb2.BatchGetTasksRequest, call: Call) -> task_service_pb2.BatchGetTasksResponse:
        """BatchGetTasks."""
        with _one_of("ids"):
            tasks = await self._service.batch_get_tasks(call.identity.user_id, [UUID(task_id) for task_id in request.ids])
        return _with_tasks(task_service_pb2.BatchGetTasksResponse(), tasks)

    async def batch_create_tasks(self, request: task_service_pb2.BatchCreateTasksRequest, call: Call) -> task_service_pb2.BatchCreateTasksResponse:
        """BatchCreateTasks."""
        creations = [to_creation(creation.task) for creation in request.requests]
        with _one_of("requests"):
            written = await self._service.create_tasks(_actor(call), creations, idempotency(request, call))
        _note(written, call)
        return _with_tasks(task_service_pb2.BatchCreateTasksResponse(), written.tasks)

    async def batch_update_tasks(self, request: task_service_pb2.BatchUpdateTasksRequest, call: Call) -> task_service_pb2.BatchUpdateTasksResponse:
        """BatchUpdateTasks."""
        updates = [to_update(update, _etags(etag(update.task))) for update in request.requests]
        with _one_of("requests"):
            written = await self._service.update_tasks(_actor(call), updates, idempotency(request, call), lambda index: f"requests[{index}].task")
        _note(written, call)
        return _with_tasks(task_service_pb2.BatchUpdateTasksResponse(), written.tasks)

    async def batch_delete_tasks(self, request: task_service_pb2.BatchDeleteTasksRequest, call: Call) -> task_service_pb2.BatchDeleteTasksResponse:
        """BatchDeleteTasks."""
        deletions = [Deletion(UUID(deletion.id), _etags(deletion.etag)) for deletion in request.requests]
        with _one_of("requests"):
            _note(await self._service.delete_tasks(_actor(call), deletions, idempotency(request, call)), call)
        return task_service_pb2.BatchDeleteTasksResponse()


def _actor(call: Call) -> Actor:
    identity = call.identity
    return Actor(identity.user_id, identity.session_id, call.request_id, by_api_token=identity.by_api_token, name=identity.api_token_name)


def _etags(given: str) -> Etags:
    return (given,) if given else None


def _note(written: Written, call: Call) -> None:
    if written.replayed:
        call.response_headers[IDEMPOTENCY_REPLAYED] = "true"


def _with_tasks(answer: Answer, tasks: Sequence[Task]) -> Answer:
    for task in tasks:
        to_message(task, answer.tasks.add)
    return answer


def _task(written: Written, call: Call) -> task_pb2.Task | bytes:
    _note(written, call)
    (task,) = written.tasks
    return to_message(task) if written.encoded is None else written.encoded


@contextlib.contextmanager
def _one_of(field: str) -> Iterator[None]:
    """Adds the list in the request and the index in it to an OperationRefused."""
    try:
        yield
    except OperationRefused as error:
        raise error.of(field) from error
