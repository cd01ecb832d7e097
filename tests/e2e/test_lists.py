"""Lists over REST, with all query parameters in the URL."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from tests.conftest import AccountFactory
from tests.support.accounts import Account, make_account
from tests.support.errors import of_response

TASKS = "/api/v1/tasks"
MADE: Sequence[Mapping[str, Any]] = (
    {"title": "Plan", "labels": ["work"], "due_date": "2030-01-01T00:00:00Z", "priority": 5},
    {"title": "A plan & more", "labels": ["work", "a b"], "status": "COMPLETED"},
    {"title": "50% + x", "due_date": "2030-06-01T12:00:00Z", "status": "IN_PROGRESS"},
    {"title": "Größe", "labels": ["später"], "description": "Of it all"},
    {"title": "Binned", "labels": ["work"]},
)


@pytest.fixture(scope="module")
async def filled(rest: httpx.AsyncClient) -> Account:
    """A user with the tasks above. The last one is deleted."""
    account = await make_account(rest)
    for task in MADE:
        made = await rest.post(TASKS, json=task, headers=account.headers)
        assert made.status_code == httpx.codes.CREATED, made.text
    assert (await rest.delete(f"{TASKS}/{made.json()['id']}", headers=account.headers)).is_success
    return account


async def _list(rest: httpx.AsyncClient, account: Account, **query: str) -> Any:
    response = await rest.get(TASKS, params={"order_by": "created_at", **query}, headers=account.headers)
    assert response.status_code == httpx.codes.OK, response.text
    return response.json()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status = pending", [0, 3]),
        ("status != COMPLETED", [0, 2, 3]),
        ("labels:work", [0, 1]),
        ('labels:"a b"', [1]),
        ("labels:später OR priority = 5", [0, 3]),
        ("-labels:work", [2, 3]),
        ("NOT (labels:work OR labels:später)", [2]),
        ('title:"plan"', [0, 1]),
        ("title = Plan", [0]),
        ('title:" & "', [1]),
        ('title:"50% + x"', [2]),
        ("title:GRÖSSE OR title:GRÖßE", [3]),
        ("description:*", [3]),
        ("due_date:*", [0, 2]),
        ("due_date < 2030-01-02", [0]),
        ("due_date >= 2030-06-01T14:00:00+02:00", [2]),
        ("completed_at:*", [1]),
        ("priority >= 3 priority < 5 AND status = IN_PROGRESS", [2]),
        ("deleted_at:*", []),
        ("", [0, 1, 2, 3]),
    ],
)
async def test_a_filter_in_the_url(rest: httpx.AsyncClient, filled: Account, text: str, expected: list[int]) -> None:
    listed = await _list(rest, filled, filter=text)
    assert [task["title"] for task in listed["tasks"]] == [MADE[i]["title"] for i in expected]


async def test_a_filter_that_means_nothing_says_where(rest: httpx.AsyncClient, filled: Account) -> None:
    response = await rest.get(TASKS, params={"filter": "priority = 5 AND status = DONE"}, headers=filled.headers)
    error = of_response(response)
    assert (response.status_code, error.code, error.reason) == (400, 3, "INVALID_FIELD")
    assert error.fields == {"filter": 'at character 27: status must be one of PENDING, IN_PROGRESS, COMPLETED, not "DONE"'}


async def test_deleted_tasks_are_listed_on_request(rest: httpx.AsyncClient, filled: Account) -> None:
    every = (await _list(rest, filled, show_deleted="true"))["tasks"]
    assert [task["title"] for task in every] == [task["title"] for task in MADE]
    assert ["deleted_at" in task for task in every] == [False] * 4 + [True]
    labelled = (await _list(rest, filled, show_deleted="true", filter="labels:work"))["tasks"]
    assert [task["title"] for task in labelled] == ["Plan", "A plan & more", "Binned"]
    binned = (await _list(rest, filled, show_deleted="true", filter="deleted_at:*"))["tasks"]
    assert [task["title"] for task in binned] == ["Binned"]


async def test_the_total_is_there_on_request(rest: httpx.AsyncClient, filled: Account) -> None:
    assert "total_size" not in await _list(rest, filled)
    page = await _list(rest, filled, include_total_size="true", page_size="1", filter="labels:work")
    assert (page["total_size"], len(page["tasks"])) == (2, 1)
    # A page token works with and without include_total_size.
    rest_of_it = await _list(rest, filled, page_size="1", filter="labels:work", page_token=page["next_page_token"])
    assert ("total_size" in rest_of_it, [task["title"] for task in rest_of_it["tasks"]]) == (False, ["A plan & more"])
    assert (await _list(rest, filled, include_total_size="true", filter="title:nothing"))["total_size"] == 0
    assert (await _list(rest, filled, include_total_size="true", show_deleted="true"))["total_size"] == 5


async def test_a_token_is_of_one_filter(rest: httpx.AsyncClient, filled: Account) -> None:
    token = (await _list(rest, filled, page_size="1", filter="labels:work"))["next_page_token"]
    for other in ({}, {"filter": "labels:later"}, {"filter": "labels:work", "show_deleted": "true"}):
        query = {"order_by": "created_at", "page_size": "1", "page_token": token, **other}
        assert of_response(await rest.get(TASKS, params=query, headers=filled.headers)).reason == "INVALID_PAGE_TOKEN"


async def test_a_filter_reaches_no_other_user(rest: httpx.AsyncClient, filled: Account, new_account: AccountFactory) -> None:
    stranger = await new_account()
    for text in ("labels:work", "priority >= 1 OR priority < 1", "NOT title:nothing"):
        listed = await _list(rest, stranger, filter=text, show_deleted="true", include_total_size="true")
        assert (listed["tasks"], listed["total_size"]) == ([], 0)
