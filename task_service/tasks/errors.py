"""The errors of tasks, named by the fact."""

from servicekit.errors import Kind, ServiceError


class WriteRefused(ServiceError):
    """A write was not done, and it is certain that it was not."""


class OperationRefused(WriteRefused):
    """One operation of a write, or one id of a list of them, cannot be done; then none was. `index` tells which."""

    def __init__(self, index: int = 0, *, etag: str | None = None, field: str | None = None) -> None:
        """`field`: the list of the request that the index is for, if it has one."""
        metadata = {} if etag is None else {"etag": etag}
        if field is not None:
            metadata["index"] = str(index)
        super().__init__(self.message if field is None else f"{field}[{index}]: {self.message}", metadata=metadata)
        self._etag = etag
        self.index = index

    def of(self, field: str) -> "OperationRefused":
        """The same, of a list in the request."""
        return type(self)(self.index, etag=self._etag, field=field)


class TaskNotFound(OperationRefused):
    """The caller has no such task: it never was, is deleted, or is somebody else's. The answer does not tell which."""

    kind = Kind.NOT_FOUND
    reason = "TASK_NOT_FOUND"
    message = "There is no such task."


class EtagMismatch(OperationRefused):
    """The task has another etag by now, which is in the metadata."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"
    message = "The task was changed meanwhile. Read it again."


class TaskNotDeleted(OperationRefused):
    """The task is not in the bin, so it cannot be brought back."""

    kind = Kind.ALREADY_EXISTS
    reason = "TASK_NOT_DELETED"
    message = "The task is not in the bin."


class AnswerTooLarge(OperationRefused):
    """With this one the tasks of the answer have more text than a message can hold."""

    kind = Kind.EXHAUSTED
    reason = "ANSWER_TOO_LARGE"
    message = "From here on the answer would have more than 3 MiB of text. Nothing was changed; change fewer tasks at once."


class IdempotencyKeyReused(WriteRefused):
    """The key was used for another request."""

    kind = Kind.FAILED_PRECONDITION
    reason = "IDEMPOTENCY_KEY_REUSED"
    message = "This idempotency key was used for another request within the last 24 hours. Use a new one."
