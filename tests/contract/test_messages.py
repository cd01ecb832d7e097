"""Every request body, in JSON or bytes, gets the right code in the standard error shape, and never a 5xx."""

from typing import Any

import grpc.aio
import httpx
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from taskmanager.task.v1 import task_service_pb2

from devstack.stack import Stack
from tests.contract.calls import every_rpc
from tests.contract.conftest import Ways, metadata_of
from tests.contract.table import NO_ID, World, filled, make_world, row_of
from tests.support import rawhttp
from tests.support.accounts import Account
from tests.support.calls import rpc_call
from tests.support.descriptors import Rpc, named, rpcs
from tests.support.errors import ApiError, of_response

TASKS = "/api/v1/tasks"
JSON = {"content-type": "application/json"}
FOUR_MEBIBYTES = 4 * 1024 * 1024

with_body = pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if rpc.body], ids=lambda rpc: rpc.name)


def _text_fields(rpc: Rpc) -> list[int]:
    return [field.number for field in rpc.request.DESCRIPTOR.fields if field.type == field.TYPE_STRING]


NOT_JSON = {
    "open": b"{",
    "text": b"hello",
    "form": b"title=a&priority=1",
    "two-values": b'{"title": "a"} {}',
    "garbage-behind": b'{"title": "a"}x',
    "bom": b'\xef\xbb\xbf{"title": "a"}',
    "utf-16": '{"title": "a"}'.encode("utf-16"),
    "utf-8-invalid": b'{"name": "\xff\xfe"}',
    "utf-8-cut-off": b'{"name": "a\xe2\x82"}',
    "utf-8-overlong": b'{"name": "\xc0\x80"}',
    "utf-8-surrogate": b'{"name": "\xed\xa0\x80"}',
    "lone-surrogate": b'{"name": "\\ud800"}',
    "list": b"[]",
    "deep-list": b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}",
    "very-deep-list": b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
}

# Bodies of CreateTask that are JSON, but not a task.
WRONG_TYPES = {
    "string": b'"x"',
    "number": b"1",
    "title-number": b'{"title": 5}',
    "title-list": b'{"title": ["x"]}',
    "title-object": b'{"title": {}}',
    "title-bool": b'{"title": true}',
    "title-twice": b'{"title": "a", "title": "b"}',
    "priority-word": b'{"title": "a", "priority": "high"}',
    "priority-fraction": b'{"title": "a", "priority": 1.5}',
    "priority-infinite": b'{"title": "a", "priority": 1e999}',
    "priority-nan": b'{"title": "a", "priority": NaN}',
    "priority-beyond-int32": b'{"title": "a", "priority": 2147483648}',
    "labels-object": b'{"title": "a", "labels": {"a": 1}}',
    "labels-deep": b'{"title": "a", "labels": ' + b"[" * 100 + b"]" * 100 + b"}",
    "status-unknown-name": b'{"title": "a", "status": "DONE"}',
    "status-unknown-number": b'{"title": "a", "status": 99}',
    "status-negative": b'{"title": "a", "status": -1}',
    "due-word": b'{"title": "a", "due_date": "tomorrow"}',
    "due-number": b'{"title": "a", "due_date": 5}',
    "due-year-0": b'{"title": "a", "due_date": "0000-01-01T00:00:00Z"}',
    "due-year-10000": b'{"title": "a", "due_date": "10000-01-01T00:00:00Z"}',
    "due-before-year-1": b'{"title": "a", "due_date": "0001-01-01T00:00:00+01:00"}',
    "due-after-year-9999": b'{"title": "a", "due_date": "9999-12-31T23:59:59-01:00"}',
    "due-at-minus-infinity": b'{"title": "a", "due_date": "0001-01-01T00:00:00Z"}',
    "due-at-infinity": b'{"title": "a", "due_date": "9999-12-31T23:59:59.999999Z"}',
    "due-30-february": b'{"title": "a", "due_date": "2026-02-30T00:00:00Z"}',
    "due-no-zone": b'{"title": "a", "due_date": "2026-02-20T00:00:00"}',
    "due-seconds-out-of-range": b'{"title": "a", "due_date": {"seconds": 9223372036854775807}}',
    "due-nanos-out-of-range": b'{"title": "a", "due_date": {"nanos": -1}}',
    "nul-escaped": b'{"title": "a\\u0000b"}',
    "nul-raw": b'{"title": "a\x00b"}',
    "title-null": b'{"title": null}',
    "null": b"null",
    "nothing": b"",
    "deep-objects": b'{"a": ' * 100 + b"1" + b"}" * 100,
}


@with_body
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_a_json_object(rpc: Rpc, body: bytes, shared: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    path = filled(row_of(rpc.name).path, shared[0])
    response = await rest.request(rpc.verb, path, content=body, headers={**shared[1].headers, **JSON})
    error = of_response(response)
    assert (response.status_code, error.code) == (400, 3), response.text
    assert error.reason in {"MALFORMED_REQUEST", "INVALID_FIELD"}


@pytest.mark.parametrize("body", WRONG_TYPES.values(), ids=WRONG_TYPES)
async def test_json_that_is_no_task(body: bytes, account: Account, rest: httpx.AsyncClient) -> None:
    response = await rest.post(TASKS, content=body, headers={**account.headers, **JSON})
    assert (response.status_code, of_response(response).code) == (400, 3), response.text
    assert (await rest.get(TASKS, headers=account.headers)).json()["tasks"] == []


async def test_unknown_fields_of_a_body_are_ignored(account: Account, rest: httpx.AsyncClient) -> None:
    response = await rest.post(TASKS, json={"title": "a", "no_such_field": {"a": [1]}}, headers=account.headers)
    assert response.status_code == 201


async def test_fields_that_the_server_sets_are_ignored(account: Account, rest: httpx.AsyncClient) -> None:
    given = {"user_id": NO_ID, "created_at": "2000-01-01T00:00:00Z", "completed_at": "2000-01-01T00:00:00Z", "deleted_at": "2000-01-01T00:00:00Z"}
    task = (await rest.post(TASKS, json={"title": "a", "etag": "x", "id": NO_ID, **given}, headers=account.headers)).json()
    assert (task["id"] != NO_ID, task["user_id"], task["etag"] != "x") == (True, account.id, True)
    assert task["created_at"] > "2026"
    assert {task.get("completed_at"), task.get("deleted_at")} == {None}


# Sizes.


@pytest.mark.parametrize("path", [TASKS, "/api/v1/auth/login"])
async def test_a_body_of_four_mebibytes(path: str, shared: tuple[World, Account], system: Stack) -> None:
    head = (f"authorization: Bearer {shared[1].access_token}".encode(), b"content-type: application/json")
    body = b'{"title": "' + b"a" * FOUR_MEBIBYTES + b'"}'
    response = await rawhttp.send(system.state.url, rawhttp.RawRequest(b"POST", path.encode(), head, body))
    assert (response.status_code, of_response(response).code) == (413, 8)


async def test_a_message_of_four_mebibytes(shared: tuple[World, Account], ways: Ways) -> None:
    rpc = named("TaskService.CreateTask")
    message: Any = task_service_pb2.CreateTaskRequest()
    message.task.title, message.task.description = "a", "x" * FOUR_MEBIBYTES
    for way, error in (await ways.by_grpc(rpc, message, shared[1])).items():
        assert error is not None, f"accepted by {way}"
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], f"{way}: {error}"


async def test_a_body_just_within_the_limit_is_looked_at(shared: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    body = {"title": "a", "description": "x" * (3 * 1024 * 1024 - 1024)}
    response = await rest.post(TASKS, json=body, headers=shared[1].headers)
    assert of_response(response).fields == {"task.description": "must be at most 10000 characters"}


# Requests that only gRPC can express.


@every_rpc
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0b" * 200], ids=["tag", "cut-off", "deep"])
async def test_bytes_that_are_no_message(rpc: Rpc, data: bytes, shared: tuple[World, Account], ways: Ways) -> None:
    _assert_malformed(await ways.by_grpc(rpc, data, shared[1]))


@pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if _text_fields(rpc)], ids=lambda rpc: rpc.name)
async def test_a_text_that_is_not_utf_8(rpc: Rpc, shared: tuple[World, Account], ways: Ways) -> None:
    for number in _text_fields(rpc):
        _assert_malformed(await ways.by_grpc(rpc, bytes([number << 3 | 2, 2, 0xFF, 0xFE]), shared[1]))


async def test_an_empty_mask_is_no_mask(rest: httpx.AsyncClient, ways: Ways) -> None:
    """AIP-134: an empty mask means the fields that are present."""
    world, account = await make_world(rest)
    rpc = named("TaskService.UpdateTask")
    for i, channel in enumerate((ways.gateway, ways.services["task"])):
        request: Any = task_service_pb2.UpdateTaskRequest(update_mask=FieldMask())
        request.task.id, request.task.title = world.task_id, f"Changed {i}"
        answer: Any = await rpc_call(channel, rpc, request, metadata_of(account))
        assert not isinstance(answer, ApiError)
        assert answer.title == f"Changed {i}"


# Values within their bounds, which the service must return unchanged.


@pytest.mark.parametrize("due", ["0001-01-01T00:00:01Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.999999Z"])
async def test_the_extremes_of_time_are_stored(due: str, account: Account, rest: httpx.AsyncClient) -> None:
    made = await rest.post(TASKS, json={"title": "a", "due_date": due}, headers=account.headers)
    assert (made.status_code, made.json()["due_date"]) == (201, due)
    for _ in ("from the database", "from the cache"):
        read = await rest.get(f"{TASKS}/{made.json()['id']}", headers=account.headers)
        assert (read.status_code, read.text) == (200, made.text)
    changed = await rest.patch(f"{TASKS}/{made.json()['id']}", json={"title": "b"}, headers=account.headers)
    assert (changed.status_code, changed.json()["due_date"]) == (200, due)


def _assert_malformed(errors: dict[str, ApiError | None]) -> None:
    for way, error in errors.items():
        assert error is not None, f"accepted by {way}"
        assert (error.code, error.reason) == (3, "MALFORMED_REQUEST"), f"{way}: {error}"
