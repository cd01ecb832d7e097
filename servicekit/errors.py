"""The errors that a use case can raise. Each is named by the fact and has a kind and a reason. Imports neither grpc nor protobuf.

The pipeline maps a kind to a gRPC status (`servicekit.rpc.status`). The reasons are those of `taskmanager/rpc/v1/error_reason.proto`; a test checks
this for every subclass. Messages are for people and never contain secrets or other users' data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar


class Kind(Enum):
    """The kind of an error, which determines how a client must react."""

    INVALID = auto()
    UNAUTHENTICATED = auto()
    DENIED = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    FAILED_PRECONDITION = auto()
    ABORTED = auto()
    OUT_OF_RANGE = auto()
    EXHAUSTED = auto()
    UNAVAILABLE = auto()
    DEADLINE = auto()
    INTERNAL = auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """An invalid field of the request: its path (`task.labels[2]`), and a description of the error, with the bound."""

    field: str
    description: str


class ServiceError(Exception):
    """The base of all errors that a client receives. Subclasses set kind, reason and message."""

    kind: ClassVar[Kind] = Kind.INTERNAL
    reason: ClassVar[str] = "INTERNAL_ERROR"
    message: ClassVar[str] = "The service has a fault. It has been logged under the call's request id."
    retry_after_seconds: float | None = None

    def __init__(self, message: str | None = None, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message or self.message)
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations: Sequence[Violation] = ()


class InternalError(ServiceError):
    """An unexpected fault. Its cause is logged and never sent to the client."""


class InvalidField(ServiceError):
    """One or more fields are out of their bounds."""

    kind = Kind.INVALID
    reason = "INVALID_FIELD"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidField":
        """Returns the error for one field."""
        return cls(Violation(field, description))


def collected(*checks: Callable[[], object]) -> list[Violation]:
    """Calls all checks. Returns the violations of those that raise InvalidField."""
    found: list[Violation] = []
    for check in checks:
        try:
            check()
        except InvalidField as error:
            found += error.violations
    return found


class MalformedRequest(ServiceError):
    """The bytes of the request cannot be parsed as the method's message."""

    kind = Kind.INVALID
    reason = "MALFORMED_REQUEST"
    message = "The request is not a valid message of this method."


class InvalidPageToken(InvalidField):
    """The page token was not issued by this system, or it belongs to another query."""

    reason = "INVALID_PAGE_TOKEN"

    def __init__(self) -> None:
        super().__init__(Violation("page_token", "is not a token of this query"))


class TokenMissing(ServiceError):
    """The call has no access token."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_MISSING"
    message = "This method needs an access token: send `authorization: Bearer …`."


class TokenInvalid(ServiceError):
    """The access token is invalid. The client does not learn which check failed."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_INVALID"
    message = "The access token is not valid or has expired."


class AccessDenied(ServiceError):
    """The caller may not call the method."""

    kind = Kind.DENIED
    reason = "ACCESS_DENIED"
    message = "This method is not open to you."


class SessionRequired(ServiceError):
    """The method takes no API token."""

    kind = Kind.DENIED
    reason = "SESSION_REQUIRED"
    message = "This method is not open to API tokens: send the access token of a login."


class ScopeMissing(ServiceError):
    """The caller's API token lacks the scope that the method needs."""

    kind = Kind.DENIED
    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This method needs an API token with the scope {scope}.", metadata={"scope": scope})


class Overloaded(ServiceError):
    """The service has reached a limit of concurrent work."""

    kind = Kind.EXHAUSTED
    reason = "OVERLOADED"
    message = "The service has too many calls under way. Try again shortly."
    retry_after_seconds = 1.0


class SlowReader(ServiceError):
    """The client did not read a message of its stream in time. It can still read what was sent, and then start a new stream."""

    kind = Kind.EXHAUSTED
    reason = "SLOW_READER"
    retry_after_seconds = 1.0
    message = "The stream was cut off: its messages were not read. Read them as they come, and begin again."


class DependencyUnavailable(ServiceError):
    """A part of the system is unavailable: `dependency` names it. If a write raises this, its outcome is unknown."""

    kind = Kind.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"
    retry_after_seconds = 1.0

    def __init__(self, dependency: str) -> None:
        super().__init__(f"{dependency} is not available. Try again shortly.", metadata={"dependency": dependency})


class DeadlineExceeded(ServiceError):
    """The call's deadline has expired."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_EXCEEDED"
    message = "The call took longer than its deadline."


class TimeLimitExceeded(DeadlineExceeded):
    """A time limit of the service has expired before the call's deadline. If a write raises this, its outcome is unknown.

    Its kind is not UNAVAILABLE, because the gateway and clients retry that at once: the call would wait once more for the same thing.
    """

    message = "The call took longer than the service allows."


class RedisUnavailable(Exception):
    """Redis did not answer, or was not asked because the circuit breaker is open. It is unknown whether Redis executed the command.

    No client receives this error: its caller continues without Redis.
    """
