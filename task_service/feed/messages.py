"""Converts the events of WatchTasks and the histories of tasks from domain values to messages."""

from taskmanager.task.v1 import task_service_pb2

from task_service.feed.domain import History, WatchEvent
from task_service.projects.domain import Project
from task_service.projects.messages import to_message as project_to_message
from task_service.tasks.domain import Task
from task_service.tasks.messages import to_message


def to_event(event: WatchEvent) -> task_service_pb2.WatchTasksResponse:
    """Returns the event as an API message."""
    if event.change is None:
        return task_service_pb2.WatchTasksResponse(kind=task_service_pb2.WatchTasksResponse.CHECKPOINT, resume_token=event.resume_token)
    answer = task_service_pb2.WatchTasksResponse(
        kind=event.change.kind.value,  # type: ignore[arg-type]  # both enums use the same numbers
        resume_token=event.resume_token,
    )
    match event.change.subject:
        case Task() as task:
            to_message(task, lambda: answer.task)
        case Project() as project:
            project_to_message(project, lambda: answer.project)
    return answer


def to_history(history: History) -> task_service_pb2.ListTaskChangesResponse:
    """Returns the page as an API message."""
    answer = task_service_pb2.ListTaskChangesResponse(next_page_token=history.next_page_token)
    for change in history.changes:
        message = answer.changes.add(kind=change.kind.value, changed_fields=change.changed_fields)
        message.at.FromDatetime(change.at)
        message.actor.session_id = "" if change.session_id is None else str(change.session_id)
        message.actor.api_token_id = "" if change.api_token_id is None else str(change.api_token_id)
        message.actor.name = change.actor_name
        to_message(change.task, lambda message=message: message.task)  # type: ignore[misc]  # a default binds the variable of this turn
    return answer
