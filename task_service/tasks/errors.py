"""The errors of tasks."""

from collections.abc import Iterable
from uuid import UUID

from servicekit.errors import Kind, ServiceError


class WriteRefused(ServiceError):
    """The write was rejected. It is certain that it changed nothing."""


class OperationRefused(WriteRefused):
    """One operation of a write, or one id of a batch read, was rejected, and with it the whole call. `index` is its position in the list."""

    def __init__(self, index: int = 0, *, etag: str | None = None, field: str | None = None) -> None:
        """`field` is the name of the list in the request to which `index` refers, if the request has a list."""
        metadata = {} if etag is None else {"etag": etag}
        if field is not None:
            metadata["index"] = str(index)
        super().__init__(self.message if field is None else f"{field}[{index}]: {self.message}", metadata=metadata)
        self._etag = etag
        self.index = index

    def of(self, field: str) -> "OperationRefused":
        """Returns the same error for the list `field` of the request."""
        return type(self)(self.index, etag=self._etag, field=field)


class TaskNotFound(OperationRefused):
    """The caller has no such task: it never existed, is deleted, or belongs to another user. The answer does not say which."""

    kind = Kind.NOT_FOUND
    reason = "TASK_NOT_FOUND"
    message = "There is no such task."


class EtagMismatch(OperationRefused):
    """The task has another etag. The error's metadata has the current one."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"
    message = "The task was changed meanwhile. Read it again."


class TaskNotDeleted(OperationRefused):
    """The task is not in the bin, so it cannot be restored."""

    kind = Kind.ALREADY_EXISTS
    reason = "TASK_NOT_DELETED"
    message = "The task is not in the bin."


class ProjectNotFound(OperationRefused):
    """The caller has no such project outside the bin."""

    kind = Kind.NOT_FOUND
    reason = "PROJECT_NOT_FOUND"
    message = "There is no such project."


class ProjectArchived(OperationRefused):
    """The project is archived, so no task can be added to it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PROJECT_ARCHIVED"
    message = "The project is archived. Unarchive it before you add tasks to it."


class ProjectDeleted(OperationRefused):
    """The task's project is in the bin."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PROJECT_DELETED"
    message = "The project of this task is in the bin. Undelete the project."


class ParentNotFound(OperationRefused):
    """The caller has no task with the id of the parent outside the bin."""

    kind = Kind.NOT_FOUND
    reason = "PARENT_NOT_FOUND"
    message = "There is no task with the id in parent_id."


class ParentDeleted(OperationRefused):
    """The task's parent is in the bin."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PARENT_DELETED"
    message = "The parent of this task is in the bin. Undelete the parent."


class ParentCycle(OperationRefused):
    """The new parent is the task itself or one of its subtasks."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PARENT_CYCLE"
    message = "A task cannot become a subtask of itself or of one of its own subtasks."


class TooDeep(OperationRefused):
    """The subtasks would have more levels than allowed."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TOO_DEEP"
    message = "Subtasks can be at most 5 levels deep, the top one included."


class TooManySubtasks(OperationRefused):
    """The parent has as many subtasks as a task may have."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TOO_MANY_SUBTASKS"
    message = "A task can have at most 500 subtasks."


class TooManyDescendants(OperationRefused):
    """The task has more subtasks, at all levels, than can be moved with it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TOO_MANY_DESCENDANTS"
    message = "This task has more than 1000 subtasks at all levels together. Move or delete some of them first."


class SiblingNotFound(OperationRefused):
    """The task next to which the other one moves is not in that list."""

    kind = Kind.NOT_FOUND
    reason = "SIBLING_NOT_FOUND"
    message = "The task in before_id or after_id is not in the list to which the task moves."


class AnswerTooLarge(OperationRefused):
    """From this operation on, the tasks of the answer have more text than MAX_ANSWER_BYTES."""

    kind = Kind.FAILED_PRECONDITION  # not RESOURCE_EXHAUSTED, which clients retry
    reason = "ANSWER_TOO_LARGE"
    message = "From here on the answer would have more than 3 MiB of text. Nothing was changed; change fewer tasks at once."


class IdempotencyKeyReused(WriteRefused):
    """The idempotency key was used for another request in the last 24 hours."""

    kind = Kind.FAILED_PRECONDITION
    reason = "IDEMPOTENCY_KEY_REUSED"
    message = "This idempotency key was used for another request within the last 24 hours. Use a new one."


class CacheStateChanged(WriteRefused):
    """The cache has another state than the write was made for. The cache makes it again; no caller sees this."""


class BasisChanged(WriteRefused):
    """An update depends on the task as it is, and was planned without it or for another version. The service plans it again; no caller sees this."""


class NotFenced(WriteRefused):
    """The write changes more tasks than the cache has fenced. The cache fences them and tries again; no caller sees this."""

    def __init__(self, task_ids: Iterable[UUID]) -> None:
        """`task_ids`: the tasks that the write would change, without those of its operations."""
        super().__init__()
        self.task_ids = frozenset(task_ids)
