"""The system's behavior for its users: through the gateway, over REST and over gRPC."""

import asyncio
import itertools
import json
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc.aio
import httpx
import pytest

from tests.conftest import AccountFactory
from tests.support.accounts import PASSWORD, Account
from tests.support.calls import as_dict, message_of, rest_call, rpc_call, transcoded
from tests.support.descriptors import named
from tests.support.errors import ApiError, of_response
from tests.support.tiers import SLOW, first_quick

ALREADY_EXISTS, NOT_FOUND, INVALID, UNAUTHENTICATED = 6, 5, 3, 16
TASKS = "/api/v1/tasks"
# Descriptions of maximum length: of a character with four bytes in UTF-8, and of one that JSON escapes to six bytes.
LARGE = {"four bytes": "\U0001f600" * 10_000, "six in JSON": "\x01" * 10_000}
PAGE_BYTES = 2 * 1024 * 1024

# Makes a call by an RPC's name and a JSON message. Returns the answer as JSON, or the error.
Call = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["rest", pytest.param("grpc", marks=SLOW)])
def call(request: pytest.FixtureRequest, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel) -> Call:
    """Makes calls through the gateway. The test runs once over REST and once over gRPC."""

    async def over_rest(name: str, values: Mapping[str, Any], account: Account | None = None) -> Any:
        response = await rest_call(rest, transcoded(named(name), message_of(named(name), values)), account.headers if account else {})
        return response.json() if response.is_success else of_response(response)

    async def over_grpc(name: str, values: Mapping[str, Any], account: Account | None = None) -> Any:
        answer = await rpc_call(gateway_channel, named(name), message_of(named(name), values), tuple(account.metadata) if account else ())
        return answer if isinstance(answer, ApiError) else as_dict(answer)

    return over_rest if request.param == "rest" else over_grpc


# --- accounts


async def test_an_email_is_taken_in_any_case_of_letters(call: Call) -> None:
    name = uuid4().hex
    await call("Register", {"email": f"{name}.Ada@Example.com", "password": PASSWORD, "name": "Ada"})
    for email in (f"{name}.Ada@Example.com", f"{name}.aDA@example.COM", f"{name.upper()}.ADA@EXAMPLE.COM"):
        error = await call("Register", {"email": email, "password": PASSWORD, "name": "Grace"})
        assert (error.code, error.reason) == (ALREADY_EXISTS, "EMAIL_TAKEN")


async def test_a_taken_email_is_409_over_rest(rest: httpx.AsyncClient, account: Account) -> None:
    body = {"email": account.email.upper(), "password": PASSWORD, "name": "Grace"}
    assert (await rest.post("/api/v1/auth/register", json=body)).status_code == httpx.codes.CONFLICT


async def test_a_login_takes_the_email_in_any_case(call: Call, account: Account) -> None:
    assert (await call("Login", {"email": account.email.upper(), "password": PASSWORD}))["token_type"] == "Bearer"


async def test_a_wrong_password_and_an_unknown_user_have_the_identical_answer(rest: httpx.AsyncClient, account: Account) -> None:
    answers = [
        await rest.post("/api/v1/auth/login", json={"email": email, "password": "not the password"})
        for email in (account.email, "nobody@example.com")
    ]
    assert [answer.status_code for answer in answers] == [httpx.codes.UNAUTHORIZED] * 2
    assert answers[0].content == answers[1].content
    same = [{name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}} for answer in answers]
    assert same[0] == same[1]


async def test_tokens_are_kept_by_no_cache_and_the_key_set_for_a_minute(rest: httpx.AsyncClient, account: Account) -> None:
    logged_in = await rest.post("/api/v1/auth/login", json={"email": account.email, "password": PASSWORD})
    refreshed = await rest.post("/api/v1/auth/refresh", json={"refresh_token": logged_in.json()["refresh_token"]})
    keys = await rest.get("/.well-known/jwks.json")
    told = [answer.headers.get_list("cache-control") for answer in (logged_in, refreshed, keys)]
    assert told == [["no-store"], ["no-store"], ["public, max-age=60"]]


async def test_a_refresh_token_has_one_successor(call: Call, account: Account) -> None:
    fresh = await call("RefreshToken", {"refresh_token": account.refresh_token})
    renewed = replace(account, access_token=fresh["access_token"])
    assert (await call("GetMe", {}, renewed))["email"] == account.email
    # A retry, as after a lost answer.
    again = await call("RefreshToken", {"refresh_token": account.refresh_token})
    assert again["refresh_token"] == fresh["refresh_token"]


async def test_after_logout_there_is_nothing_to_refresh(call: Call, account: Account) -> None:
    assert await call("Logout", {"refresh_token": account.refresh_token}) == {}
    error = await call("RefreshToken", {"refresh_token": account.refresh_token})
    assert (error.code, error.reason) == (UNAUTHENTICATED, "REFRESH_TOKEN_INVALID")
    assert await call("Logout", {"refresh_token": account.refresh_token}) == {}


async def test_logout_ends_one_session_and_not_the_others(call: Call, account: Account) -> None:
    other = await call("Login", {"email": account.email, "password": PASSWORD})
    await call("Logout", {"refresh_token": account.refresh_token})
    assert "refresh_token" in await call("RefreshToken", {"refresh_token": other["refresh_token"]})


@pytest.mark.parametrize("password", ["pässwört", "很长的中文密码短语", "".join(map(chr, range(0x1F400, 0x1F400 + 128))), " 8 chars", "xkcqvjzw"])
async def test_any_unicode_is_a_password(call: Call, password: str) -> None:
    email = f"{uuid4().hex}@example.com"
    assert (await call("Register", {"email": email, "password": password, "name": "Ада 🙂"}))["name"] == "Ада 🙂"
    assert "access_token" in await call("Login", {"email": email, "password": password})
    assert (await call("Login", {"email": email, "password": password[:-1] + "?"})).reason == "INVALID_CREDENTIALS"


# --- one task


async def test_a_foreign_task_is_not_found_in_the_words_of_one_that_never_was(call: Call, account: Account, new_account: AccountFactory) -> None:
    foreign = (await call("CreateTask", {"task": {"title": "mine"}}, await new_account()))["id"]
    for name, request in (
        ("GetTask", lambda id_: {"id": id_}),
        ("DeleteTask", lambda id_: {"id": id_}),
        ("UpdateTask", lambda id_: {"task": {"id": id_, "title": "yours"}}),
        ("ReplaceTask", lambda id_: {"task": {"id": id_, "title": "yours"}}),
    ):
        error, never = [await call(name, request(id_), account) for id_ in (foreign, str(uuid4()))]
        assert (error.code, error.reason) == (NOT_FOUND, "TASK_NOT_FOUND")
        assert error == never


async def test_a_foreign_task_is_left_as_it_was(call: Call, account: Account, new_account: AccountFactory) -> None:
    owner = await new_account()
    task = await call("CreateTask", {"task": {"title": "mine"}}, owner)
    await call("UpdateTask", {"task": {"id": task["id"], "title": "yours"}}, account)
    await call("DeleteTask", {"id": task["id"]}, account)
    assert await call("GetTask", {"id": task["id"]}, owner) == task


FULL = {
    "title": "Plan",
    "description": "of the year",
    "status": "IN_PROGRESS",
    "priority": 4,
    "due_date": "2027-01-31T12:00:00Z",
    "labels": ["home", "garden"],
}


@pytest.mark.parametrize(("change", "mask"), [({"title": "New"}, None), ({"title": "New", "priority": 1}, "title")])
async def test_a_patch_touches_only_what_it_names(call: Call, account: Account, change: dict[str, Any], mask: str | None) -> None:
    task = await call("CreateTask", {"task": FULL}, account)
    request = {"task": {"id": task["id"], **change}} | ({"update_mask": mask} if mask else {})
    patched = await call("UpdateTask", request, account)
    assert patched == {**task, "title": "New", "updated_at": patched["updated_at"], "etag": patched["etag"]}
    assert patched["etag"] != task["etag"]
    assert await call("GetTask", {"id": task["id"]}, account) == patched


async def test_a_patch_clears_what_its_mask_names_and_the_body_lacks(call: Call, account: Account) -> None:
    task = await call("CreateTask", {"task": FULL}, account)
    cleared = await call("UpdateTask", {"task": {"id": task["id"]}, "update_mask": "description,dueDate,labels,priority,status"}, account)
    assert (cleared["description"], cleared["labels"], cleared["priority"], cleared["status"]) == ("", [], 3, "PENDING")
    assert "due_date" not in cleared
    assert cleared["title"] == task["title"]


async def test_an_empty_list_clears_only_under_a_mask(rest: httpx.AsyncClient, account: Account) -> None:
    task = (await rest.post(TASKS, json=FULL, headers=account.headers)).json()
    path = f"{TASKS}/{task['id']}"
    assert (await rest.patch(path, json={"labels": []}, headers=account.headers)).json() == task
    assert (await rest.patch(path, json={"labels": None}, headers=account.headers)).json() == task
    cleared = await rest.patch(path, params={"update_mask": "labels"}, json={"labels": []}, headers=account.headers)
    assert cleared.json()["labels"] == []


@pytest.mark.parametrize("mask", ["title,nonsense", "created_at", "id", "title.length", "labels,*"])
async def test_a_mask_names_only_what_can_be_set(rest: httpx.AsyncClient, account: Account, mask: str) -> None:
    task = (await rest.post(TASKS, json=FULL, headers=account.headers)).json()
    refused = await rest.patch(f"{TASKS}/{task['id']}", params={"update_mask": mask}, json={"title": "New"}, headers=account.headers)
    assert (refused.status_code, of_response(refused).code) == (httpx.codes.BAD_REQUEST, INVALID)
    assert (await rest.get(f"{TASKS}/{task['id']}", headers=account.headers)).json() == task


async def test_a_put_replaces_all(call: Call, account: Account) -> None:
    task = await call("CreateTask", {"task": FULL}, account)
    replaced = await call("ReplaceTask", {"task": {"id": task["id"], "title": "Other"}}, account)
    fresh = await call("CreateTask", {"task": {"title": "Other"}}, account)
    of_its_own = {"id", "created_at", "updated_at", "etag", "position"}
    assert {k: v for k, v in replaced.items() if k not in of_its_own} == {k: v for k, v in fresh.items() if k not in of_its_own}
    assert (replaced["id"], replaced["created_at"]) == (task["id"], task["created_at"])
    assert (await call("ReplaceTask", {"task": {"id": task["id"]}}, account)).fields.keys() == {"task.title"}


@pytest.mark.parametrize("name", ["UpdateTask", "ReplaceTask"])
async def test_a_change_ignores_the_lists_that_the_task_names(call: Call, account: Account, name: str) -> None:
    """MoveTask changes them. A client may send back the whole task, and text that is no id is ignored as all else there."""
    task = await call("CreateTask", {"task": {"title": "Plan"}}, account)
    for given in ("no id", task["id"]):
        changed = await call(name, {"task": {"id": task["id"], "title": "Other", "project_id": given, "parent_id": given}}, account)
        assert (changed["title"], changed["project_id"], changed["parent_id"]) == ("Other", "", "")
    assert (await call("CreateTask", {"task": {"title": "Plan", "parent_id": "no id"}}, account)).fields.keys() == {"task.parent_id"}


async def test_completed_at_comes_and_goes_with_the_status(call: Call, account: Account) -> None:
    task = await call("CreateTask", {"task": {"title": "Plan"}}, account)
    assert "completed_at" not in task
    done = await call("UpdateTask", {"task": {"id": task["id"], "status": "COMPLETED"}}, account)
    assert done["completed_at"] == done["updated_at"]
    renamed = await call("UpdateTask", {"task": {"id": task["id"], "title": "Plan B"}}, account)
    assert renamed["completed_at"] == done["completed_at"]
    undone = await call("UpdateTask", {"task": {"id": task["id"], "status": "IN_PROGRESS"}}, account)
    assert "completed_at" not in undone
    assert "completed_at" in await call("CreateTask", {"task": {"title": "Done", "status": "COMPLETED"}}, account)


async def test_a_task_is_deleted_once(call: Call, account: Account) -> None:
    task = await call("CreateTask", {"task": {"title": "Plan"}}, account)
    assert await call("DeleteTask", {"id": task["id"]}, account) == {}
    for name in ("DeleteTask", "GetTask"):
        assert (await call(name, {"id": task["id"]}, account)).reason == "TASK_NOT_FOUND"
    assert (await call("UpdateTask", {"task": {"id": task["id"], "title": "New"}}, account)).reason == "TASK_NOT_FOUND"
    assert (await call("ListTasks", {}, account))["tasks"] == []


@pytest.mark.parametrize(
    "text", ["Zażółć gęślą jaźń", "待办事项", "مهمة", "👩‍👩‍👧 family", "a\u0301 ≠ á", "\U0010ffff", 'quote " \\ / \n\t', "\x01a\x7f"]
)
async def test_text_comes_back_as_it_went_in_nfc(call: Call, account: Account, text: str) -> None:
    made = await call("CreateTask", {"task": {"title": text, "description": text, "labels": [text]}}, account)
    read = await call("GetTask", {"id": made["id"]}, account)
    kept = unicodedata.normalize("NFC", text)
    assert (read["title"], read["description"], read["labels"]) == (kept, kept, [kept])
    assert (await call("ListTasks", {}, account))["tasks"] == [read]


@pytest.mark.parametrize("character", ["x", "é", "待", "\U0001f600"])
async def test_bounds_count_characters_and_not_bytes(call: Call, account: Account, character: str) -> None:
    assert (await call("CreateTask", {"task": {"title": character * 200}}, account))["title"] == character * 200
    assert (await call("CreateTask", {"task": {"title": character * 201}}, account)).fields.keys() == {"task.title"}


# --- lists


async def _create(call: Call, account: Account, *tasks: Mapping[str, Any]) -> list[str]:
    return [(await call("CreateTask", {"task": {"title": "t", **task}}, account))["id"] for task in tasks]


async def _pages(call: Call, account: Account, query: Mapping[str, Any]) -> AsyncIterator[list[Any]]:
    token = ""
    while True:
        page = await call("ListTasks", {**query, "page_token": token}, account)
        assert not isinstance(page, ApiError), page
        yield page["tasks"]
        token = page["next_page_token"]
        if not token:
            return


async def test_a_list_has_what_its_filters_let_through(call: Call, account: Account) -> None:
    made = list(itertools.product(["PENDING", "IN_PROGRESS", "COMPLETED"], [1, 5]))
    ids = dict(zip(made, await _create(call, account, *({"status": status, "priority": priority} for status, priority in made)), strict=True))
    for query in ({"status": "PENDING"}, {"priority": 5}, {"status": "COMPLETED", "priority": 1}, {}):
        expected = {ids[s, p] for s, p in made if query.get("status", s) == s and query.get("priority", p) == p}
        assert {task["id"] for task in (await call("ListTasks", query, account))["tasks"]} == expected
    assert (await call("ListTasks", {"priority": 2}, account))["tasks"] == []


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", [4, 3, 2, 1, 0]),
        ("created_at", [0, 1, 2, 3, 4]),
        ("priority desc, title", [3, 0, 4, 1, 2]),
        ("due_date", [1, 0, 3, 4, 2]),
        ("due_date desc, created_at desc", [3, 0, 1, 4, 2]),
        ("title desc", [1, 4, 0, 3, 2]),
        ("updated_at", [1, 2, 3, 4, 0]),
    ],
)
async def test_a_list_is_in_the_order_that_is_asked_for(call: Call, account: Account, order_by: str, expected: list[int]) -> None:
    ids = await _create(
        call,
        account,
        {"title": "c", "priority": 4, "due_date": "2027-02-01T00:00:00Z"},
        {"title": "é", "priority": 2, "due_date": "2027-01-01T00:00:00Z"},
        {"title": "A", "priority": 1},
        {"title": "b", "priority": 5, "due_date": "2027-03-01T00:00:00Z"},
        {"title": "d", "priority": 3},
    )
    await call("UpdateTask", {"task": {"id": ids[0], "description": "changed"}}, account)
    for page_size in (100, 2):
        found = [task["id"] async for page in _pages(call, account, {"order_by": order_by, "page_size": page_size}) for task in page]
        order = [ids.index(id_) for id_ in found]
        # Tasks without a due date are ties. The id orders them in the direction of the last key.
        assert order == (expected if order_by != "due_date" else [1, 0, 3, 2, 4])


@pytest.mark.parametrize("blank", ["%20", "+"])
async def test_a_blank_in_a_query_can_be_written_either_way(rest: httpx.AsyncClient, account: Account, blank: str) -> None:
    """Forms, browsers' URLSearchParams and most HTTP libraries write `+`."""
    listed = await rest.get(f"{TASKS}?order_by=priority{blank}desc", headers=account.headers)
    assert listed.status_code == httpx.codes.OK, listed.text


async def test_ties_keep_one_order_over_all_pages(call: Call, account: Account) -> None:
    ids = await _create(call, account, *({"priority": 1 + n % 2} for n in range(13)))
    for order_by, last in (("priority", 1), ("priority desc", -1)):
        found = [task async for page in _pages(call, account, {"order_by": order_by, "page_size": 3}) for task in page]
        assert sorted(task["id"] for task in found) == sorted(ids)
        keys = [(task["priority"], task["id"]) for task in found]
        assert keys == sorted(keys)[::last]


async def test_pages_neither_skip_nor_repeat_while_tasks_come_and_go(call: Call, account: Account) -> None:
    ids = await _create(call, account, *({"priority": 1 + n % 5} for n in range(20)))
    found: list[str] = []
    async for page in _pages(call, account, {"order_by": "priority", "page_size": 4}):
        found += [task["id"] for task in page]
        # Delete the page's first and last task; the next page starts from the last one. Create one task before and one after the current place.
        for shown in {page[0]["id"], page[-1]["id"]} if page else ():
            await call("DeleteTask", {"id": shown}, account)
        if len(found) < len(ids):
            await _create(call, account, {"title": "new", "priority": 1}, {"title": "new", "priority": 5})
    assert len(found) == len(set(found))
    assert set(ids) <= set(found)


async def test_skip_leaves_out_as_many(call: Call, account: Account) -> None:
    ids = await _create(call, account, *({} for _ in range(7)))
    listed = await call("ListTasks", {"order_by": "created_at", "skip": 2, "page_size": 2}, account)
    assert [task["id"] for task in listed["tasks"]] == ids[2:4]
    on = await call("ListTasks", {"order_by": "created_at", "skip": 1, "page_size": 2, "page_token": listed["next_page_token"]}, account)
    assert [task["id"] for task in on["tasks"]] == ids[5:7]
    beyond = await call("ListTasks", {"skip": 100}, account)
    assert (beyond["tasks"], beyond["next_page_token"]) == ([], "")


async def test_page_size_has_a_default_a_largest_and_no_negative(call: Call, account: Account) -> None:
    await asyncio.gather(*(_create(call, account, {}) for _ in range(103)))
    for asked, given in ((0, 20), (1, 1), (100, 100), (1000, 100)):
        page = await call("ListTasks", {"page_size": asked}, account)
        assert len(page["tasks"]) == given
        assert page["next_page_token"]
    assert (await call("ListTasks", {"page_size": -1}, account)).fields.keys() == {"page_size"}
    assert (await call("ListTasks", {"skip": -1}, account)).fields.keys() == {"skip"}


async def test_a_page_token_is_good_only_for_the_query_and_the_user_it_came_from(call: Call, account: Account, new_account: AccountFactory) -> None:
    await _create(call, account, {}, {}, {})
    token = (await call("ListTasks", {"page_size": 1}, account))["next_page_token"]
    assert len((await call("ListTasks", {"page_size": 2, "page_token": token}, account))["tasks"]) == 2
    for query, caller in (({"order_by": "title"}, account), ({"status": "PENDING"}, account), ({"priority": 3}, account), ({}, await new_account())):
        assert (await call("ListTasks", {**query, "page_token": token}, caller)).reason == "INVALID_PAGE_TOKEN"
    for broken in (token[:-2], ("A" if token[0] != "A" else "B") + token[1:], "nonsense", "%"):
        assert (await call("ListTasks", {"page_token": broken}, account)).reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("description", first_quick(LARGE.values(), LARGE))
async def test_a_page_ends_early_at_two_mebibytes_and_never_fails(
    rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, account: Account, description: str
) -> None:
    # Three pages of the four-byte descriptions. Of the others 160: a page has at most 100 tasks, which take 6 MB as JSON.
    count = min(3 * PAGE_BYTES // len(description.encode()), 160)
    body = json.dumps({"title": "large", "description": description})
    made = [await rest.post(TASKS, content=body, headers={**account.headers, "content-type": "application/json"}) for _ in range(count)]
    assert {response.status_code for response in made} == {httpx.codes.CREATED}
    found: dict[str, list[int]] = {"rest": [], "grpc": []}
    token = ""
    while True:
        response = await rest.get(TASKS, params={"page_size": 100, "page_token": token}, headers=account.headers)
        assert response.status_code == httpx.codes.OK, response.text[:300]
        page = response.json()
        assert all(task["description"] == description for task in page["tasks"])
        assert sum(len(task["description"].encode()) for task in page["tasks"]) <= PAGE_BYTES
        request = message_of(named("ListTasks"), {"page_size": 100, "page_token": token})
        same = await rpc_call(gateway_channel, named("ListTasks"), request, tuple(account.metadata))
        assert not isinstance(same, ApiError), same
        found["rest"].append(len(page["tasks"]))
        found["grpc"].append(len(as_dict(same)["tasks"]))
        token = page["next_page_token"]
        if not token:
            break
    assert found["rest"] == found["grpc"]
    assert sum(found["rest"]) == count
