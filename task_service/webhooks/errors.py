"""The errors of webhooks."""

from servicekit.errors import Kind, Overloaded
from task_service.tasks.errors import WriteRefused


class WebhookNotFound(WriteRefused):
    """The caller has no such webhook. The answer does not say whether another user has it."""

    kind = Kind.NOT_FOUND
    reason = "WEBHOOK_NOT_FOUND"
    message = "There is no such webhook."


class WebhookChanged(WriteRefused):
    """The webhook has another etag. The error's metadata has the current one."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"
    message = "The webhook was changed meanwhile. Read it again."

    def __init__(self, etag: str) -> None:
        super().__init__(metadata={"etag": etag})


class TooManyWebhooks(WriteRefused):
    """The user has as many webhooks as a user may have."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LIMIT_REACHED"

    def __init__(self, limit: int) -> None:
        super().__init__(f"You have {limit} webhooks, the maximum. Delete one before you add another.", metadata={"limit": str(limit)})


class WebhookTestRunning(Overloaded):
    """Another test of the webhook is under way."""

    message = "A test of this webhook is under way. Try again when it has ended."
