"""The OpenAPI document is valid, and says what the descriptors say; a new RPC changes it without a change of the generator."""

import re
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator
from taskmanager.rpc.v1.error_reason_pb2 import ErrorReason

from gateway.openapi.comments import StatedError, description_of, errors_of, summary_of
from gateway.openapi.descriptors import Descriptors
from gateway.openapi.document import document
from gateway.replies import LOCAL_REPLIES
from gateway.routes import Rpc
from tests.contract.rules import errors_named
from tests.gateway.planted import planted
from tests.gateway.stack import DESCRIPTORS, ROOT, routes

DOCUMENT = document(DESCRIPTORS.read_bytes())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
# A path names the id of an update by the resource, and the document by itself.
ID_OF_RESOURCE = re.compile(r"\{\w+\.id\}")
# The rows of the catalogue: a reason and its HTTP statuses. And the lines of a response: a reason.
ERRORS = ROOT / "docs" / "errors.md"
CATALOGUED = re.compile(r"^\| `([A-Z_]+)` \| [A-Z_]+ \| ([^|]+) \|", re.MULTILINE)
DESCRIBED = re.compile(r"^- `([A-Z_]+)`: \S", re.MULTILINE)
SESSIONS_ONLY = "Takes no API token, only the access token of a session."
COMMENT = """Moves a task. Takes its
 subtasks along.

 Errors include:
 - NOT_FOUND (TASK_NOT_FOUND): the caller has no task
   with this id.
 - UNAUTHENTICATED (TOKEN_MISSING, TOKEN_INVALID): no valid access token.
"""


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def parameters(path: str, method: str) -> dict[str, dict[str, Any]]:
    return {p.get("name") or p["$ref"].rpartition("/")[2]: p for p in operation(path, method)["parameters"]}


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_rest_path_of_every_rpc_is_an_operation() -> None:
    wanted = {(rest.method.lower(), ID_OF_RESOURCE.sub("{id}", rest.template)) for rpc in routes().rpcs for rest in rpc.rest}
    found = {(method, path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert wanted <= found
    assert {path for _, path in found - wanted} == {"/health", "/ready", "/.well-known/jwks.json"}


def test_a_new_rpc_appears_without_a_change_of_the_generator() -> None:
    paths = document(planted(DESCRIPTORS.read_bytes()))["paths"]
    assert "201" in paths["/api/v1/things"]["post"]["responses"]
    assert paths["/api/v1/things/{id}"]["get"]["security"] == []
    assert set(paths["/api/v1/things:watch"]["get"]["responses"]["200"]["content"]) == {"text/event-stream"}
    assert "/api/v1/things:purge" not in paths


def test_two_methods_of_one_name_are_refused() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(planted(DESCRIPTORS.read_bytes()))
    files.file[-1].service[0].method[0].name = "CreateTask"
    with pytest.raises(ValueError, match="no two may be the same"):
        document(files.SerializeToString())


def test_a_resource_has_a_schema_for_answers_input_and_changes() -> None:
    answer, input_, patch = SCHEMAS["Task"], SCHEMAS["TaskInput"], SCHEMAS["TaskPatch"]
    assert {"id", "created_at", "etag", "title", "labels", "status"} <= set(answer["required"])
    assert not {"due_date", "completed_at", "deleted_at"} & set(answer["required"])
    assert input_["required"] == ["title"]
    assert "required" not in patch
    assert "id" not in input_["properties"]
    assert "created_at" not in patch["properties"]


def test_bounds_are_those_of_the_protos() -> None:
    task = SCHEMAS["TaskInput"]["properties"]
    assert (task["title"]["minLength"], task["title"]["maxLength"]) == (1, 200)
    assert (task["priority"]["minimum"], task["priority"]["maximum"]) == (0, 5)
    assert (task["labels"]["maxItems"], task["labels"]["uniqueItems"], task["labels"]["items"]["maxLength"]) == (20, True, 50)
    assert SCHEMAS["RegisterRequest"]["properties"]["email"]["format"] == "email"
    assert SCHEMAS["TaskStatus"]["enum"] == ["PENDING", "IN_PROGRESS", "COMPLETED"]
    assert parameters("/api/v1/tasks/{id}", "get")["id"]["schema"] == {"type": "string", "format": "uuid"}
    ids = parameters("/api/v1/tasks:batchGet", "get")["ids"]
    assert (ids["required"], ids["schema"]["type"], ids["schema"]["maxItems"]) == (True, "array", 50)


def test_in_a_batch_the_body_has_what_the_path_has_otherwise() -> None:
    reference, addressed = SCHEMAS["UpdateTaskRequest"]["properties"]["task"]["allOf"]
    assert reference == {"$ref": "#/components/schemas/TaskPatch"}
    assert addressed["required"] == ["id"]
    assert set(SCHEMAS["DeleteTaskRequest"]["required"]) == {"id"}
    assert "id" not in SCHEMAS["UndeleteTaskBody"]["properties"]


def test_errors_are_those_of_the_comment_and_of_the_gateway() -> None:
    responses = operation("/api/v1/tasks/{id}", "patch")["responses"]
    assert set(responses) == {"200", "400", "401", "403", "404", "408", "409", "413", "429", "500", "503", "504"}
    assert "`ETAG_MISMATCH`: the task's etag has changed" in responses["409"]["description"]
    assert "`MALFORMED_REQUEST`" in responses["400"]["description"]
    public = operation("/api/v1/auth/login", "post")["responses"]
    assert "`INVALID_CREDENTIALS`" in public["401"]["description"]
    assert "`TOKEN_MISSING`" not in public["401"]["description"]


def test_a_verb_behind_an_id_can_meet_the_path_of_an_empty_id() -> None:
    for path, item in DOCUMENT["paths"].items():
        for method in item:
            other = operation(path, method)["responses"].get("405", {})
            assert bool(other) == ("}:" in path), path
            assert not other or "Allow" in other["headers"]


def test_headers_are_there_where_the_errors_say_so() -> None:
    assert {"Idempotency-Key", "If-Match"} <= set(parameters("/api/v1/tasks/{id}", "put"))
    assert set(parameters("/api/v1/tasks", "post")) == {"Idempotency-Key"}
    assert set(parameters("/api/v1/tasks:batchDelete", "post")) == {"Idempotency-Key"}
    assert "Idempotency-Replayed" in operation("/api/v1/tasks", "post")["responses"]["201"]["headers"]


def test_security_is_that_of_the_access_option() -> None:
    for rpc in routes().rpcs:
        for rest in rpc.rest:
            security = operation(ID_OF_RESOURCE.sub("{id}", rest.template), rest.method.lower())["security"]
            with_token = [{"apiToken": [rpc.scope]}] if rpc.scope else []
            assert security == ([] if rpc.public else [{"accessToken": []}, *with_token]), rpc


def test_an_operation_says_which_scope_it_needs() -> None:
    created = operation("/api/v1/tasks", "post")
    assert created["description"].endswith("\n\nAn API token needs the scope `tasks:write`.")
    assert "- `SCOPE_MISSING`: the API token does not have the scope `tasks:write`." in created["responses"]["403"]["description"]
    assert operation("/api/v1/auth/sessions", "get")["description"].endswith(SESSIONS_ONLY)
    assert "API token" not in operation("/api/v1/auth/login", "post")["description"]


def test_a_comment_is_split_into_its_parts() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(planted(DESCRIPTORS.read_bytes()))
    files.file[-1].source_code_info.location.add(path=[6, 0, 2, 0], leading_comments=" " + COMMENT)
    thing = document(files.SerializeToString())["paths"]["/api/v1/things"]["post"]
    assert (thing["summary"], thing["description"]) == ("Moves a task", "Moves a task. Takes its subtasks along.\n\n" + SESSIONS_ONLY)
    assert "- `SESSION_REQUIRED`: the caller sent an API token." in thing["responses"]["403"]["description"]
    assert "- `TASK_NOT_FOUND`: the caller has no task with this id." in thing["responses"]["404"]["description"]
    text = "A.\n\nErrors include:\n- ABORTED (ETAG_MISMATCH, X): why."
    assert (summary_of(text), description_of(text)) == ("A", "A.")
    assert list(errors_of(text)) == [StatedError("ABORTED", ("ETAG_MISMATCH", "X"), "why.")]


@pytest.mark.parametrize("rpc", routes().rpcs, ids=lambda rpc: rpc.name)
def test_an_operation_describes_every_error_of_its_comment_under_the_http_status_of_the_catalogue(rpc: Rpc) -> None:
    catalogue = dict(CATALOGUED.findall(ERRORS.read_text(encoding="utf-8")))
    stated = {(catalogue[reason], reason) for _, reason in errors_named(_comment(rpc.service, rpc.name))}
    of_gateway = {(str(reply.becomes or reply.status), ErrorReason.Name(reply.reason)) for reply in LOCAL_REPLIES if reply.reason is not None}
    assert stated
    # The option says this, not the comment.
    by_option = set() if rpc.public else {("403", "SCOPE_MISSING" if rpc.scope else "SESSION_REQUIRED")}
    for rest in rpc.rest:
        responses = operation(ID_OF_RESOURCE.sub("{id}", rest.template), rest.method.lower())["responses"]
        described = {(status, reason) for status, response in responses.items() for reason in DESCRIBED.findall(response["description"])}
        assert stated | by_option <= described
        assert described - stated - by_option <= of_gateway


def _comment(service: str, method: str) -> str:
    return next(m.comment for m in Descriptors(DESCRIPTORS.read_bytes()).services[service].methods if m.name == method)
