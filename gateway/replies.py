"""The format of Envoy's own replies: one table from HTTP status to the error that a REST client and a gRPC client see.

The table must not cover the services' answers. The transcoder formats those in the same shape.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from taskmanager.rpc.v1 import error_reason_pb2

from gateway.conditions import FROM_TRANSCODER
from gateway.uploads import RETRY_SECONDS, UNDECLARED_BYTES

_DOMAIN: Final = "taskmanager"
_TYPE_PREFIX: Final = "type.googleapis.com/google.rpc."

# The replying filter's own text. It is used where it helps the client and reveals nothing internal.
_OWN_TEXT: Final = "%LOCAL_REPLY_BODY%"


@dataclass(frozen=True)
class LocalReply:
    """The reply that a client sees if Envoy itself answers with an HTTP status.

    status: the HTTP status that the reply is for. A REST client sees it too, unless `becomes` replaces it.
    code: the google.rpc.Code in the JSON for a REST client. A gRPC client sees `grpc_code` if it is set.
    reason: the ErrorReason of the google.rpc.ErrorInfo; None if the catalogue has no reason for it.
    challenge: the parameters of the `www-authenticate: Bearer` header (RFC 6750 section 3).
    condition: an additional access log filter (in Envoy's format) that must match; None matches every reply with the status.
    more_headers: further headers, for every client. They may contain Envoy's command operators.
    """

    status: int
    code: int
    message: str
    reason: int | None = None
    grpc_code: int | None = None
    retry_seconds: int | None = None
    becomes: int | None = None
    challenge: str | None = None
    condition: dict[str, Any] | None = None
    more_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Any]:
        """The body for a REST client, in the same shape as the transcoder's errors."""
        return {"code": self.code, "message": self.message, "details": list(self._details())}

    @property
    def headers(self) -> dict[str, str]:
        """The headers for every client."""
        challenge = {} if self.challenge is None else {"www-authenticate": f"Bearer {self.challenge}"}
        return {**challenge, **self.more_headers}

    @property
    def grpc_headers(self) -> dict[str, str]:
        """The headers for a gRPC client: grpc-status and, if the reply has a reason, the error details."""
        code = self.code if self.grpc_code is None else self.grpc_code
        headers = {**self.headers, "grpc-status": str(code)}
        if self.reason is not None and self.message != _OWN_TEXT:
            status = status_pb2.Status(code=code, message=self.message)
            for detail in self._messages():
                status.details.add().Pack(detail)
            headers["grpc-status-details-bin"] = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
        return headers

    def _messages(self) -> Iterator[error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo]:
        if self.reason is not None:
            yield error_details_pb2.ErrorInfo(reason=error_reason_pb2.ErrorReason.Name(self.reason), domain=_DOMAIN)
        if self.retry_seconds is not None:
            yield error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=self.retry_seconds))

    def _details(self) -> Iterator[dict[str, Any]]:
        if self.reason is not None:
            reason = error_reason_pb2.ErrorReason.Name(self.reason)
            yield {"@type": f"{_TYPE_PREFIX}ErrorInfo", "reason": reason, "domain": _DOMAIN, "metadata": {}}
        if self.retry_seconds is not None:
            yield {"@type": f"{_TYPE_PREFIX}RetryInfo", "retry_delay": f"{self.retry_seconds}s"}


def grpc_codes() -> dict[str, str]:
    """Returns the gRPC code that a gRPC client sees, for each HTTP status of Envoy's replies."""
    codes: dict[str, str] = {}
    for reply in LOCAL_REPLIES:
        codes.setdefault(str(reply.becomes or reply.status), str(reply.code if reply.grpc_code is None else reply.grpc_code))
    return codes


def has_status(status: int) -> dict[str, Any]:
    """Returns the access log filter that matches a reply with this HTTP status."""
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "gateway.no_runtime_value"}}}}


def _cel(expression: str) -> dict[str, Any]:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": expression,
            },
        }
    }


# This replaces the JWT filter's own challenge, which contains the URL with its query.
_REALM: Final = 'realm="task-manager"'
_INVALID_TOKEN: Final = f'{_REALM}, error="invalid_token"'
_TOKEN_REFUSED: Final = "The access token is not valid."  # noqa: S105 - a message, not a secret

# An empty header is none, as in the services (servicekit.identity).
_BLANK: Final = {"safe_regex": {"regex": r"[ \t]*"}}
_NO_TOKEN: Final = {"header_filter": {"header": {"name": "authorization", "string_match": _BLANK, "treat_missing_header_as_empty": True}}}
# If the gateway has no keys to verify a token with, it must not report the token as invalid.
_NO_KEYS: Final = _cel("response.code_details.contains('Jwks_remote_fetch')")

# The JWT filter answers 403 for a token with another audience. The gateway reports it as an invalid token.
_AUDIENCE: Final = _cel("response.code_details.contains('jwt_authn')")
# The transcoder's text says what is wrong with a body or a query. Other filters have no text, or one about their internals.
_TRANSCODER: Final = _cel("response.code_details.contains('grpc_json_transcode')")

# A REST body whose length the client did not declare. A gRPC call has no length.
_UNDECLARED: Final = _cel(
    "!('content-length' in request.headers) && !('content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc'))"
)

# The exchange of API tokens. A limit that it reaches is auth_service's (see auth_service.api_tokens.guesses), whose interval is 10 s by default.
_EXCHANGE: Final = _cel("response.code_details.contains('ext_authz')")

# A direct response, which is an answer of a route. Its body stays as it is.
DIRECT_RESPONSE: Final = _cel("response.code_details == 'direct_response'")
# The routes whose requests have no answer have no cluster, so that the filters run. Their names say which answer the client gets.
NO_QUERY: Final = "no-query"
_NO_QUERY: Final = _cel(f"xds.route_name == '{NO_QUERY}'")
# The name of any other such route is the list of the path's methods.
_OTHER_METHOD: Final = _cel("xds.route_name != ''")
_TOO_LARGE_HEADERS: Final = _cel("response.code_details.contains('rbac_access_denied')")

# The first reply that matches is used. For a status that is not listed, the client sees the replying filter's text and the code UNKNOWN.
LOCAL_REPLIES: Final = (
    LocalReply(
        400, code_pb2.INVALID_ARGUMENT, _OWN_TEXT, error_reason_pb2.MALFORMED_REQUEST, condition=_TRANSCODER, more_headers={FROM_TRANSCODER: "1"}
    ),
    LocalReply(400, code_pb2.INVALID_ARGUMENT, "The request is malformed.", error_reason_pb2.MALFORMED_REQUEST),
    LocalReply(
        401,
        code_pb2.UNAVAILABLE,
        "Access tokens cannot be checked; try again later.",
        error_reason_pb2.DEPENDENCY_UNAVAILABLE,
        becomes=503,
        challenge=_REALM,
        condition=_NO_KEYS,
    ),
    LocalReply(401, code_pb2.UNAUTHENTICATED, "The call has no access token.", error_reason_pb2.TOKEN_MISSING, challenge=_REALM, condition=_NO_TOKEN),
    LocalReply(401, code_pb2.UNAUTHENTICATED, _TOKEN_REFUSED, error_reason_pb2.TOKEN_INVALID, challenge=_INVALID_TOKEN),
    LocalReply(
        403, code_pb2.UNAUTHENTICATED, _TOKEN_REFUSED, error_reason_pb2.TOKEN_INVALID, becomes=401, challenge=_INVALID_TOKEN, condition=_AUDIENCE
    ),
    LocalReply(
        403,
        code_pb2.RESOURCE_EXHAUSTED,
        "The headers are too large, or too many.",
        error_reason_pb2.REQUEST_TOO_LARGE,
        becomes=431,
        condition=_TOO_LARGE_HEADERS,
    ),
    LocalReply(403, code_pb2.PERMISSION_DENIED, "This is not allowed.", error_reason_pb2.ACCESS_DENIED),
    LocalReply(
        404,
        code_pb2.INVALID_ARGUMENT,
        "This method has no query parameters. Its fields are in the body, so that no secret is in a URL.",
        error_reason_pb2.MALFORMED_REQUEST,
        becomes=400,
        condition=_NO_QUERY,
    ),
    LocalReply(
        404,
        code_pb2.UNIMPLEMENTED,
        "The path does not have this method.",
        becomes=405,
        condition=_OTHER_METHOD,
        more_headers={"allow": "%ROUTE_NAME%"},
    ),
    LocalReply(404, code_pb2.NOT_FOUND, "There is nothing at this path.", grpc_code=code_pb2.UNIMPLEMENTED),
    LocalReply(405, code_pb2.UNIMPLEMENTED, "The path does not have this method."),
    LocalReply(408, code_pb2.DEADLINE_EXCEEDED, "The request took too long.", error_reason_pb2.DEADLINE_EXCEEDED),
    LocalReply(
        413,
        code_pb2.RESOURCE_EXHAUSTED,
        f"A body without a content-length may have {UNDECLARED_BYTES // 1024} KiB.",
        error_reason_pb2.REQUEST_TOO_LARGE,
        condition=_UNDECLARED,
    ),
    LocalReply(413, code_pb2.RESOURCE_EXHAUSTED, "The request is too large.", error_reason_pb2.REQUEST_TOO_LARGE),
    LocalReply(414, code_pb2.RESOURCE_EXHAUSTED, "The path is too long.", error_reason_pb2.REQUEST_TOO_LARGE),
    LocalReply(
        415,
        code_pb2.INVALID_ARGUMENT,
        "The body must be JSON in UTF-8, without a content encoding.",
        error_reason_pb2.MALFORMED_REQUEST,
        more_headers={"accept": "application/json", "accept-encoding": "identity"},
    ),
    LocalReply(422, code_pb2.INVALID_ARGUMENT, _OWN_TEXT, error_reason_pb2.MALFORMED_REQUEST, becomes=400),  # times.lua
    LocalReply(
        423,  # the limit on uploads
        code_pb2.RESOURCE_EXHAUSTED,
        "Your large requests come too fast. Send smaller batches, or use gRPC.",
        error_reason_pb2.TOO_MANY_UPLOADS,
        retry_seconds=RETRY_SECONDS,
        becomes=429,
        more_headers={"retry-after": str(RETRY_SECONDS)},
    ),
    LocalReply(426, code_pb2.FAILED_PRECONDITION, "The protocol version is not supported."),
    LocalReply(
        429,
        code_pb2.RESOURCE_EXHAUSTED,
        "Too many failed attempts. Try again later.",
        error_reason_pb2.TOO_MANY_ATTEMPTS,
        retry_seconds=10,
        condition=_EXCHANGE,
        more_headers={"retry-after": "10"},
    ),
    LocalReply(
        429, code_pb2.RESOURCE_EXHAUSTED, "Too many requests from this address; try again later.", error_reason_pb2.TOO_MANY_REQUESTS, retry_seconds=1
    ),
    LocalReply(431, code_pb2.RESOURCE_EXHAUSTED, "The headers are too large, or too many.", error_reason_pb2.REQUEST_TOO_LARGE),
    LocalReply(500, code_pb2.INTERNAL, "Something went wrong.", error_reason_pb2.INTERNAL_ERROR),
    LocalReply(501, code_pb2.UNIMPLEMENTED, "This is not implemented."),
    LocalReply(502, code_pb2.UNAVAILABLE, "The service gave no valid answer; try again later.", error_reason_pb2.DEPENDENCY_UNAVAILABLE),
    LocalReply(503, code_pb2.UNAVAILABLE, "The service is not available; try again later.", error_reason_pb2.DEPENDENCY_UNAVAILABLE),
    LocalReply(504, code_pb2.DEADLINE_EXCEEDED, "The service did not answer in time.", error_reason_pb2.DEADLINE_EXCEEDED),
)
