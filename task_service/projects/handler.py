"""Maps the messages of taskmanager.task.v1.ProjectService to domain values and back. Must not access storage."""

from uuid import UUID

from taskmanager.task.v1 import project_pb2, project_service_pb2

from servicekit.rpc.call import Call
from servicekit.rpc.retry import IDEMPOTENCY_REPLAYED, idempotency, required_etags
from task_service.projects.messages import etag, to_fields, to_message, to_move, to_query, to_update
from task_service.projects.service import ProjectService
from task_service.projects.writes import Archiving, ProjectDeletion, ProjectUndeletion, ProjectWritten
from task_service.tasks.domain import Actor


class ProjectHandler:
    """The RPCs of ProjectService. Each method is named after its RPC, in snake_case."""

    def __init__(self, service: ProjectService) -> None:
        self._service = service

    async def create_project(self, request: project_service_pb2.CreateProjectRequest, call: Call) -> project_pb2.Project:
        """CreateProject."""
        return _project(await self._service.create_project(_actor(call), to_fields(request.project), idempotency(request, call)), call)

    async def get_project(self, request: project_service_pb2.GetProjectRequest, call: Call) -> project_pb2.Project:
        """GetProject."""
        return to_message(await self._service.get_project(call.identity.user_id, UUID(request.id)))

    async def list_projects(self, request: project_service_pb2.ListProjectsRequest, call: Call) -> project_service_pb2.ListProjectsResponse:
        """ListProjects."""
        query = to_query(request, call.identity.user_id)
        page = await self._service.list_projects(query, page_size=request.page_size, page_token=request.page_token)
        response = project_service_pb2.ListProjectsResponse(next_page_token=page.next_page_token)
        for project in page.projects:
            to_message(project, response.projects.add)
        return response

    async def update_project(self, request: project_service_pb2.UpdateProjectRequest, call: Call) -> project_pb2.Project:
        """UpdateProject."""
        update = to_update(request, required_etags(etag(request.project), call))
        return _project(await self._service.update_project(_actor(call), update, idempotency(request, call)), call)

    async def delete_project(self, request: project_service_pb2.DeleteProjectRequest, call: Call) -> project_service_pb2.DeleteProjectResponse:
        """DeleteProject."""
        deletion = ProjectDeletion(UUID(request.id), required_etags(request.etag, call), force=request.force)
        _note(await self._service.delete_project(_actor(call), deletion, idempotency(request, call)), call)
        return project_service_pb2.DeleteProjectResponse()

    async def undelete_project(self, request: project_service_pb2.UndeleteProjectRequest, call: Call) -> project_pb2.Project:
        """UndeleteProject."""
        undeletion = ProjectUndeletion(UUID(request.id), required_etags(request.etag, call))
        return _project(await self._service.undelete_project(_actor(call), undeletion, idempotency(request, call)), call)

    async def archive_project(self, request: project_service_pb2.ArchiveProjectRequest, call: Call) -> project_pb2.Project:
        """ArchiveProject."""
        archiving = Archiving(UUID(request.id), archived=True, etags=required_etags(request.etag, call))
        return _project(await self._service.archive_project(_actor(call), archiving, idempotency(request, call)), call)

    async def unarchive_project(self, request: project_service_pb2.UnarchiveProjectRequest, call: Call) -> project_pb2.Project:
        """UnarchiveProject."""
        archiving = Archiving(UUID(request.id), archived=False, etags=required_etags(request.etag, call))
        return _project(await self._service.archive_project(_actor(call), archiving, idempotency(request, call)), call)

    async def move_project(self, request: project_service_pb2.MoveProjectRequest, call: Call) -> project_pb2.Project:
        """MoveProject."""
        move = to_move(request, required_etags(request.etag, call))
        return _project(await self._service.move_project(_actor(call), move, idempotency(request, call)), call)


def _actor(call: Call) -> Actor:
    identity = call.identity
    return Actor(identity.user_id, identity.session_id, call.request_id, by_api_token=identity.by_api_token, name=identity.api_token_name)


def _note(written: ProjectWritten, call: Call) -> None:
    if written.replayed:
        call.response_headers[IDEMPOTENCY_REPLAYED] = "true"


def _project(written: ProjectWritten, call: Call) -> project_pb2.Project:
    _note(written, call)
    assert written.project is not None
    return to_message(written.project)
