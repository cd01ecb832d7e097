"""REST: the mapping of requests to messages, the form of answers and errors, and the size limits of both."""

import runpy
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.gateway.errors import assert_error
from tests.gateway.stack import CREATE_TASK, GET_TASK, LOGIN, ROOT, Gateway, Stack, gateway_behind
from tests.support.tiers import first_quick

TASKS = "/api/v1/tasks"
MEBIBYTE = 1024 * 1024
# The HTTP statuses that docs/errors.md lists.
HTTP_STATUS: dict[str, int] = runpy.run_path(str(ROOT / "proto" / "errors.py"))["HTTP_STATUS"]
LIMIT = 3 * MEBIBYTE


def test_answers_are_snake_case_with_defaults_and_enum_names(gateway: Gateway, stack: Stack) -> None:
    stack.behave(GET_TASK, lambda request, _: stack.messages.response(GET_TASK)(id=request.id, status=2))
    assert gateway.request("GET", f"{TASKS}/7").json() == {
        "id": "7",
        "user_id": "",
        "status": "IN_PROGRESS",
        "labels": [],
        "etag": "",
        "project_id": "",
        "parent_id": "",
        "position": "",
        "previous_id": "",
        "next_id": "",
        "reminders": [],
    }


@pytest.mark.parametrize("status", ["in_progress", "IN_PROGRESS", "In_Progress"])
def test_enum_values_are_read_in_any_case(gateway: Gateway, stack: Stack, status: str) -> None:
    assert gateway.request("GET", TASKS, params={"status": status}).status_code == 200
    assert gateway.request("POST", TASKS, json={"status": status}).status_code == 201
    query, body = sorted(stack.requests(), key=lambda request: request.DESCRIPTOR.name, reverse=True)
    assert query.status == body.task.status == 2


def test_a_mask_in_the_query_and_presence_in_the_body(gateway: Gateway, stack: Stack) -> None:
    gateway.request("PATCH", f"{TASKS}/7?update_mask=title,description", json={"title": ""})
    (request,) = stack.requests()
    assert request.task.id == "7"
    assert list(request.update_mask.paths) == ["title", "description"]
    assert request.task.HasField("title")
    assert not request.task.HasField("description")


def test_unknown_body_fields_are_dropped(gateway: Gateway) -> None:
    assert gateway.request("POST", TASKS, json={"title": "a", "bogus": [1]}).status_code == 201


def test_only_success_becomes_201(gateway: Gateway, stack: Stack) -> None:
    stack.behave(CREATE_TASK, lambda _, context: context.abort(grpc.StatusCode.ALREADY_EXISTS, "it is there"))
    assert_error(gateway.request("POST", TASKS, json={}), 409, 6)


@pytest.mark.parametrize(("path", "code"), [(TASKS, "12"), (f"{TASKS}/", "12"), (f"{TASKS}/%2F", "3")])
def test_a_grpc_request_to_a_rest_path_gets_a_grpc_answer(gateway: Gateway, path: str, code: str) -> None:
    answer = gateway.request("POST", path, content=bytes(5), headers={"content-type": "application/grpc"})
    assert (answer.status_code, answer.headers["content-type"], answer.headers["grpc-status"]) == (200, "application/grpc", code)
    assert "content-security-policy" not in answer.headers


def test_an_error_of_a_service_keeps_its_details(gateway: Gateway, stack: Stack) -> None:
    def refuse(_: Any, context: Any) -> None:
        status = status_pb2.Status(code=5, message="no such täsk")
        for detail in (
            error_details_pb2.ErrorInfo(reason="TASK_NOT_FOUND", domain="taskmanager", metadata={"id": "7"}),
            error_details_pb2.BadRequest(field_violations=[{"field": "id", "description": "is not there"}]),
        ):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))

    stack.behave(GET_TASK, refuse)
    answer = gateway.request("GET", f"{TASKS}/7")
    body = answer.json()
    assert (answer.status_code, body["code"], body["message"]) == (404, 5, "no such täsk")
    info, bad = body["details"]
    assert info == {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TASK_NOT_FOUND", "domain": "taskmanager", "metadata": {"id": "7"}}
    assert bad["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert (bad["field_violations"][0]["field"], bad["field_violations"][0]["description"]) == ("id", "is not there")
    assert not [name for name in answer.headers if name.startswith("grpc-")]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", f"{TASKS}?bogus=1", None),
        ("GET", f"{TASKS}?page_size=many", None),
        ("GET", f"{TASKS}?status=BOGUS", None),
        ("GET", f"{TASKS}/a%2Fb", None),
        ("GET", f"{TASKS}/%00", None),
        ("POST", TASKS, b"{bad"),
        ("POST", TASKS, b'{"title": "a"'),
        ("POST", TASKS, b"[]"),
        ("POST", TASKS, b'{"title": 5}'),
        ("POST", TASKS, b'{"title": "\xff\xfe"}'),
        ("POST", TASKS, b'{"priority": 1e400}'),
        ("POST", TASKS, b'{"due_date": "tomorrow"}'),
        ("POST", TASKS, b'{"labels":' + b"[" * 100 + b"]" * 100 + b"}"),
        ("POST", TASKS, b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        ("POST", TASKS, b'{"x":' * 10_000 + b"1" + b"}" * 10_000),
        ("PUT", f"{TASKS}/1", b'{"id": "2"}'),
    ],
)
def test_bad_input_is_400(gateway: Gateway, stack: Stack, method: str, path: str, content: bytes | None) -> None:
    assert_error(gateway.request(method, path, content=content), 400, 3, "MALFORMED_REQUEST")
    assert not stack.requests()


def test_what_is_no_http_request_gets_the_same_shape(gateway: Gateway) -> None:
    assert_error(gateway.request("BREW", TASKS), 400, 3, "MALFORMED_REQUEST")
    assert_error(gateway.request("GET", TASKS, headers={"x-big": "x" * 140_000}), 431, 8, "REQUEST_TOO_LARGE")


def _body(size: int) -> bytes:
    return b'{"title":"' + b"x" * (size - 12) + b'"}'


def test_a_body_of_3_mib_arrives(gateway: Gateway, stack: Stack) -> None:
    assert gateway.request("POST", TASKS, content=_body(LIMIT)).status_code == 201
    assert len(stack.requests()[0].task.title) == LIMIT - 12


@pytest.mark.parametrize("size", first_quick([LIMIT + 1, 5 * MEBIBYTE, 20 * MEBIBYTE]))
@pytest.mark.parametrize("chunked", [False, True])
def test_a_larger_body_is_413(gateway: Gateway, stack: Stack, size: int, *, chunked: bool) -> None:
    body = _body(size)
    assert_error(gateway.request("POST", TASKS, content=iter([body]) if chunked else body), 413, 8, "REQUEST_TOO_LARGE")
    assert_error(gateway.request("POST", "/api/v1/auth/login", token=False, content=body), 413, 8, "REQUEST_TOO_LARGE")
    assert not stack.requests()


@pytest.mark.parametrize(("size", "fits"), [(LIMIT, True), (LIMIT + 1, False), (5 * MEBIBYTE, False)])
def test_a_grpc_message_has_the_same_limit(gateway: Gateway, stack: Stack, size: int, *, fits: bool) -> None:
    message = stack.messages.request(LOGIN)(email="x" * (size - 5))
    assert message.ByteSize() == size
    if fits:
        gateway.call(LOGIN, message, token=False)
        assert len(stack.requests()[0].email) == size - 5
    else:
        error = gateway.failure(LOGIN, message, token=False)
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "The request is too large.")
        assert not stack.requests()


@pytest.mark.parametrize("character", ["x", "\x01"])
def test_an_answer_of_two_mebibytes_and_a_half_arrives(gateway: Gateway, stack: Stack, character: str) -> None:
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(title=character * (5 * MEBIBYTE // 2)))
    assert len(gateway.request("GET", f"{TASKS}/1").json()["title"]) == 5 * MEBIBYTE // 2


def test_an_answer_that_is_too_large_is_an_internal_error(gateway: Gateway, stack: Stack) -> None:
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(title="x" * 5 * MEBIBYTE))
    assert_error(gateway.request("GET", f"{TASKS}/1"), 500, 13, "INTERNAL_ERROR")


def test_the_limit_is_a_setting(stack: Stack) -> None:
    with gateway_behind(stack, max_request_bytes=1000) as gateway:
        assert gateway.request("POST", TASKS, content=_body(1000)).status_code == 201
        assert_error(gateway.request("POST", TASKS, content=_body(1001)), 413, 8, "REQUEST_TOO_LARGE")


@pytest.mark.parametrize(("status", "http"), HTTP_STATUS.items())
def test_each_status_is_over_rest_what_the_catalogue_says(gateway: Gateway, stack: Stack, status: str, http: int) -> None:
    code = grpc.StatusCode[status]
    stack.behave(GET_TASK, lambda _, context: context.abort(code, "no"))
    assert_error(gateway.request("GET", f"{TASKS}/7"), http, code.value[0])
