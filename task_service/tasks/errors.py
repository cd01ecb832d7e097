"""The errors of tasks."""

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
