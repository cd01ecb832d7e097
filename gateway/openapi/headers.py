"""The headers of requests and answers that no proto file describes."""

from typing import Any, Final

# The headers of answers, by name.
HEADERS: Final[dict[str, Any]] = {
    "Allow": {"description": "The methods that the path has.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` if this is the stored answer to an earlier request with the same key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {"description": "The number of seconds to wait before a retry.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "WWW-Authenticate": {"description": "The challenge (RFC 6750 section 3).", "schema": {"type": "string"}},
    "X-Request-Id": {
        "description": "The id of the request in the logs. A client can choose it by a header of this name.",
        "schema": {"type": "string"},
    },
}
# The parameters that are headers of requests, by name.
PARAMETERS: Final[dict[str, Any]] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes the call safe to retry. The server stores the answer of a successful call under the key for 24 hours. If the same "
        "request arrives again with the same key, the server changes nothing and returns the stored answer with `Idempotency-Replayed: true`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "The server changes the object only if its current etag is one of these (RFC 9110 section 13.1.1). The `etag` of an "
        "object contains the double quotes that belong here. `*` means any etag.",
        "schema": {"type": "string", "maxLength": 1024, "pattern": r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'},
    },
}


def header(name: str) -> dict[str, Any]:
    """Returns the reference to a header of answers."""
    return {"$ref": f"#/components/headers/{name}"}


def parameter(name: str) -> dict[str, Any]:
    """Returns the reference to a header of requests."""
    return {"$ref": f"#/components/parameters/{name}"}
