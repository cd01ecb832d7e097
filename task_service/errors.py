"""The errors of the task service, named by the fact."""

from servicekit.errors import Kind, ServiceError


class TaskNotFound(ServiceError):
    """The caller has no such task: it never was, is deleted, or is somebody else's. The answer does not tell which."""

    kind = Kind.NOT_FOUND
    reason = "TASK_NOT_FOUND"
    message = "There is no such task."
