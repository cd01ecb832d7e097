"""The methods of the services as operations: a method has one operation for each of its REST paths."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.openapi.bounds import Schema
from gateway.openapi.comments import StatedError, description_of, errors_of, summary_of
from gateway.openapi.descriptors import Descriptors, Field, Message, Method
from gateway.openapi.errors import Errors
from gateway.openapi.headers import header, parameter
from gateway.openapi.schemas import Schemas, Use
from gateway.routes import RestPath, RouteTable, Rpc

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
SECURITY: Final = "accessToken"
API_TOKEN: Final = "apiToken"  # noqa: S105 - a name
# A method whose comment lists these reasons takes the headers Idempotency-Key and If-Match.
_TAKES_KEY: Final = "IDEMPOTENCY_KEY_REUSED"
_TAKES_ETAG: Final = "ETAG_MISMATCH"
_VARIABLE: Final = re.compile(r"\{(?P<name>[^{}=]+)(=[^{}]*)?\}")


def addressed_by_paths(descriptors: Descriptors, routes: RouteTable) -> dict[str, tuple[str, ...]]:
    """Returns the fields that the paths of each request contain, by the request's full name."""
    return {_method(descriptors, rpc).request: tuple(name for rest in rpc.rest for name in _variables(rest)) for rpc in routes.rpcs}


class Operations:
    """Writes the paths of the document."""

    def __init__(self, descriptors: Descriptors, schemas: Schemas, examples: Mapping[str, Any]) -> None:
        self._descriptors = descriptors
        self._schemas = schemas
        self._errors = Errors(descriptors)
        self._examples = examples

    def paths(self, routes: RouteTable) -> dict[str, Any]:
        """Returns the path items of every method. Raises ValueError if two methods have the same name."""
        names = [rpc.name for rpc in routes.rpcs]
        if len(names) != len(set(names)):
            raise ValueError("the names of the methods are the operations' ids, so no two may be the same")
        items: dict[str, Any] = {}
        for rpc in routes.rpcs:
            for rest in rpc.rest:
                items.setdefault(_path(rest), {})[rest.method.lower()] = self._operation(rpc, rest)
        return items

    def _operation(self, rpc: Rpc, rest: RestPath) -> dict[str, Any]:
        method = _method(self._descriptors, rpc)
        request = self._descriptors.messages[method.request]
        reasons = {reason for error in errors_of(method.comment) for reason in error.reasons}
        examples = self._examples.get(rpc.name, {})
        operation: dict[str, Any] = {
            "operationId": rpc.name[0].lower() + rpc.name[1:],
            "tags": [tag_of(rpc.service)],
            "summary": summary_of(method.comment),
            "description": "\n\n".join([description_of(method.comment), *_access(rpc)]),
            "security": [] if rpc.public else [{SECURITY: []}, *([{API_TOKEN: [rpc.scope]}] if rpc.scope else [])],
        }
        if parameters := [*self._parameters(request, rest), *_headers(reasons, addresses=bool(_variables(rest)))]:
            operation["parameters"] = parameters
        if rest.body:
            operation["requestBody"] = self._body(request, rest, examples)
        operation["responses"] = {
            **self._success(rpc, method, replays=_TAKES_KEY in reasons, examples=examples),
            **self._errors.answers(
                [*errors_of(method.comment), *_refusals(rpc)], public=rpc.public, has_body=bool(rest.body), custom=_is_custom(rest)
            ),
        }
        return operation

    def _parameters(self, request: Message, rest: RestPath) -> Iterator[dict[str, Any]]:
        in_path = _variables(rest)
        for name in in_path:
            field = self._field(request, name)
            yield {"name": field.name, "in": "path", "required": True, "description": field.comment, "schema": self._schemas.parameter(field)}
        if rest.whole_body:
            return
        for field in request.fields:
            if field.name != rest.body and field.name not in in_path:
                required = {"required": True} if field.required else {}
                yield {"name": field.name, "in": "query", **required, "description": field.comment, "schema": self._schemas.parameter(field)}

    def _field(self, request: Message, path: str) -> Field:
        first, _, rest = path.partition(".")
        field = request.field(first)
        return self._field(self._descriptors.messages[field.type_name], rest) if rest else field

    def _body(self, request: Message, rest: RestPath, examples: Mapping[str, Any]) -> dict[str, Any]:
        if rest.whole_body:
            schema = self._schemas.body(request, _variables(rest))
            required = any(field.required and field.name not in _variables(rest) for field in request.fields)
        else:
            schema = self._schemas.object_of(request, request.field(rest.body))
            required = True
        content = {"schema": schema} | ({"example": examples["body"]} if "body" in examples else {})
        return {"required": required, "content": {JSON: content}}

    def _success(self, rpc: Rpc, method: Method, *, replays: bool, examples: Mapping[str, Any]) -> dict[str, Any]:
        schema = self._schemas.reference(method.answer, Use.ANSWER)
        example = {"example": examples["answer"]} if "answer" in examples else {}
        headers = {"X-Request-Id": header("X-Request-Id")} | ({"Idempotency-Replayed": header("Idempotency-Replayed")} if replays else {})
        answer = self._descriptors.messages[method.answer]
        description = summary_of(answer.comment) + "."
        if not rpc.streams:
            return {
                "201" if rpc.creates else "200": {"description": description, "headers": headers, "content": {JSON: {"schema": schema} | example}}
            }
        content = {EVENTS: {"schema": _event(schema)} | example}
        return {"200": {"description": f"A stream. {description}", "headers": headers, "content": content}}


def _access(rpc: Rpc) -> Iterator[str]:
    """Yields what a client with an API token must know."""
    if not rpc.public:
        yield f"An API token needs the scope `{rpc.scope}`." if rpc.scope else "Takes no API token, only the access token of a session."


def _refusals(rpc: Rpc) -> Iterator[StatedError]:
    """Yields the error with which the method refuses an API token."""
    if rpc.scope:
        yield StatedError("PERMISSION_DENIED", ("SCOPE_MISSING",), f"the API token does not have the scope `{rpc.scope}`.")
    elif not rpc.public:
        yield StatedError("PERMISSION_DENIED", ("SESSION_REQUIRED",), "the caller sent an API token.")


def _event(message: Schema) -> Schema:
    """Returns the schema of one server-sent event, as OpenAPI 3.2 describes the events of a stream. OpenAPI 3.1 has no form for them."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": message, "description": "One message as JSON."}
    return {
        "type": "object",
        "description": "One event of the stream.",
        "properties": {
            "event": {"type": "string", "const": "message", "description": "The type of the event; not sent, because it is the default."},
            "data": data,
        },
        "required": ["data"],
    }


def tag_of(service: str) -> str:
    """Returns the tag of a service's operations: `Task` for `taskmanager.task.v1.TaskService`."""
    return service.rpartition(".")[2].removesuffix("Service")


def _method(descriptors: Descriptors, rpc: Rpc) -> Method:
    return next(method for method in descriptors.services[rpc.service].methods if method.name == rpc.name)


def _variables(rest: RestPath) -> tuple[str, ...]:
    return tuple(match["name"] for match in _VARIABLE.finditer(rest.template))


def _is_custom(rest: RestPath) -> bool:
    """Returns whether the path ends with a verb behind a variable (AIP-136)."""
    return rest.variable and ":" in rest.template.rpartition("}")[2]


def _path(rest: RestPath) -> str:
    """Returns the path as OpenAPI writes it: `/tasks/{id}` for `/tasks/{task.id}`."""
    return _VARIABLE.sub(lambda match: f"{{{match['name'].rpartition('.')[2]}}}", rest.template)


def _headers(reasons: Iterable[str], *, addresses: bool) -> Iterator[dict[str, Any]]:
    if _TAKES_KEY in reasons:
        yield parameter("Idempotency-Key")
    if _TAKES_ETAG in reasons and addresses:
        yield parameter("If-Match")
