"""Which passwords the service rejects, over REST and with the field named, and how UpdateMe changes an account's name."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.accounts import PASSWORD, Account
from tests.support.errors import of_response

COMMON = "is one of the most common passwords: choose another"
OWN = "must not be your email or your name"
LENGTH = "must have 8 to 128 characters"
PATTERN = "must not be a short text repeated or a sequence of the alphabet, of digits or of the keyboard"
NAME = "Ada Lovelace"

ACUTE = "\N{COMBINING ACUTE ACCENT}"

# Passwords of an account whose email is $local@example.com.
REFUSED: Mapping[str, tuple[str, str]] = {
    "too short": ("1234567", LENGTH),
    "too short after NFC": (f"e{ACUTE}" * 7, LENGTH),
    "too long": ("x" * 129, LENGTH),
    "too long in astral characters": ("\N{GRINNING FACE}" * 129, LENGTH),
    "common": ("password1", COMMON),
    "common in capitals": ("PassWord1", COMMON),
    "common digits": ("1234567890", COMMON),
    "common with a digit in it": ("trustno1", COMMON),
    "common twice": ("trustno1trustno1", COMMON),
    "leaked": ("administrator", COMMON),
    "a short text repeated": ("kq3z-m8kq3z-m8", PATTERN),
    "one character": ("\N{GRINNING FACE}" * 128, PATTERN),
    "a sequence": ("rstuvwxyz456789", PATTERN),
    "own email": ("$local@example.com", OWN),
    "own email in capitals": ("$LOCAL@EXAMPLE.COM", OWN),
    "own email twice": ("$local@example.com$local@example.com", OWN),
    "own email before the at": ("$local", OWN),
    "own name": (NAME, OWN),
    "own name in small letters": ("ada lovelace", OWN),
    "own name run together": ("adalovelace", OWN),
    "own name twice": ("AdaLovelaceAdaLovelace", OWN),
}
TAKEN: Mapping[str, str] = {
    "at the least": "kq3z-m8x",
    "at the most": "kq3z-m8x" * 16,
    "at the most after NFC": f"e{ACUTE}a{ACUTE}o{ACUTE}xyqu{ACUTE}i{ACUTE}" * 16,
    "astral": "".join(chr(0x1F600 + 7 * number) for number in range(8)),
    "no rules of composition": "onlysmallletters",
    "spaces at its ends": "  between spaces  ",
    "a common one and more": "password1 and more",
    "own name and more": f"{NAME} the Countess",
    "a NUL": "before\0after",
}

refused = pytest.mark.parametrize(("password", "problem"), REFUSED.values(), ids=REFUSED)
taken = pytest.mark.parametrize("password", TAKEN.values(), ids=TAKEN)


@refused
async def test_register_refuses(rest: httpx.AsyncClient, password: str, problem: str) -> None:
    local = uuid4().hex
    response = await _register(rest, local, _filled(password, local))
    assert (response.status_code, of_response(response).fields) == (400, {"password": problem})
    assert of_response(response).reason == "INVALID_FIELD"


@taken
async def test_register_takes(rest: httpx.AsyncClient, password: str) -> None:
    local = uuid4().hex
    assert (await _register(rest, local, password)).status_code == 201
    assert (await _login(rest, f"{local}@example.com", password)).status_code == 200


async def test_a_refused_registration_makes_no_account(rest: httpx.AsyncClient) -> None:
    local = uuid4().hex
    assert (await _register(rest, local, "password1")).status_code == 400
    assert (await _register(rest, local, PASSWORD)).status_code == 201


@refused
async def test_a_change_refuses_and_the_password_stays(rest: httpx.AsyncClient, password: str, problem: str) -> None:
    user = await _user(rest)
    response = await _change(rest, user, PASSWORD, _filled(password, user.email.partition("@")[0]))
    assert (response.status_code, of_response(response).fields) == (400, {"new_password": problem})
    assert (await _login(rest, user.email, PASSWORD)).status_code == 200


@taken
async def test_a_change_takes_and_the_old_password_is_none(rest: httpx.AsyncClient, password: str) -> None:
    user = await _user(rest)
    response = await _change(rest, user, PASSWORD, password)
    assert (response.status_code, response.json()) == (200, {})
    assert [(await _login(rest, user.email, tried)).status_code for tried in (password, PASSWORD)] == [200, 401]


async def test_a_change_looks_at_the_rules_before_it_asks_for_the_current_password(rest: httpx.AsyncClient) -> None:
    """What is wrong with the request alone is an error of the request, and no attempt with a wrong password."""
    user = await _user(rest)
    assert of_response(await _change(rest, user, "wrong horse battery", "password1")).fields.keys() == {"new_password"}
    assert of_response(await _change(rest, user, "wrong horse battery", "another horse, another battery")).reason == "WRONG_PASSWORD"


async def test_the_name_of_now_counts_for_a_new_password(rest: httpx.AsyncClient) -> None:
    user, before = await _user(rest), f"Ada {uuid4().hex}"
    for name in (before, "Grace Hopper"):
        assert (await _update(rest, user, {"name": name})).status_code == 200
    assert of_response(await _change(rest, user, PASSWORD, "grace hopper")).fields == {"new_password": OWN}
    assert (await _change(rest, user, PASSWORD, before)).status_code == 200


@pytest.mark.parametrize("field", ["current_password", "new_password"])
@pytest.mark.parametrize("value", ["", "x" * 4097], ids=["empty", "far too long"])
async def test_a_change_names_the_field_that_is_out_of_its_bounds(rest: httpx.AsyncClient, account: Account, field: str, value: str) -> None:
    body = {"current_password": PASSWORD, "new_password": "another horse battery", field: value}
    response = await rest.post("/api/v1/auth/password", json=body, headers=account.headers)
    assert (response.status_code, set(of_response(response).fields)) == (400, {field})


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {"name": "Grace"}),
        ("?update_mask=name", {"name": "Grace"}),
        ("?update_mask=*", {"name": "Grace"}),
        ("?update_mask=name,name", {"name": "Grace"}),
        ("", {"name": "Grace", "id": "1", "email": "other@example.com", "created_at": "2020-01-01T00:00:00Z"}),
        ("?update_mask=name", {"name": "Grace", "email": "other@example.com"}),
    ],
    ids=["no mask", "mask", "star", "mask twice", "no mask, and what the server sets", "mask, and what it does not name"],
)
async def test_a_name_is_changed_and_nothing_else(rest: httpx.AsyncClient, account: Account, query: str, values: Mapping[str, str]) -> None:
    before = (await rest.get("/api/v1/users/me", headers=account.headers)).json()
    response = await _update(rest, account, values, query)
    assert response.status_code == 200, response.text
    after = (await rest.get("/api/v1/users/me", headers=account.headers)).json()
    assert response.json() == after
    assert after == {**before, "name": "Grace", "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]


@pytest.mark.parametrize(
    ("query", "values"), [("", {}), ("", {"email": "other@example.com"}), ("", {"name": "Test"}), ("?update_mask=name", {"name": "Test"})]
)
async def test_what_changes_nothing_leaves_the_time_of_change(
    rest: httpx.AsyncClient, account: Account, query: str, values: Mapping[str, str]
) -> None:
    before = (await rest.get("/api/v1/users/me", headers=account.headers)).json()
    response = await _update(rest, account, values, query)
    assert (response.status_code, response.json()) == (200, before)


@pytest.mark.parametrize(
    ("query", "values", "field"),
    [
        ("?update_mask=email", {"email": "other@example.com"}, "update_mask"),
        ("?update_mask=name,email", {"name": "Grace", "email": "other@example.com"}, "update_mask"),
        ("?update_mask=password_hash", {"name": "Grace"}, "update_mask"),
        ("?update_mask=*,name", {"name": "Grace"}, "update_mask"),
        ("?update_mask=name", {}, "user.name"),
        ("?update_mask=*", {}, "user.name"),
        ("", {"name": ""}, "user.name"),
        ("", {"name": " \t "}, "user.name"),
        ("", {"name": "a\0b"}, "user.name"),
        ("?update_mask=name", {"name": "x" * 101}, "user.name"),
    ],
)
async def test_a_wrong_change_is_refused_with_the_field(
    rest: httpx.AsyncClient, account: Account, query: str, values: Mapping[str, str], field: str
) -> None:
    before = (await rest.get("/api/v1/users/me", headers=account.headers)).json()
    response = await _update(rest, account, values, query)
    assert (response.status_code, set(of_response(response).fields)) == (400, {field})
    assert (await rest.get("/api/v1/users/me", headers=account.headers)).json() == before


async def _user(rest: httpx.AsyncClient) -> Account:
    """Registers a user with the name NAME and logs in."""
    local = uuid4().hex
    registered = await _register(rest, local, PASSWORD)
    tokens = (await _login(rest, f"{local}@example.com", PASSWORD)).json()
    return Account(registered.json()["id"], registered.json()["email"], tokens["access_token"], tokens["refresh_token"])


async def _register(rest: httpx.AsyncClient, local: str, password: str) -> httpx.Response:
    return await rest.post("/api/v1/auth/register", json={"email": f"{local}@example.com", "password": password, "name": NAME})


async def _login(rest: httpx.AsyncClient, email: str, password: str) -> httpx.Response:
    return await rest.post("/api/v1/auth/login", json={"email": email, "password": password})


async def _change(rest: httpx.AsyncClient, user: Account, current: str, new: str) -> httpx.Response:
    return await rest.post("/api/v1/auth/password", json={"current_password": current, "new_password": new}, headers=user.headers)


async def _update(rest: httpx.AsyncClient, user: Account, values: Mapping[str, Any], query: str = "") -> httpx.Response:
    return await rest.patch(f"/api/v1/users/me{query}", json=dict(values), headers=user.headers)


def _filled(password: str, local: str) -> str:
    return password.replace("$local", local).replace("$LOCAL", local.upper())
