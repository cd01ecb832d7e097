"""The errors: one class for each reason of the catalogue (docs/errors.md), below one class for each kind of failure. Messages are for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final


# Two errors are never equal, as other exceptions: dataclasses that compare have no hash.
@dataclass(eq=False)
class TaskManagerError(Exception):
    """The base of all errors of this package.

    message: the server's text. reason: a name from the catalogue, or "". status: the HTTP status, or 0 if there was no answer.
    metadata: details of the reason, for example the current `etag`. violations: the invalid fields, each with a description.
    retry_after: the seconds that the server asks to wait, or None.
    """

    message: str
    reason: str = ""
    status: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[tuple[str, str]] = ()
    retry_after: float | None = None

    # Whether the server certainly did not execute the request, so that even a request without an idempotency key can be repeated.
    not_executed: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.message


class NotLoggedIn(TaskManagerError):
    """The client has no tokens, or the session of its tokens has ended: log in."""


class ConnectionFailed(TaskManagerError):
    """There was no complete answer: no connection, a broken one, or none in time."""


class NotConnected(ConnectionFailed):
    """There was no connection to the server, so the request was not sent."""

    not_executed = True


class UnexpectedAnswer(TaskManagerError):
    """The answer is not one of this API."""


class InvalidArgument(TaskManagerError):
    """The request is invalid."""


class Unauthenticated(TaskManagerError):
    """The caller did not prove who it is."""


class PermissionDenied(TaskManagerError):
    """The caller may not do this."""


class NotFound(TaskManagerError):
    """The named thing does not exist for this caller."""


class Conflict(TaskManagerError):
    """The state of the named thing does not allow the request."""


class ResourceExhausted(TaskManagerError):
    """A limit is reached."""


class Unavailable(TaskManagerError):
    """The system or a part of it is unavailable at the moment."""


class ServerFault(TaskManagerError):
    """The server has an unexpected fault."""


class InvalidField(InvalidArgument):
    """A field of the request is out of its bounds: see `violations`."""


class MalformedRequest(InvalidArgument):
    """The server could not parse the request."""


class InvalidPageToken(InvalidArgument):
    """The page token was not issued for this query."""


class InvalidResumeToken(InvalidArgument):
    """The resume token was not issued for this account."""


class ResumeTokenExpired(InvalidArgument):
    """The changes after the resume token are no longer stored: list the tasks again, and watch from the page's resume_token."""


class TokenMissing(Unauthenticated):
    """The call had no access token."""


class TokenInvalid(Unauthenticated):
    """The access token is not valid, or its session has ended."""


class InvalidCredentials(Unauthenticated):
    """Email and password do not match."""


class RefreshTokenInvalid(Unauthenticated):
    """The refresh token is not valid, or its session has ended."""


class AccessDenied(PermissionDenied):
    """The caller may not call this method."""


class WrongPassword(PermissionDenied):
    """The password that must confirm the call is wrong."""


class SessionRequired(PermissionDenied):
    """The method takes no API token: log in."""


class ScopeMissing(PermissionDenied):
    """The API token lacks the scope that the method needs: `metadata` has the `scope`."""


class EmailTaken(Conflict):
    """An account with this email exists."""


class UserNotFound(NotFound):
    """The caller's account does not exist any more."""


class TaskNotFound(NotFound):
    """The caller has no such task."""


class SessionNotFound(NotFound):
    """The caller has no such session."""


class ApiTokenNotFound(NotFound):
    """The caller has no such API token, or it has expired."""


class EtagMismatch(Conflict):
    """Somebody changed the task or project first: `metadata` has its current `etag`."""


class IdempotencyKeyReused(Conflict):
    """The idempotency key was used for another request."""


class TaskNotDeleted(Conflict):
    """The task is not in the bin."""


class ProjectNotFound(NotFound):
    """The caller has no such project."""


class ProjectArchived(Conflict):
    """The project is archived: no task can be added to it or moved into it."""


class ProjectNotEmpty(Conflict):
    """The project has tasks: delete it with `force`."""


class ProjectNotDeleted(Conflict):
    """The project is not in the bin."""


class ProjectDeleted(Conflict):
    """The task's project is in the bin: restore the project first."""


class ParentNotFound(NotFound):
    """The caller has no task that could be this parent."""


class ParentDeleted(Conflict):
    """The task's parent is in the bin: restore the parent, and the task comes back with it."""


class ParentCycle(Conflict):
    """A task cannot be its own subtask, at any level."""


class TooDeep(Conflict):
    """Subtasks would be more than 5 levels deep."""


class TooManySubtasks(Conflict):
    """The parent has as many subtasks as a task can have."""


class TooManyDescendants(Conflict):
    """The task has too many subtasks to be moved or deleted with them."""


class SiblingNotFound(NotFound):
    """The task or project before or after which to move is not in that list."""


class WebhookNotFound(NotFound):
    """The caller has no such webhook."""


class LimitReached(Conflict):
    """The account has as many objects of this kind as it can have: `metadata` has the `limit`."""


class Overloaded(ResourceExhausted):
    """The server has too many calls: retry after `retry_after`."""

    not_executed = True


class TooManyAttempts(ResourceExhausted):
    """Too many attempts failed: retry after `retry_after`."""


class TooManyRegistrations(ResourceExhausted):
    """Too many accounts were registered from this address: retry after `retry_after`."""


class TooManyRequests(ResourceExhausted):
    """Too many requests come from this address: retry after `retry_after`."""

    not_executed = True


class TooManyWatches(ResourceExhausted):
    """The account has too many open streams: close one."""


class TooManyUploads(ResourceExhausted):
    """The account's large requests come too fast: retry after `retry_after`, or send smaller batches."""

    not_executed = True


class SlowReader(ResourceExhausted):
    """The client did not read its stream in time: resume."""


class RequestTooLarge(ResourceExhausted):
    """The request's body or headers are too large: the same request will always fail."""


class AnswerTooLarge(InvalidArgument):
    """The answer would be too large: send fewer requests in one batch."""


class DependencyUnavailable(Unavailable):
    """A part of the system does not answer."""


class ServiceStopping(Unavailable):
    """The replica that served the stream is stopping: resume."""


class DeadlineExceeded(Unavailable):
    """The server did not finish in time; whether it executed a write is unknown. The client does not repeat it, which would only add load."""


class InternalError(ServerFault):
    """The server has a bug; its log has the cause."""


BY_REASON: Final[Mapping[str, type[TaskManagerError]]] = {
    "INVALID_FIELD": InvalidField,
    "MALFORMED_REQUEST": MalformedRequest,
    "INVALID_PAGE_TOKEN": InvalidPageToken,
    "TOKEN_MISSING": TokenMissing,
    "TOKEN_INVALID": TokenInvalid,
    "INVALID_CREDENTIALS": InvalidCredentials,
    "REFRESH_TOKEN_INVALID": RefreshTokenInvalid,
    "ACCESS_DENIED": AccessDenied,
    "EMAIL_TAKEN": EmailTaken,
    "USER_NOT_FOUND": UserNotFound,
    "TASK_NOT_FOUND": TaskNotFound,
    "OVERLOADED": Overloaded,
    "DEPENDENCY_UNAVAILABLE": DependencyUnavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "INTERNAL_ERROR": InternalError,
    "TOO_MANY_ATTEMPTS": TooManyAttempts,
    "WRONG_PASSWORD": WrongPassword,
    "SESSION_NOT_FOUND": SessionNotFound,
    "ETAG_MISMATCH": EtagMismatch,
    "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReused,
    "TASK_NOT_DELETED": TaskNotDeleted,
    "TOO_MANY_REGISTRATIONS": TooManyRegistrations,
    "TOO_MANY_REQUESTS": TooManyRequests,
    "TOO_MANY_WATCHES": TooManyWatches,
    "TOO_MANY_UPLOADS": TooManyUploads,
    "SLOW_READER": SlowReader,
    "ANSWER_TOO_LARGE": AnswerTooLarge,
    "REQUEST_TOO_LARGE": RequestTooLarge,
    "INVALID_RESUME_TOKEN": InvalidResumeToken,
    "RESUME_TOKEN_EXPIRED": ResumeTokenExpired,
    "SERVICE_STOPPING": ServiceStopping,
    "WEBHOOK_NOT_FOUND": WebhookNotFound,
    "PROJECT_NOT_FOUND": ProjectNotFound,
    "PROJECT_ARCHIVED": ProjectArchived,
    "PROJECT_NOT_EMPTY": ProjectNotEmpty,
    "PROJECT_NOT_DELETED": ProjectNotDeleted,
    "PROJECT_DELETED": ProjectDeleted,
    "PARENT_NOT_FOUND": ParentNotFound,
    "PARENT_DELETED": ParentDeleted,
    "PARENT_CYCLE": ParentCycle,
    "TOO_DEEP": TooDeep,
    "TOO_MANY_SUBTASKS": TooManySubtasks,
    "TOO_MANY_DESCENDANTS": TooManyDescendants,
    "SIBLING_NOT_FOUND": SiblingNotFound,
    "LIMIT_REACHED": LimitReached,
    "SCOPE_MISSING": ScopeMissing,
    "SESSION_REQUIRED": SessionRequired,
    "API_TOKEN_NOT_FOUND": ApiTokenNotFound,
}
# For an answer without a reason, or with one that this version does not know.
_BY_STATUS: Final[Mapping[int, type[TaskManagerError]]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: ResourceExhausted,
    429: ResourceExhausted,
    500: ServerFault,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> TaskManagerError:
    """Returns the error in an answer with an error status."""
    try:
        answer = json.loads(body)
        message, details = answer["message"], answer.get("details", [])
        info = _detail(details, "ErrorInfo")
        violations = [(each["field"], each["description"]) for each in _detail(details, "BadRequest").get("field_violations", ())]
        delay = float(_detail(details, "RetryInfo").get("retry_delay", "0s").removesuffix("s")) or _seconds(headers.get("retry-after"))
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = _BY_STATUS.get(status, UnexpectedAnswer)
        return kind(f"the server answered {status}, but not in this API's format", status=status, retry_after=_seconds(headers.get("retry-after")))
    reason = info.get("reason", "")
    kind = BY_REASON.get(reason) or _BY_STATUS.get(status, UnexpectedAnswer)
    return kind(message, reason, status, info.get("metadata", {}), violations, delay)


def _detail(details: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((detail for detail in details if detail["@type"].endswith(f"google.rpc.{name}")), {})


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
