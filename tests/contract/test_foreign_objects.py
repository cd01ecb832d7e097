"""A stranger calls each authenticated method with the owner's ids and secrets. The answer reveals nothing, and the owner's data does not change.

The methods and the fields that name objects come from the descriptors, the values from the table. So a new method needs only its row.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import httpx
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from uuid_utils import uuid7

from devstack.stack import Stack
from tests.contract.conftest import Ways, metadata_of
from tests.contract.insider import secrets_of
from tests.contract.table import World, filled, make_world, row_of
from tests.support.accounts import Account, log_in, make_account
from tests.support.calls import VARIABLE, as_dict, message_of, rest_call, rpc_call, transcoded
from tests.support.descriptors import Rpc, is_output_only, rpcs
from tests.support.errors import ApiError, of_response
from tests.support.tiers import rotated

every_authenticated_rpc = pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if rpc.is_authenticated], ids=lambda rpc: rpc.name)
WAYS = ("rest", "gateway", "direct")
every_authenticated_rpc_by_every_way = pytest.mark.parametrize(
    ("rpc", "way"), rotated([rpc for rpc in rpcs() if rpc.is_authenticated], WAYS, lambda rpc: rpc.name)
)

ANOTHER_PASSWORD = "somebody else's horse"
UNAUTHENTICATED, NOT_FOUND, DENIED, INVALID = (
    code.value[0]
    for code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
)
# The World's fields that name an object, and those that only their owner may use, with the error that other users get.
OBJECTS = (
    *("$task_id", "$second_task_id", "$binned_task_id", "$project_id", "$second_project_id", "$binned_project_id"),
    *("$session_id", "$api_token_id", "$webhook_id"),
)
PROOFS = {"$password": (DENIED, "WRONG_PASSWORD"), "$resume_token": (INVALID, "INVALID_RESUME_TOKEN")}


@dataclass(frozen=True, slots=True)
class Owner:
    """A user with tasks and two sessions, all with unique texts and ids. `seen` is everything that the API shows of them."""

    world: World
    account: Account
    secrets: frozenset[str]
    seen: Any


@pytest.fixture(scope="module")
async def owner(rest: httpx.AsyncClient) -> AsyncIterator[Owner]:
    """The owner of the objects. No test may change anything of them, which each test checks, as far as that changes nothing itself."""
    made = await _make_owner(rest)
    yield made
    await _assert_intact(rest, made)


async def _make_owner(rest: httpx.AsyncClient) -> Owner:
    world, account = await make_world(rest)
    name, title = f"Owner {uuid7()}", f"Title {uuid7()}"
    named = {
        "/api/v1/users/me": {"name": name},
        f"/api/v1/tasks/{world.task_id}": {"title": title, "description": title},
        f"/api/v1/projects/{world.project_id}": {"name": title, "description": title},
        f"/api/v1/webhooks/{world.webhook_id}": {"description": title},
    }
    for path, body in named.items():
        assert (await rest.patch(path, json=body, headers=account.headers)).status_code == httpx.codes.OK
    own = {account.id, account.email, str(account.claims["sid"]), world.session_id, world.refresh_token, account.access_token, world.resume_token}
    objects = {getattr(world, placeholder.removeprefix("$")) for placeholder in OBJECTS}
    return Owner(world, account, frozenset(own | objects | {name, title, world.api_token}), await _seen(rest, world, account))


@pytest.fixture
async def stranger(rest: httpx.AsyncClient) -> Account:
    """Another user."""
    return await make_account(rest, ANOTHER_PASSWORD)


@every_authenticated_rpc
def test_a_row_names_its_objects_by_their_place_in_the_world(rpc: Rpc) -> None:
    """Otherwise a stranger's call would not refer to the owner's objects."""
    message = row_of(rpc.name).message
    for path in {*_required_ids_of(rpc.request.DESCRIPTOR), *VARIABLE.findall(rpc.template)}:
        found = list(_values_at(message, path.split(".")))
        assert found, f"the row must have {path}"
        assert set(found) <= set(OBJECTS), f"{path} must be one of {OBJECTS}"


@every_authenticated_rpc_by_every_way
async def test_a_stranger_gets_nothing_of_the_owners(
    rpc: Rpc, way: str, owner: Owner, stranger: Account, rest: httpx.AsyncClient, ways: Ways
) -> None:
    answer, error = await _call(rpc, way, owner.world, owner.account, stranger, rest, ways)
    assert [secret for secret in owner.secrets if secret in answer] == []
    placeholders = _placeholders(rpc)
    if placeholders & set(OBJECTS):
        nothing = replace(owner.world, **{name.removeprefix("$"): str(uuid7()) for name in OBJECTS})
        assert error is not None
        assert error.code == NOT_FOUND
        assert (await _call(rpc, way, nothing, owner.account, stranger, rest, ways))[1] == error
    elif proofs := placeholders & set(PROOFS):
        assert error is not None
        assert (error.code, error.reason) == PROOFS[proofs.pop()]
    else:
        assert error is None
    await _assert_unchanged(rest, owner)


@pytest.mark.parametrize(
    ("rpc", "way"),
    rotated(
        [rpc for rpc in rpcs() if rpc.is_authenticated and "$second_task_id" in json.dumps(row_of(rpc.name).message)], WAYS, lambda rpc: rpc.name
    ),
)
@pytest.mark.parametrize(("foreign", "index"), [("task_id", 0), ("second_task_id", 1)])
async def test_one_foreign_task_refuses_the_whole_batch(
    rpc: Rpc, foreign: str, index: int, way: str, owner: Owner, rest: httpx.AsyncClient, ways: Ways
) -> None:
    """The batch also changes none of the caller's own tasks."""
    mine, caller = await make_world(rest)
    before = await _seen(rest, mine, caller)
    answer, error = await _call(rpc, way, replace(mine, **{foreign: owner.world.task_id}), owner.account, caller, rest, ways)
    assert [secret for secret in owner.secrets if secret in answer] == []
    assert error is not None
    assert (error.code, error.reason, error.metadata["index"]) == (NOT_FOUND, "TASK_NOT_FOUND", str(index))
    never = await _call(rpc, way, replace(mine, **{foreign: str(uuid7())}), owner.account, caller, rest, ways)
    assert never[1] == error
    assert await _seen(rest, mine, caller) == before
    await _assert_unchanged(rest, owner)


@every_authenticated_rpc_by_every_way
async def test_what_is_no_access_token_opens_nothing(rpc: Rpc, way: str, owner: Owner, system: Stack, rest: httpx.AsyncClient, ways: Ways) -> None:
    """These tokens give no access, not even to the owner."""
    for token, reason in {
        "": "TOKEN_MISSING",
        secrets_of(system.state).service_token: "TOKEN_INVALID",
        owner.world.refresh_token: "TOKEN_INVALID",
    }.items():
        caller = replace(owner.account, access_token=token) if token else None
        answer, error = await _call(rpc, way, owner.world, owner.account, caller, rest, ways)
        assert error is not None, answer
        assert (error.code, error.reason) == (UNAUTHENTICATED, reason)
        assert [secret for secret in owner.secrets if secret in answer] == []
    await _assert_unchanged(rest, owner)


@every_authenticated_rpc
async def test_the_owners_own_call_succeeds(rpc: Rpc, rest: httpx.AsyncClient, ways: Ways) -> None:
    """Otherwise the rejections above would prove nothing."""
    world, account = await make_world(rest, row_of(rpc.name).message)
    _, error = await _call(rpc, "rest", world, account, account, rest, ways)
    assert error is None


async def _call(
    rpc: Rpc, way: str, world: World, owner: Account, caller: Account | None, rest: httpx.AsyncClient, ways: Ways
) -> tuple[str, ApiError | None]:
    """Makes the row's call, also with the owner's ids in fields that the server sets. Returns the complete answer as text, and its error."""
    message = message_of(rpc, filled(row_of(rpc.name).message, world))
    _claim_to_be(owner, message)
    if way == "rest":
        response = await rest_call(rest, transcoded(rpc, message), caller.headers if caller else {})
        assert response.status_code < httpx.codes.INTERNAL_SERVER_ERROR, response.text
        text = f"{response.headers} {response.text}"
        return text, None if response.is_success else of_response(response)
    channel = ways.gateway if way == "gateway" else ways.services[rpc.program]
    answer = await rpc_call(channel, rpc, message, metadata_of(caller))
    if isinstance(answer, ApiError):
        return str(answer), answer
    return json.dumps(as_dict(answer), ensure_ascii=False), None


def _claim_to_be(owner: Account, message: Message) -> None:
    """Sets the owner's identity in all fields of the request that the server sets."""
    values = {"id": owner.id, "user_id": owner.id, "email": owner.email}
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            continue
        for inner in value if field.is_repeated else [value]:
            for name, own in field.message_type.fields_by_name.items():
                if name in values and is_output_only(own) and not getattr(inner, name):
                    setattr(inner, name, values[name])
            _claim_to_be(owner, inner)


async def _assert_unchanged(rest: httpx.AsyncClient, owner: Owner) -> None:
    """The owner's data is unchanged."""
    assert await _seen(rest, owner.world, owner.account) == owner.seen


async def _assert_intact(rest: httpx.AsyncClient, owner: Owner) -> None:
    """What is in the owner's bin is unchanged too, and the owner can still log in and refresh."""
    await log_in(rest, owner.account)
    refreshed = await rest.post("/api/v1/auth/refresh", json={"refresh_token": owner.world.refresh_token})
    assert refreshed.status_code == httpx.codes.OK, refreshed.text
    # The API does not show what is in the bin. The undeletion proves that it is still there, and its etag that it is unchanged.
    headers = {**owner.account.headers, "if-match": '"2"'}
    for path in (f"/api/v1/tasks/{owner.world.binned_task_id}", f"/api/v1/projects/{owner.world.binned_project_id}"):
        assert (await rest.post(f"{path}:undelete", headers=headers)).status_code == httpx.codes.OK


async def _seen(rest: httpx.AsyncClient, world: World, account: Account) -> list[Any]:
    paths = (
        *("/api/v1/users/me", "/api/v1/auth/sessions", "/api/v1/auth/tokens"),
        *("/api/v1/tasks", f"/api/v1/tasks/{world.task_id}", "/api/v1/projects", "/api/v1/webhooks"),
    )
    seen = [await rest.get(path, headers=account.headers) for path in paths]
    assert [response.status_code for response in seen] == [httpx.codes.OK] * len(paths)
    # Each resume token has its own nonce.
    return [{name: value for name, value in response.json().items() if name != "resume_token"} for response in seen]


def _placeholders(rpc: Rpc) -> set[str]:
    """Returns the names of the world's fields in the row's request."""
    text = json.dumps(row_of(rpc.name).message)
    return {placeholder for placeholder in (f"${name}" for name in World.__dataclass_fields__) if placeholder in text}


def _required_ids_of(message: Any, prefix: str = "") -> Iterator[str]:
    """Yields the paths of the fields that must be an id, and may not be empty."""
    for field in message.fields:
        rules: Any = field.GetOptions().Extensions[validate_pb2.field]
        if field.type == FieldDescriptor.TYPE_STRING and (rules.repeated.items if field.is_repeated else rules).string.uuid:
            if rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE:
                yield prefix + field.name
        elif field.message_type is not None and not is_output_only(field):
            yield from _required_ids_of(field.message_type, f"{prefix}{field.name}.")


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yields the value at a path, or all values if the path leads through a list."""
    if isinstance(value, list):
        for item in value:
            yield from _values_at(item, path)
    elif path:
        yield from _values_at(value.get(path[0], ""), path[1:])
    else:
        yield value
