"""The errors of projects. ProjectNotFound is one of the errors of tasks, because a task may name a project."""

from servicekit.errors import Kind
from task_service.tasks.errors import WriteRefused


class ProjectChanged(WriteRefused):
    """The project has another etag. The error's metadata has the current one."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"
    message = "The project was changed meanwhile. Read it again."

    def __init__(self, etag: str) -> None:
        super().__init__(metadata={"etag": etag})


class ProjectNotEmpty(WriteRefused):
    """The project has tasks, and the deletion does not say that they go with it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PROJECT_NOT_EMPTY"
    message = "The project has tasks. Set force to delete them with it."


class ProjectNotDeleted(WriteRefused):
    """The project is not in the bin, so it cannot be restored."""

    kind = Kind.ALREADY_EXISTS
    reason = "PROJECT_NOT_DELETED"
    message = "The project is not in the bin."


class ProjectSiblingNotFound(WriteRefused):
    """The user has no other project with the id of the one next to which a project moves."""

    kind = Kind.NOT_FOUND
    reason = "SIBLING_NOT_FOUND"
    message = "There is no other project with the id in before_id or after_id."


class TooManyProjects(WriteRefused):
    """The user has as many projects as a user may have."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LIMIT_REACHED"

    def __init__(self, limit: int) -> None:
        super().__init__(f"You have {limit} projects, the maximum. Delete one before you add another.", metadata={"limit": str(limit)})
