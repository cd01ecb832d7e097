"""Text in any script: blank, kept in NFC, found and ordered without regard to upper and lower case."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from tests.contract.calls import Call, over_rest, refusal
from tests.contract.table import REGISTRATION
from tests.support.accounts import Account

TASKS = "/api/v1/tasks"
# Each of these is blank: spaces of Unicode, line separators, controls, and characters without a form.
BLANK = (
    "\u00a0",
    "\u3000",
    "\u0085",
    "\u1680",
    "\u2028",
    "\u200b",
    "\u200d\ufeff",
    "\u2060",
    "\u00ad",
    "\u3164",
    "\u2800",
    "\ufe0f",
    " \t\u00a0\u200b\n",
)
VISIBLE = ("é", "\N{GRINNING FACE}", "가", "\u0301", "x\u200b", ".")
DECOMPOSED, COMPOSED = "cafe\u0301", "caf\u00e9"


async def _titles(rest: httpx.AsyncClient, account: Account, **query: str) -> Sequence[str]:
    response = await rest.get(TASKS, params=query, headers=account.headers)
    assert response.status_code == httpx.codes.OK, response.text
    return [task["title"] for task in response.json()["tasks"]]


@pytest.fixture
def by_rest(rest: httpx.AsyncClient) -> Call:
    return over_rest(rest)


@pytest.mark.parametrize("text", BLANK, ids=ascii)
async def test_what_shows_nothing_is_blank(text: str, account: Account, by_rest: Call) -> None:
    for rpc, values, field in (
        ("CreateTask", {"task": {"title": text}}, "task.title"),
        ("CreateTask", {"task": {"title": "x", "labels": [text]}}, "task.labels[0]"),
        ("UpdateMe", {"user": {"name": text}, "update_mask": "name"}, "user.name"),
    ):
        assert refusal(await by_rest(rpc, values, account)).fields == {field: "must not be blank"}


@pytest.mark.parametrize("text", VISIBLE, ids=ascii)
async def test_what_shows_something_is_not_blank(text: str, account: Account, by_rest: Call) -> None:
    assert (await by_rest("CreateTask", {"task": {"title": text, "labels": [text]}}, account)).error is None


async def test_text_is_kept_in_nfc(account: Account, call: Call) -> None:
    task: dict[str, Any] = {"title": DECOMPOSED, "description": DECOMPOSED, "labels": [DECOMPOSED]}
    for rpc, values, name in (("CreateTask", {"task": task}, None), ("BatchCreateTasks", {"requests": [{"task": task}]}, "tasks")):
        made = (await call(rpc, values, account)).values
        (made,) = made[name] if name else (made,)
        assert (made["title"], made["description"], made["labels"]) == (COMPOSED, COMPOSED, [COMPOSED])
    renamed = await call("UpdateMe", {"user": {"name": DECOMPOSED}}, account)
    assert renamed.values["name"] == COMPOSED


async def test_one_label_is_one_label(account: Account, by_rest: Call) -> None:
    twice = refusal(await by_rest("CreateTask", {"task": {"title": "x", "labels": [COMPOSED, DECOMPOSED]}}, account))
    assert "unique" in twice.fields["task.labels"]


async def test_limits_count_what_is_stored(account: Account, by_rest: Call) -> None:
    assert (await by_rest("CreateTask", {"task": {"title": "e\u0301" * 200}}, account)).error is None
    # These have no composed form: in NFC they are two characters.
    assert refusal(await by_rest("CreateTask", {"task": {"title": "\u0958" * 101}}, account)).fields.keys() == {"task.title"}


@pytest.mark.parametrize(
    ("title", "found_by"),
    [("δρόμος", "ΔΡΌΜΟΣ"), ("ΔΡΌΜΟΣ", "δρόμος"), ("Straße", "STRASSE"), ("STRASSE", "straße"), ("Ärger", "A\u0308RGER"), ("\ufb01n", "FIN")],
)
async def test_a_search_ignores_upper_and_lower_case(title: str, found_by: str, account: Account, rest: httpx.AsyncClient) -> None:
    for task in ({"title": title}, {"title": "described", "description": f"… {title} …"}, {"title": "other"}):
        await rest.post(TASKS, json=task, headers=account.headers)
    assert await _titles(rest, account, filter=f'title:"{found_by}"') == [title]
    assert await _titles(rest, account, filter=f'description:"{found_by}"') == ["described"]
    assert await _titles(rest, account, filter=f'title = "{title}"') == [title]


async def test_a_label_is_found_however_it_is_written(account: Account, rest: httpx.AsyncClient) -> None:
    await rest.post(TASKS, json={"title": "x", "labels": [DECOMPOSED]}, headers=account.headers)
    for label in (COMPOSED, DECOMPOSED):
        assert await _titles(rest, account, filter=f'labels:"{label}"') == ["x"]


async def test_titles_are_ordered_by_their_case_folding(account: Account, rest: httpx.AsyncClient) -> None:
    titles = ["b", "A", "a2", "B1", "Straße", "strassen", "STRASSA", "Ω", "ω1", "é", "Z"]
    for title in titles:
        await rest.post(TASKS, json={"title": title}, headers=account.headers)
    assert await _titles(rest, account, order_by="title") == sorted(titles, key=str.casefold)
    assert await _titles(rest, account, order_by="title desc") == sorted(titles, key=str.casefold, reverse=True)
    assert await _titles(rest, account, order_by="priority desc, title") == sorted(titles, key=str.casefold)


@pytest.mark.parametrize("email", ["jörg@example.com", "joerg@exämple.com", "用户@例子.广告"])
async def test_an_internationalized_address_is_refused_with_the_reason(email: str, account: Account, by_rest: Call) -> None:
    refused = refusal(await by_rest("Register", REGISTRATION | {"email": email}, account))
    assert "ASCII" in refused.fields["email"]
    assert "not supported" in refused.message
