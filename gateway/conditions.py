"""The conditions under which Envoy runs a filter, as matchers of `ExtensionWithMatcher`. Envoy skips the filter for every other request.

A condition on the response does not skip the filter for the request, so only a filter that changes nothing in requests may have one.
"""

from collections.abc import Sequence
from typing import Any, Final

Predicate = dict[str, Any]

_SKIP: Final = {
    "action": {"name": "skip", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter"}}
}


def only_if(*any_of: Sequence[Predicate]) -> dict[str, Any]:
    """Returns the matcher that skips the filter unless every predicate of at least one sequence is true."""
    alternatives = [_combined("and_matcher", every) for every in any_of]
    return {"matcher_list": {"matchers": [{"predicate": _unless(_combined("or_matcher", alternatives)), "on_match": _SKIP}]}}


def in_cel(operator: str, *operands: Any) -> dict[str, Any]:
    """Returns a call in CEL's syntax tree, for Envoy's RBAC filter. An operand is another call, an attribute such as `request.size`, or a number."""
    return {"call_expr": {"function": operator, "args": [_operand(each) for each in operands]}}


def _operand(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"const_expr": {"int64_value": value}}
    if isinstance(value, dict):
        return value
    name, _, attribute = value.partition(".")
    return {"select_expr": {"operand": {"ident_expr": {"name": name}}, "field": attribute}}


def _combined(how: str, predicates: Sequence[Predicate]) -> Predicate:
    # Envoy's combinations have at least two predicates.
    return predicates[0] if len(predicates) == 1 else {how: {"predicate": list(predicates)}}


def _unless(predicate: Predicate) -> Predicate:
    return {"not_matcher": predicate}


def _header(side: str, name: str, match: dict[str, Any]) -> Predicate:
    # A header that is missing matches nothing.
    typed_config = {"@type": f"type.googleapis.com/envoy.type.matcher.v3.Http{side}HeaderMatchInput", "header_name": name}
    return {"single_predicate": {"input": {"name": name, "typed_config": typed_config}, "value_match": match}}


# The requests that the Lua filter works on (see unusual.lua).
UNUSUAL: Final = only_if(
    # Not `Bearer TOKEN`, but the same in another form.
    [
        _unless(_header("Request", "authorization", {"safe_regex": {"google_re2": {}, "regex": "Bearer [^ ]*"}})),
        _header("Request", "authorization", {"safe_regex": {"google_re2": {}, "regex": "(?i)[ \\t]*bearer .*"}}),
    ],
    [_unless(_header("Request", "x-request-id", {"safe_regex": {"google_re2": {}, "regex": "[0-9A-Za-z_.:-]{0,64}"}}))],
    [_header("Request", "content-type", {"prefix": "application/grpc-web"})],
    [_header("Request", "grpc-encoding", {"safe_regex": {"google_re2": {}, "regex": ".*"}})],
    [_header("Request", "content-encoding", {"safe_regex": {"google_re2": {}, "regex": ".*"}})],
    [_header("Request", "content-type", {"safe_regex": {"google_re2": {}, "regex": "(?i).*charset.*"}})],
)
# The requests with an API token. The Lua filter has run before, so the scheme is written `Bearer`.
API_TOKEN: Final = only_if([_header("Request", "authorization", {"prefix": "Bearer tm_"})])
# The requests with a body of at least uploads.COUNTED_BYTES, and those that do not say how long their body is.
_LARGE: Final = "1638[4-9]|1639.|16[4-9]..|1[7-9]...|[2-9]....|.{6,}"
UPLOAD: Final = only_if([_header("Request", "content-length", {"safe_regex": {"google_re2": {}, "regex": _LARGE}})])
UNDECLARED: Final = only_if([_unless(_header("Request", "content-length", {"safe_regex": {"google_re2": {}, "regex": ".*"}}))])
# A header that marks the transcoder's errors until the Lua filter has cleaned their text.
FROM_TRANSCODER: Final = "x-from-transcoder"
TRANSCODER_ERROR: Final = only_if([_header("Response", FROM_TRANSCODER, {"exact": "1"})])
_IS_JSON: Final = _header("Response", "content-type", {"prefix": "application/json"})
_IS_EVENTS: Final = _header("Response", "content-type", {"prefix": "text/event-stream"})
ERROR: Final = only_if([_header("Response", ":status", {"safe_regex": {"google_re2": {}, "regex": "[45].."}})])
REST_ANSWER: Final = only_if([_IS_JSON], [_IS_EVENTS])
REST_200: Final = only_if([_header("Response", ":status", {"exact": "200"}), _IS_JSON])
REST_401: Final = only_if([_header("Response", ":status", {"exact": "401"}), _IS_JSON])

# More than clients need, and less than grpc accepts.
MAX_HEADER_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 100
TOO_LARGE_HEADERS: Final = in_cel(
    "_||_", in_cel("_>_", "request.total_size", MAX_HEADER_BYTES), in_cel("_>_", in_cel("size", "request.headers"), MAX_HEADERS)
)
