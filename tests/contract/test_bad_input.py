"""Whatever a client sends, it gets the right code in the one shape, and never a 5xx."""

import asyncio
from typing import Any

import grpc.aio
import httpx
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from taskmanager.task.v1 import task_service_pb2

from devstack.stack import Stack
from tests.contract.conftest import Ways, metadata_of
from tests.contract.table import Row, World, filled, make_world, row_of
from tests.support import rawhttp
from tests.support.accounts import Account
from tests.support.calls import rpc_call
from tests.support.descriptors import Rpc, named, rpcs
from tests.support.errors import ApiError, of_response

TASKS = "/api/v1/tasks"
JSON = {"content-type": "application/json"}
OTHER_ID = "0190b5a0-0000-7000-8000-000000000001"
FOUR_MEBIBYTES = 4 * 1024 * 1024

with_body = pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if rpc.body], ids=lambda rpc: rpc.name)
every_rpc = pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if not rpc.is_internal], ids=lambda rpc: rpc.name)


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

# Bodies of CreateTask that are JSON, but not of a task.
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

BAD_QUERIES = (
    "no_such_parameter=1",
    "tasks.title=x",
    "access_token=x",
    "page_size=-1",
    "page_size=-2147483649",
    "page_size=2147483648",
    "page_size=many",
    "page_size=1.5",
    "page_size=",
    "page_size=0x10",
    "skip=-1",
    "skip=100001",
    "skip=99999999999999999999",
    "status=DONE",
    "status=99",
    "status=-1",
    "priority=6",
    "priority=-1",
    "order_by=no_such_field",
    "order_by=id",
    "order_by=TITLE",
    "order_by=title,title",
    "order_by=title%20sideways",
    "order_by=title%20desc%20desc",
    "order_by=,",
    "order_by=title%3B%20DROP%20TABLE%20task.tasks",
    "order_by=%00",
    "order_by=%FF",
    "filter=plan",
    "filter=title",
    "filter=owner%3Dme",
    "filter=status%3DDONE",
    "filter=priority%3E9",
    "filter=due_date%3Ctomorrow",
    "filter=title%3A%22open",
    "filter=%28priority%3D1",
    "filter=title%3A%22a%22%20or%20title%3A%22b%22",
    "filter=title%3A%22a%00%22",
    "filter=%FF",
    "filter=" + "%28" * 2000,
    "filter=" + "priority%3D1%20" * 51,
    "show_deleted=perhaps",
    "include_total_size=2",
    "page_token=nonsense",
    "page_token=%00",
    "page_token=%F0%9D%84%9E",
    "page_token=AAAA",
)


@pytest.fixture(scope="module")
async def world(rest: httpx.AsyncClient) -> tuple[World, Account]:
    """One world for all: what is refused changes nothing."""
    return await make_world(rest)


@with_body
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_a_json_object(rpc: Rpc, body: bytes, world: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    path = filled(row_of(rpc.name).path, world[0])
    response = await rest.request(rpc.verb, path, content=body, headers={**world[1].headers, **JSON})
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
    given = {"user_id": OTHER_ID, "created_at": "2000-01-01T00:00:00Z", "completed_at": "2000-01-01T00:00:00Z", "deleted_at": "2000-01-01T00:00:00Z"}
    task = (await rest.post(TASKS, json={"title": "a", "etag": "x", "id": OTHER_ID, **given}, headers=account.headers)).json()
    assert (task["id"] != OTHER_ID, task["user_id"], task["etag"] != "x") == (True, account.id, True)
    assert task["created_at"] > "2026"
    assert {task.get("completed_at"), task.get("deleted_at")} == {None}


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_bad_query(query: str, world: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    response = await rest.get(f"{TASKS}?{query}", headers=world[1].headers)
    assert (response.status_code, of_response(response).code) == (400, 3), response.text


@every_rpc
async def test_an_unknown_query_parameter_is_refused(rpc: Rpc, world: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    row: Row = row_of(rpc.name)
    path = filled(row.path, world[0])
    response = await rest.request(
        row.verb, f"{path}{'&' if '?' in path else '?'}no_such=1", json=filled(row.body, world[0]), headers=world[1].headers
    )
    assert (response.status_code, of_response(response).code) == (400, 3), response.text


async def test_a_large_page_counts_as_the_largest(account: Account, rest: httpx.AsyncClient, ways: Ways) -> None:
    create = named("TaskService.CreateTask")
    message: Any = task_service_pb2.CreateTaskRequest()
    message.task.title = "One of many"
    made = [rpc_call(ways.services["task"], create, message, metadata_of(account)) for _ in range(101)]
    assert not [answer for answer in await asyncio.gather(*made) if isinstance(answer, ApiError)]
    for size in ("100", "101", "2147483647"):
        response = await rest.get(f"{TASKS}?page_size={size}", headers=account.headers)
        assert (response.status_code, len(response.json()["tasks"])) == (200, 100)


async def test_a_space_in_a_query_may_be_a_plus(world: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    """As most client libraries write it (application/x-www-form-urlencoded)."""
    response = await rest.get(f"{TASKS}?order_by=title+desc", headers=world[1].headers)
    assert response.status_code == 200, response.text


# Paths.


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", f"{TASKS}/a/b", 404),
        ("GET", f"/{TASKS}", 404),
        ("GET", TASKS.upper(), 404),
        ("GET", f"{TASKS}:noSuchMethod", 404),
        ("PUT", TASKS, 404),
        ("TRACE", TASKS, 404),
        ("GET", "/api/v1/auth/login", 404),
        ("POST", "/taskmanager.task.v1.TaskService/GetTask", 404),
        ("GET", f"{TASKS}/not-an-id", 400),
        ("DELETE", f"{TASKS}/not-an-id", 400),
        ("PATCH", f"{TASKS}/not-an-id", 400),
        ("GET", f"{TASKS}/%00", 400),
        ("GET", f"{TASKS}/%FF", 400),
        ("GET", f"{TASKS}/..%2f", 400),
        ("GET", f"{TASKS}/{'x' * 20_000}", 400),
        ("GET", f"{TASKS}/{OTHER_ID}", 404),
    ],
)
async def test_a_path_that_leads_nowhere(verb: str, path: str, status: int, world: tuple[World, Account], system: Stack) -> None:
    head = (f"authorization: Bearer {world[1].access_token}".encode(),)
    response = await rawhttp.send(system.state.url, rawhttp.RawRequest(verb.encode(), path.encode(), head))
    error = of_response(response)
    assert (response.status_code, error.code) == (status, {400: 3, 404: 5}[status]), response.text


@pytest.mark.parametrize("path", ["/", "/api/v1/nothing", f"{TASKS}/a/b", "/taskmanager.task.v1.TaskService/GetTask"])
async def test_without_a_token_nobody_learns_which_paths_there_are(path: str, rest: httpx.AsyncClient) -> None:
    response = await rest.get(path)
    assert (response.status_code, of_response(response).code) == (401, 16)


@pytest.mark.parametrize("form", ["{}", "{}/"], ids=["path", "path-with-slash"])
@pytest.mark.parametrize(
    ("verb", "query", "body"),
    [
        ("GET", "?id={other}", None),
        ("DELETE", "?id={other}", None),
        ("PUT", "", {"id": "{other}", "title": "changed"}),
        ("PATCH", "", {"id": "{other}", "title": "changed"}),
        ("PUT", "?task.id={other}", {"title": "changed"}),
        ("PATCH", "?task.id={other}", {"title": "changed"}),
    ],
)
async def test_the_path_says_which_task_it_is(verb: str, query: str, body: dict[str, str] | None, form: str, rest: httpx.AsyncClient) -> None:
    """Nothing else in the request may name another, and the other stays as it was."""
    named_task, account = await make_world(rest)
    other = (await rest.post(TASKS, json={"title": "The other"}, headers=account.headers)).json()
    content = {name: value.format(other=other["id"]) for name, value in body.items()} if body else None
    path = f"{TASKS}/{form.format(named_task.task_id)}{query.format(other=other['id'])}"
    response = await rest.request(verb, path, json=content, headers=account.headers)
    assert (await rest.get(f"{TASKS}/{other['id']}", headers=account.headers)).json() == other
    assert response.status_code in {400, 404}, response.text
    assert of_response(response).code in {3, 5}


@pytest.mark.parametrize("form", ["{hex}", "{{{id}}}", "urn:uuid:{id}"])
@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE"])
async def test_an_id_has_one_form(verb: str, form: str, rest: httpx.AsyncClient) -> None:
    """The same for each method: what GetTask does not take, UpdateTask does not either."""
    named_task, account = await make_world(rest)
    path = form.format(id=named_task.task_id, hex=named_task.task_id.replace("-", ""))
    body = {"title": "changed"} if verb in {"PUT", "PATCH"} else None
    response = await rest.request(verb, f"{TASKS}/{path}", json=body, headers=account.headers)
    assert (response.status_code, of_response(response).code) == (400, 3), response.text


# Sizes.


@pytest.mark.parametrize("path", [TASKS, "/api/v1/auth/login"])
async def test_a_body_of_four_mebibytes(path: str, world: tuple[World, Account], system: Stack) -> None:
    head = (f"authorization: Bearer {world[1].access_token}".encode(), b"content-type: application/json")
    body = b'{"title": "' + b"a" * FOUR_MEBIBYTES + b'"}'
    response = await rawhttp.send(system.state.url, rawhttp.RawRequest(b"POST", path.encode(), head, body))
    assert (response.status_code, of_response(response).code) == (413, 8)


async def test_a_message_of_four_mebibytes(world: tuple[World, Account], ways: Ways) -> None:
    rpc = named("TaskService.CreateTask")
    message: Any = task_service_pb2.CreateTaskRequest()
    message.task.title, message.task.description = "a", "x" * FOUR_MEBIBYTES
    for way, error in (await ways.by_grpc(rpc, message, world[1])).items():
        assert error is not None, f"accepted by {way}"
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], f"{way}: {error}"


async def test_a_body_just_within_the_limit_is_looked_at(world: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    body = {"title": "a", "description": "x" * (3 * 1024 * 1024 - 1024)}
    response = await rest.post(TASKS, json=body, headers=world[1].headers)
    assert of_response(response).fields == {"task.description": "must be at most 10000 characters"}


# What only gRPC can say.


@every_rpc
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0b" * 200], ids=["tag", "cut-off", "deep"])
async def test_bytes_that_are_no_message(rpc: Rpc, data: bytes, world: tuple[World, Account], ways: Ways) -> None:
    _assert_malformed(await ways.by_grpc(rpc, data, world[1]))


@pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if _text_fields(rpc)], ids=lambda rpc: rpc.name)
async def test_a_text_that_is_not_utf_8(rpc: Rpc, world: tuple[World, Account], ways: Ways) -> None:
    for number in _text_fields(rpc):
        _assert_malformed(await ways.by_grpc(rpc, bytes([number << 3 | 2, 2, 0xFF, 0xFE]), world[1]))


async def test_an_empty_mask_is_no_mask(rest: httpx.AsyncClient, ways: Ways) -> None:
    """AIP-134: then the fields that are present are meant."""
    world, account = await make_world(rest)
    rpc = named("TaskService.UpdateTask")
    for i, channel in enumerate((ways.gateway, ways.services["task"])):
        request: Any = task_service_pb2.UpdateTaskRequest(update_mask=FieldMask())
        request.task.id, request.task.title = world.task_id, f"Changed {i}"
        answer: Any = await rpc_call(channel, rpc, request, metadata_of(account))
        assert not isinstance(answer, ApiError)
        assert answer.title == f"Changed {i}"


# Values that are within their bounds and must come back as they were.


@pytest.mark.parametrize("due", ["0001-01-01T00:00:01Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.999999Z"])
async def test_the_extremes_of_time_are_stored(due: str, account: Account, rest: httpx.AsyncClient) -> None:
    made = await rest.post(TASKS, json={"title": "a", "due_date": due}, headers=account.headers)
    assert (made.status_code, made.json()["due_date"]) == (201, due)
    for _ in ("from the database", "from the cache"):
        read = await rest.get(f"{TASKS}/{made.json()['id']}", headers=account.headers)
        assert (read.status_code, read.text) == (200, made.text)
    changed = await rest.patch(f"{TASKS}/{made.json()['id']}", json={"title": "b"}, headers=account.headers)
    assert (changed.status_code, changed.json()["due_date"]) == (200, due)


async def test_lists_are_paged_through_the_extremes_of_time(account: Account, rest: httpx.AsyncClient) -> None:
    dues = ["0001-01-01T00:00:01Z", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None]
    for due in dues:
        made = await rest.post(TASKS, json={"title": "a", **({"due_date": due} if due else {})}, headers=account.headers)
        assert made.status_code == 201
    for order in ("due_date", "due_date desc"):
        found: list[str | None] = []
        token = ""
        for _ in dues:
            query = {"order_by": order, "page_size": 1, "page_token": token}
            # A space as %20: that `+` does as well is another test's.
            page = await rest.get(f"{TASKS}?{httpx.QueryParams(query)}".replace("+", "%20"), headers=account.headers)
            assert page.status_code == 200, page.text
            found += [task.get("due_date") for task in page.json()["tasks"]]
            token = page.json()["next_page_token"]
        assert sorted(found, key=str) == sorted(dues, key=str)


# Page tokens.


async def test_page_tokens_are_good_only_where_they_come_from(rest: httpx.AsyncClient, ways: Ways) -> None:
    _, account = await make_world(rest)
    _, stranger = await make_world(rest)
    for i in range(2):
        await rest.post(TASKS, json={"title": f"{i}"}, headers=account.headers)
    token = (await rest.get(f"{TASKS}?page_size=1", headers=account.headers)).json()["next_page_token"]
    assert (await rest.get(f"{TASKS}?page_size=2&page_token={token}", headers=account.headers)).status_code == 200
    foreign = [
        (stranger, f"page_token={token}"),
        (account, f"page_token={token}&status=PENDING"),
        (account, f"page_token={token}&priority=1"),
        (account, f"page_token={token}&order_by=title"),
        (account, f"page_token={token[:-4]}"),
        (account, f"page_token={token}AAAA"),
        (account, f"page_token={token.swapcase()}"),
    ]
    for who, query in foreign:
        response = await rest.get(f"{TASKS}?{query}", headers=who.headers)
        assert (response.status_code, of_response(response).reason) == (400, "INVALID_PAGE_TOKEN"), query
    message = task_service_pb2.ListTasksRequest(page_token=token)
    errors = await ways.by_grpc(named("TaskService.ListTasks"), message, stranger)
    assert {error.reason for error in errors.values() if error} == {"INVALID_PAGE_TOKEN"}
    assert None not in errors.values()


def _assert_malformed(errors: dict[str, ApiError | None]) -> None:
    for way, error in errors.items():
        assert error is not None, f"accepted by {way}"
        assert (error.code, error.reason) == (3, "MALFORMED_REQUEST"), f"{way}: {error}"
