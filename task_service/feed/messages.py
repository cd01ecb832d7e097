"""Converts the events of WatchTasks from domain values to messages."""

from taskmanager.task.v1 import task_service_pb2

from task_service.feed.domain import WatchEvent
from task_service.tasks.messages import to_message


def to_event(event: WatchEvent) -> task_service_pb2.WatchTasksResponse:
    """Returns the event as an API message."""
    if event.change is None:
        return task_service_pb2.WatchTasksResponse(kind=task_service_pb2.WatchTasksResponse.CHECKPOINT, resume_token=event.resume_token)
    return task_service_pb2.WatchTasksResponse(
        kind=event.change.kind.value,  # type: ignore[arg-type]  # both enums use the same numbers
        task=to_message(event.change.task),
        resume_token=event.resume_token,
    )
