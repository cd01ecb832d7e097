"""The error answers of an operation: those that its comment lists, and those that the gateway gives to every request."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from taskmanager.rpc.v1 import error_reason_pb2

from gateway.openapi.bounds import Schema
from gateway.openapi.comments import StatedError
from gateway.openapi.descriptors import Descriptors
from gateway.openapi.headers import header
from gateway.openapi.schemas import Schemas
from gateway.replies import LOCAL_REPLIES

# The name of the schema of an error's body.
SCHEMA: Final = "Error"

# The HTTP status of each gRPC status (google/rpc/code.proto), as the transcoder converts it.
HTTP_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# The HTTP statuses of the errors that any request can get, that a request with a body can get, that a request that needs a token can get, and that a
# custom method (`/projects/{id}:archive`) can get: `/projects/:archive` is the path of the project with the id ":archive".
# The gateway's other replies need a client that breaks HTTP.
_ANY: Final = (400, 429, 500, 503, 504)
_WITH_BODY: Final = (408, 413)
_WITH_TOKEN: Final = (401,)
_CUSTOM: Final = (405,)
_DETAILS: Final = ("google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo")
_REASONS: Final = "taskmanager.rpc.v1.ErrorReason"
_MEANINGS: Final[Mapping[int, str]] = {
    400: "The request is not valid.",
    401: "The call has no valid access token or credentials.",
    403: "The caller may not do this.",
    404: "The object does not exist.",
    405: "The id is empty, so the path is another one, and that one does not have this method.",
    408: "The request took too long to arrive.",
    409: "The state of the object does not allow this.",
    413: "The request is too large.",
    429: "Too many requests, or a limit is reached.",
    500: "The service has an unexpected fault.",
    503: "A part of the system is unavailable.",
    504: "The call took longer than its deadline.",
}
_HEADERS: Final[Mapping[int, str]] = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After"}


class Errors:
    """Writes the error answers of operations."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._meanings = {reason: comment.partition(" Status ")[0] for reason, comment in descriptors.enums[_REASONS].values.items()}

    def answers(self, stated: Iterable[StatedError], *, public: bool, has_body: bool, custom: bool) -> dict[str, Any]:
        """Returns the error answers of an operation, by HTTP status. The operation's own text about a reason replaces the general one."""
        cases: dict[int, dict[str, str]] = {}
        for error in stated:
            for reason in error.reasons:
                cases.setdefault(HTTP_STATUS[error.status], {})[reason] = error.when
        for status in (*_ANY, *(() if public else _WITH_TOKEN), *(_WITH_BODY if has_body else ()), *(_CUSTOM if custom else ())):
            own = cases.setdefault(status, {})
            for reason in _reasons(status):
                own.setdefault(reason, self._meanings[reason])
        return {str(status): _answer(status, cases[status]) for status in sorted(cases)}


def _reasons(status: int) -> Iterator[str]:
    """Yields the reasons with which the gateway itself answers an HTTP status."""
    for reply in LOCAL_REPLIES:
        if (reply.becomes or reply.status) == status and reply.reason is not None:
            yield error_reason_pb2.ErrorReason.Name(reply.reason)


def _answer(status: int, cases: Mapping[str, str]) -> dict[str, Any]:
    lines = [f"- `{reason}`: {when}" for reason, when in cases.items()]
    headers = {"X-Request-Id": header("X-Request-Id")}
    if status in _HEADERS:
        headers[_HEADERS[status]] = header(_HEADERS[status])
    schema = {"$ref": f"#/components/schemas/{SCHEMA}"}
    return {
        "description": "\n".join([_MEANINGS[status], *([""] if lines else []), *lines]),
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def error_schema(schemas: Schemas) -> Schema:
    """Returns the schema of the body of every error, and adds the schemas of its details."""
    return {
        "type": "object",
        "description": "An error. Clients decide by the `reason` of its ErrorInfo; the message is for people and may change.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "The number of the gRPC status (google.rpc.Code)."},
            "message": {"type": "string", "description": "What is wrong, for people."},
            "details": {
                "type": "array",
                "items": {"anyOf": [schemas.detail(name) for name in _DETAILS]},
                "description": "The details. `@type` has the type of each.",
            },
        },
        "required": ["code", "message", "details"],
    }
