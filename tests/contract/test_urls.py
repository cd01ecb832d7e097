"""Every URL, whatever its path and query, gets the right code in the standard error shape, and never a 5xx."""

import asyncio
from typing import Any

import httpx
import pytest
from taskmanager.task.v1 import task_service_pb2

from devstack.stack import Stack
from tests.contract.calls import every_rpc
from tests.contract.conftest import Ways, metadata_of
from tests.contract.table import NO_ID, Row, World, filled, make_world, row_of
from tests.support import rawhttp
from tests.support.accounts import Account
from tests.support.calls import rpc_call
from tests.support.descriptors import Rpc, named
from tests.support.errors import ApiError, of_response

TASKS = "/api/v1/tasks"

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


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_bad_query(query: str, shared: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    response = await rest.get(f"{TASKS}?{query}", headers=shared[1].headers)
    assert (response.status_code, of_response(response).code) == (400, 3), response.text


@every_rpc
async def test_an_unknown_query_parameter_is_refused(rpc: Rpc, shared: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    row: Row = row_of(rpc.name)
    path = filled(row.path, shared[0])
    response = await rest.request(
        row.verb, f"{path}{'&' if '?' in path else '?'}no_such=1", json=filled(row.body, shared[0]), headers=shared[1].headers
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


async def test_a_space_in_a_query_may_be_a_plus(shared: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    """Most client libraries encode a space this way (application/x-www-form-urlencoded)."""
    response = await rest.get(f"{TASKS}?order_by=title+desc", headers=shared[1].headers)
    assert response.status_code == 200, response.text


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
            # A space as %20: another test covers `+`.
            page = await rest.get(f"{TASKS}?{httpx.QueryParams(query)}".replace("+", "%20"), headers=account.headers)
            assert page.status_code == 200, page.text
            found += [task.get("due_date") for task in page.json()["tasks"]]
            token = page.json()["next_page_token"]
        assert sorted(found, key=str) == sorted(dues, key=str)


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
        ("PUT", TASKS, 405),
        ("TRACE", TASKS, 405),
        ("GET", "/api/v1/auth/login", 405),
        ("POST", "/taskmanager.task.v1.TaskService/GetTask", 404),
        ("GET", f"{TASKS}/not-an-id", 400),
        ("DELETE", f"{TASKS}/not-an-id", 400),
        ("PATCH", f"{TASKS}/not-an-id", 400),
        ("GET", f"{TASKS}/%00", 400),
        ("GET", f"{TASKS}/%FF", 400),
        ("GET", f"{TASKS}/..%2f", 400),
        ("GET", f"{TASKS}/{'x' * 20_000}", 400),
        ("GET", f"{TASKS}/{NO_ID}", 404),
    ],
)
async def test_a_path_that_leads_nowhere(verb: str, path: str, status: int, shared: tuple[World, Account], system: Stack) -> None:
    head = (f"authorization: Bearer {shared[1].access_token}".encode(),)
    response = await rawhttp.send(system.state.url, rawhttp.RawRequest(verb.encode(), path.encode(), head))
    error = of_response(response)
    assert (response.status_code, error.code) == (status, {400: 3, 404: 5, 405: 12}[status]), response.text


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
    """The service rejects a request that also names another task elsewhere, and does not change that task."""
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
    """All methods accept the same form: if GetTask rejects an id, so does UpdateTask."""
    named_task, account = await make_world(rest)
    path = form.format(id=named_task.task_id, hex=named_task.task_id.replace("-", ""))
    body = {"title": "changed"} if verb in {"PUT", "PATCH"} else None
    response = await rest.request(verb, f"{TASKS}/{path}", json=body, headers=account.headers)
    assert (response.status_code, of_response(response).code) == (400, 3), response.text
