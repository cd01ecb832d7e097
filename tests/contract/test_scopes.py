"""API tokens: each scope against each RPC, over every way; and a token that may only read changes nothing, whatever is sent with it.

The methods and their scopes come from the descriptors, so a new method needs nothing here.
"""

import asyncio
from dataclasses import replace

import httpx
import pytest
from buf.validate import validate_pb2
from taskmanager.auth.v1 import api_token_service_pb2
from taskmanager.rpc.v1 import access_pb2

from devstack.config import HOST
from devstack.stack import Stack
from servicekit.scopes import SCOPES, granted
from tests.contract.conftest import Ways
from tests.contract.generated import cases
from tests.contract.table import World, filled, make_world, row_of
from tests.contract.token_ways import WAYS, send
from tests.support.accounts import Account, make_account, make_api_token
from tests.support.calls import message_of, rpc_call, transcoded
from tests.support.descriptors import Rpc, rpcs
from tests.support.errors import ApiError
from tests.support.tiers import SLOW, rotated

DENIED, UNAUTHENTICATED = 7, 16
AUTHENTICATED = [rpc for rpc in rpcs() if rpc.is_authenticated]
every_scope = pytest.mark.parametrize("scope", SCOPES)
every_rpc_by_every_way = pytest.mark.parametrize(("rpc", "way"), rotated(AUTHENTICATED, WAYS, lambda rpc: rpc.name))


def test_a_scope_is_one_of_those_that_a_token_can_have() -> None:
    assert {rpc.scope for rpc in rpcs()} - {""} <= set(SCOPES)
    field = api_token_service_pb2.ApiToken.DESCRIPTOR.fields_by_name["scopes"]
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]  # type: ignore[index]  # as in rules.py
    assert list(getattr(rules.repeated.items.string, "in")) == list(SCOPES)
    assert rules.repeated.max_items == len(SCOPES)


@pytest.mark.parametrize("rpc", rpcs(), ids=lambda rpc: rpc.name)
def test_only_a_method_without_side_effects_has_a_scope_that_reads(rpc: Rpc) -> None:
    """And only an authenticated one has a scope at all."""
    assert rpc.scope == "" or rpc.access == access_pb2.ACCESS_AUTHENTICATED
    assert not (rpc.scope.endswith(":read") and rpc.writes)


def test_what_ends_or_gives_access_takes_no_api_token() -> None:
    sessions_only = {rpc.name.rpartition(".")[2] for rpc in AUTHENTICATED if not rpc.scope}
    assert sessions_only >= {"ListSessions", "RevokeSession", "ChangePassword", "DeleteMe", "CreateApiToken", "ListApiTokens", "DeleteApiToken"}


@every_scope
@every_rpc_by_every_way
async def test_each_scope_opens_what_it_names_and_nothing_else(rpc: Rpc, way: str, scope: str, rest: httpx.AsyncClient, ways: Ways) -> None:
    world, account = await make_world(rest, row_of(rpc.name).message)
    _, token = await make_api_token(rest, account, scope)
    error = await _call(rpc, way, world, replace(account, access_token=token), ways)
    if not rpc.scope:
        assert error is not None
        assert (error.code, error.reason) == (DENIED, "SESSION_REQUIRED")
    elif rpc.scope in granted([scope]):
        assert error is None
    else:
        assert error is not None
        assert (error.code, error.reason, error.metadata["scope"]) == (DENIED, "SCOPE_MISSING", rpc.scope)


@every_rpc_by_every_way
async def test_an_invalid_request_is_denied_before_it_is_read(rpc: Rpc, way: str, rest: httpx.AsyncClient, ways: Ways) -> None:
    """AIP-211: a caller who may not call a method does not learn which requests are valid."""
    nothing = rpc.request()
    if way == "rest" and (transcoded(rpc, nothing).path != rpc.template or "{" in rpc.template):
        return  # without its fields the path is another one
    world, account = await make_world(rest, "$task_id")
    _, token = await make_api_token(rest, account, next(scope for scope in SCOPES if rpc.scope not in granted([scope])))
    caller = replace(account, access_token=token)
    error = await send(rpc, way, nothing, caller, ways)
    assert error is not None
    assert error.code == DENIED
    assert world.task_id not in str(error)


@pytest.mark.parametrize("rpc", AUTHENTICATED, ids=lambda rpc: rpc.name)
async def test_a_service_takes_no_api_token_from_a_client_without_the_gateway(rpc: Rpc, rest: httpx.AsyncClient, ways: Ways) -> None:
    """Only the gateway exchanges the header; a client of a service calls ExchangeApiToken."""
    world, account = await make_world(rest, row_of(rpc.name).message)
    _, token = await make_api_token(rest, account, *SCOPES)
    message = message_of(rpc, filled(row_of(rpc.name).message, world))
    error = await rpc_call(ways.services[rpc.program], rpc, message, (("authorization", f"Bearer {token}"),))
    assert isinstance(error, ApiError)
    assert (error.code, error.reason) == (UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize("first", [True, False])
async def test_two_headers_of_which_one_is_an_api_token_are_refused(first: bool, rest: httpx.AsyncClient) -> None:  # noqa: FBT001
    account = await make_account(rest)
    _, token = await make_api_token(rest, account, *SCOPES)
    for other in ("Bearer nonsense", f"Bearer {account.access_token}", f"Bearer {token}"):
        pair = [("authorization", f"Bearer {token}"), ("authorization", other)]
        assert (await rest.get("/api/v1/tasks", headers=pair if first else pair[::-1])).status_code == httpx.codes.UNAUTHORIZED


async def test_two_headers_are_refused_by_the_endpoint_itself(system: Stack, rest: httpx.AsyncClient) -> None:
    """The gateway joins two headers to one, so only another client of the port sends two."""
    account = await make_account(rest)
    _, token = await make_api_token(rest, account, *SCOPES)
    url = f"http://{HOST}:{system.state.processes['auth-1'].ops_port}/exchange"
    header = ("authorization", f"Bearer {token}")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url, headers=[header])).status_code == httpx.codes.OK
        for other in (header, ("authorization", "Bearer nonsense")):
            assert (await client.get(url, headers=[header, other])).status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < 2 else [SLOW]) for seed in range(20)])
async def test_a_token_that_reads_changes_nothing(seed: int, rest: httpx.AsyncClient, ways: Ways) -> None:
    """Generated calls of all methods, each by one of the ways with a token of all scopes that read. Most of them would succeed with a session."""
    world, account = await make_world(rest)
    _, token = await make_api_token(rest, account, "tasks:read", "account:read")
    caller, before = replace(account, access_token=token), await _state(rest, account)
    denied = 0
    for number, case in enumerate(case for case in cases(seed, 60) if case.rpc.is_authenticated):
        way = WAYS[number % len(WAYS)]
        error = await send(case.rpc, way, case.request(world), caller, ways, case.headers)
        if case.rpc.writes:
            assert error is not None, f"seed {seed}, {way}: {case}"
            denied += error.reason in {"SCOPE_MISSING", "SESSION_REQUIRED"}
    assert denied > 10
    assert await _state(rest, account) == before


@pytest.mark.parametrize(("rpc", "way"), rotated([rpc for rpc in AUTHENTICATED if rpc.writes], WAYS, lambda rpc: rpc.name))
async def test_no_write_goes_through_with_a_token_that_reads(rpc: Rpc, way: str, rest: httpx.AsyncClient, ways: Ways) -> None:
    world, account = await make_world(rest, row_of(rpc.name).message)
    _, token = await make_api_token(rest, account, "tasks:read", "account:read")
    before = await _state(rest, account)
    error = await _call(rpc, way, world, replace(account, access_token=token), ways)
    assert error is not None
    assert error.code == DENIED
    assert await _state(rest, account) == before


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
@pytest.mark.parametrize("override", ["x-http-method-override", "x-http-method", "x-method-override"])
async def test_no_other_method_of_http_writes_either(verb: str, override: str, rest: httpx.AsyncClient) -> None:
    world, account = await make_world(rest, "$task_id")
    _, token = await make_api_token(rest, account, "tasks:read", "account:read")
    before, headers = await _state(rest, account), {"authorization": f"Bearer {token}"}
    for path in ("/api/v1/tasks", f"/api/v1/tasks/{world.task_id}", "/api/v1/users/me", "/api/v1/tasks:batchDelete", "/api/v1/auth/tokens"):
        await rest.request(verb, path, json={"title": "Changed", "name": "Changed"}, headers=headers)
        await rest.get(path, headers=headers | {override: verb})
    assert await _state(rest, account) == before


async def _call(rpc: Rpc, way: str, world: World, caller: Account, ways: Ways) -> ApiError | None:
    return await send(rpc, way, message_of(rpc, filled(row_of(rpc.name).message, world)), caller, ways)


async def _state(rest: httpx.AsyncClient, account: Account) -> object:
    """Returns everything that a token could change, as a session sees it."""
    everything = "show_deleted=true&page_size=100"
    paths = (
        *("/api/v1/users/me", "/api/v1/auth/sessions", "/api/v1/auth/tokens", f"/api/v1/tasks?{everything}&order_by=created_at"),
        f"/api/v1/projects?{everything}&show_archived=true",
    )
    answers = await asyncio.gather(*(rest.get(path, headers=account.headers) for path in paths))
    assert [answer.status_code for answer in answers] == [httpx.codes.OK] * len(paths)
    tokens = [{**token, "last_used_at": None} for token in answers[2].json()["api_tokens"]]
    return [answers[0].json(), answers[1].json(), tokens, answers[3].json()["tasks"], answers[4].json()["projects"]]
