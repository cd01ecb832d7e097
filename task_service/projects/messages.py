"""Converts projects between domain values and messages. Must not access storage."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from taskmanager.task.v1 import project_pb2, project_service_pb2

from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.resources import resource_etag, resource_id
from servicekit.rpc.retry import Etags
from servicekit.rpc.timestamps import to_timestamp
from task_service.projects.domain import WRITABLE_FIELDS, Project, ProjectFields
from task_service.projects.order import ProjectQuery, parse_project_order
from task_service.projects.writes import ProjectMove, ProjectUpdate

TIMES: Final = ("archived_at", "created_at", "updated_at", "deleted_at")


def to_message(project: Project, new: Callable[[], project_pb2.Project] = project_pb2.Project) -> project_pb2.Project:
    """Returns the project as an API message. A time that is None is absent. `new` creates the empty message."""
    message = new()
    message.id = str(project.id)
    message.user_id = str(project.user_id)
    message.name = project.name
    message.description = project.description
    message.color = project.color
    message.position = project.position
    message.etag = project.etag
    for name in TIMES:
        if (time := getattr(project, name)) is not None:
            getattr(message, name).CopyFrom(to_timestamp(time))
    return message


def to_fields(message: project_pb2.Project) -> ProjectFields:
    """Returns the fields of the message. An absent field has the default of a new project."""
    return ProjectFields(message.name, message.description, message.color)


def to_query(request: project_service_pb2.ListProjectsRequest, user_id: UUID) -> ProjectQuery:
    """Returns the query of a ListProjects. Raises InvalidField."""
    return ProjectQuery(user_id, parse_project_order(request.order_by), request.show_archived, request.show_deleted)


def to_update(request: project_service_pb2.UpdateProjectRequest, etags: Etags) -> ProjectUpdate:
    """Returns the update that an UpdateProject requests. Raises InvalidField."""
    mask = fields_to_set(request.update_mask, request.project, WRITABLE_FIELDS)
    return ProjectUpdate(project_id(request.project), to_fields(request.project), mask, etags)


def to_move(request: project_service_pb2.MoveProjectRequest, etags: Etags) -> ProjectMove:
    """Returns the move that a MoveProject requests."""
    before, after = (UUID(each) if each else None for each in (request.before_id, request.after_id))
    return ProjectMove(UUID(request.id), etags, before, after)


def project_id(message: project_pb2.Project) -> UUID:
    """Returns the id of a project message. Raises InvalidField."""
    return resource_id("project.id", message.id)


def etag(message: project_pb2.Project) -> str:
    """Returns the etag of a project message. Raises InvalidField if it is too long. Creations do not call this: they ignore the etag."""
    return resource_etag("project.etag", message.etag)
