"""What is wrong with the requests of ProjectService beyond the bounds in the protos. Each method is named `check_` and its RPC, in snake_case.

The pipeline calls it before the handler and adds its violations to those of the bounds, so an error names every invalid field.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from taskmanager.task.v1 import project_pb2, project_service_pb2

from servicekit.errors import InvalidField, Violation, collected
from servicekit.rpc.call import Call
from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.retry import violations_of_unconditional_write, violations_of_write
from task_service.projects.domain import WRITABLE_FIELDS
from task_service.projects.messages import etag, project_id
from task_service.projects.order import parse_project_order

MISSING_NAME: Final = "must have 1 to 100 characters"


class ProjectChecks:
    """The checks."""

    def check_create_project(self, request: project_service_pb2.CreateProjectRequest, call: Call) -> Sequence[Violation]:
        """CreateProject."""
        found = violations_of_unconditional_write(call)
        return [*found, *_of_name(request.project)] if request.HasField("project") else found

    def check_list_projects(self, request: project_service_pb2.ListProjectsRequest, _: Call) -> Sequence[Violation]:
        """ListProjects."""
        return collected(partial(parse_project_order, request.order_by))

    def check_update_project(self, request: project_service_pb2.UpdateProjectRequest, call: Call) -> Sequence[Violation]:
        """UpdateProject."""
        return [*violations_of_write(request.project.etag, call), *_of_update(request)]

    def check_delete_project(self, request: project_service_pb2.DeleteProjectRequest, call: Call) -> Sequence[Violation]:
        """DeleteProject."""
        return violations_of_write(request.etag, call)

    def check_undelete_project(self, request: project_service_pb2.UndeleteProjectRequest, call: Call) -> Sequence[Violation]:
        """UndeleteProject."""
        return violations_of_write(request.etag, call)

    def check_archive_project(self, request: project_service_pb2.ArchiveProjectRequest, call: Call) -> Sequence[Violation]:
        """ArchiveProject."""
        return violations_of_write(request.etag, call)

    def check_unarchive_project(self, request: project_service_pb2.UnarchiveProjectRequest, call: Call) -> Sequence[Violation]:
        """UnarchiveProject."""
        return violations_of_write(request.etag, call)

    def check_move_project(self, request: project_service_pb2.MoveProjectRequest, call: Call) -> Sequence[Violation]:
        """MoveProject."""
        both = [Violation("before_id", "must not be set beside after_id")] if request.before_id and request.after_id else []
        return [*violations_of_write(request.etag, call), *both]


def _of_update(request: project_service_pb2.UpdateProjectRequest) -> Iterator[Violation]:
    project = request.project
    # Without a project the bounds have a violation already.
    if not request.HasField("project"):
        return
    yield from collected(partial(project_id, project), partial(etag, project))
    try:
        mask = fields_to_set(request.update_mask, project, WRITABLE_FIELDS)
    except InvalidField as wrong:
        yield from wrong.violations
    else:
        yield from _of_name(project) if "name" in mask else ()


def _of_name(project: project_pb2.Project) -> Iterator[Violation]:
    if not project.HasField("name"):
        yield Violation("project.name", MISSING_NAME)
