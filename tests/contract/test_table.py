"""Every RPC, over REST and over gRPC: both give results of the same shape."""

import re
from typing import Any

import grpc.aio
import httpx
import pytest

from tests.contract.conftest import Ways, metadata_of
from tests.contract.table import NOWHERE, ROWS, Row, filled, make_world, row_of
from tests.support.calls import EVENT_STREAM, VARIABLE, RestCall, as_dict, message_of, rest_call, rpc_call, transcoded
from tests.support.descriptors import Rpc, named, rpcs
from tests.support.errors import ApiError, of_response

for_clients = [rpc for rpc in rpcs() if not rpc.is_internal]
authenticated = pytest.mark.parametrize("rpc", [rpc for rpc in for_clients if rpc.is_authenticated], ids=lambda rpc: rpc.name)
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rpc)


def test_every_rpc_has_a_row() -> None:
    assert sorted(row.rpc for row in ROWS) == sorted(rpc.name for rpc in for_clients)


@every_row
def test_the_row_is_that_of_the_http_rule(row: Row) -> None:
    rpc = named(row.rpc)
    assert (row.verb, re.sub(r"\$\w+", "{}", row.path.partition("?")[0])) == (rpc.verb, VARIABLE.sub("{}", rpc.template))


@every_row
async def test_rest_and_grpc_give_results_of_one_shape(row: Row, rest: httpx.AsyncClient, ways: Ways) -> None:
    world, account = await make_world(rest)
    streams = named(row.rpc).streams
    response = await rest_call(rest, RestCall(row.verb, filled(row.path, world), (), filled(row.body, world), streams), account.headers)
    assert response.status_code == row.status, response.text
    assert response.headers["content-type"] == (EVENT_STREAM if streams else "application/json")
    shapes = [shape(response.json())]
    for channel in (ways.gateway, ways.services[named(row.rpc).program]):
        # Each call needs a new world, because a call may delete or use up data.
        world, account = await make_world(rest)
        answer = await rpc_call(channel, named(row.rpc), message_of(named(row.rpc), filled(row.message, world)), metadata_of(account))
        assert not isinstance(answer, ApiError), answer
        shapes.append(shape(as_dict(answer)))
    assert shapes[0] == shapes[1] == shapes[2]


@every_row
def test_the_row_says_the_same_over_rest_as_over_grpc(row: Row) -> None:
    """Otherwise the comparison above would compare two different calls."""
    rpc = named(row.rpc)
    call = transcoded(rpc, message_of(rpc, filled(row.message, NOWHERE)))
    url = httpx.URL(filled(row.path, NOWHERE))
    assert call.path == url.path
    query = {name.lower(): value.lower() for name, value in url.params.multi_items()}
    assert {name.lower(): value.lower() for name, value in call.query} == query
    assert (call.body or None) == (filled(row.body, NOWHERE) or None)


@authenticated
async def test_without_a_token_over_rest(rpc: Rpc, rest: httpx.AsyncClient) -> None:
    row = row_of(rpc.name)
    response = await rest.request(row.verb, filled(row.path, NOWHERE), json=filled(row.body, NOWHERE))
    error = of_response(response)
    assert (response.status_code, error.code, error.reason) == (401, 16, "TOKEN_MISSING")
    assert response.headers["www-authenticate"].startswith("Bearer")


@authenticated
@pytest.mark.parametrize("request_bytes", [b"", b"\xff\xff\xff"], ids=["empty", "malformed"])
async def test_without_a_token_over_grpc(rpc: Rpc, request_bytes: bytes, ways: Ways) -> None:
    """Also with a malformed request: a caller without access learns nothing about valid requests (AIP-211)."""
    errors = await ways.by_grpc(rpc, request_bytes, None)
    assert {way: (error.code, error.reason) for way, error in errors.items() if error} == dict.fromkeys(errors, (16, "TOKEN_MISSING"))


@authenticated
async def test_without_a_token_an_invalid_request_over_rest_is_unauthenticated(rpc: Rpc, rest: httpx.AsyncClient) -> None:
    call = RestCall(rpc.verb, VARIABLE.sub("not-an-id", rpc.template), (("no_such_parameter", "1"),), None)
    response = await rest_call(rest, call)
    assert (response.status_code, of_response(response).reason) == (401, "TOKEN_MISSING")


@pytest.mark.parametrize("rpc", [rpc for rpc in for_clients if not rpc.is_authenticated], ids=lambda rpc: rpc.name)
async def test_a_public_method_asks_for_no_token(rpc: Rpc, rest: httpx.AsyncClient, ways: Ways) -> None:
    """It ignores an invalid token, too."""
    row = row_of(rpc.name)
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        world, _ = await make_world(rest)
        message = message_of(rpc, filled(row.message, world))
        response = await rest_call(rest, transcoded(rpc, message), headers)
        assert response.status_code == row.status, response.text
        world, _ = await make_world(rest)
        metadata = tuple(headers.items())
        answer = await rpc_call(ways.services[rpc.program], rpc, message_of(rpc, filled(row.message, world)), metadata)
        assert not isinstance(answer, ApiError), answer


async def test_a_method_that_is_not_there_is_unimplemented(ways: Ways, gateway_channel: grpc.aio.Channel) -> None:
    for channel in (gateway_channel, *ways.services.values()):
        call: Any = channel.unary_unary("/taskmanager.task.v1.TaskService/NoSuchMethod")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", timeout=5)
        # The gateway does not reveal to callers without a token which methods exist.
        expected = grpc.StatusCode.UNAUTHENTICATED if channel is gateway_channel else grpc.StatusCode.UNIMPLEMENTED
        assert raised.value.code() is expected


def shape(value: Any) -> Any:
    """Returns the names and types, without the values. The first item stands for a list."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
