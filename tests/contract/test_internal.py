"""The internal methods: the gateway does not expose them, and the services accept only the service token."""

from collections.abc import Sequence

import grpc
import httpx
import pytest

from devstack.stack import Stack
from tests.contract.conftest import Ways, metadata_of
from tests.contract.insider import secrets_of
from tests.contract.table import INTERNAL, ROWS
from tests.support.accounts import Account
from tests.support.calls import Metadata, message_of, rpc_call
from tests.support.descriptors import Rpc, named, rpcs
from tests.support.errors import ApiError, of_response

internal = [rpc for rpc in rpcs() if rpc.is_internal]
every_internal_rpc = pytest.mark.parametrize("rpc", internal, ids=lambda rpc: rpc.name)

UNAUTHENTICATED, DENIED, UNIMPLEMENTED = (
    code.value[0] for code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)
)
# Paths that a misconfigured gateway could give to a method without an HTTP rule.
GUESSES = ("{path}", "/api/v1{path}", "/api/v1/events", "/api/v1/auth/events")


@pytest.fixture
def service_token(system: Stack) -> Metadata:
    """The metadata with which the services authenticate to each other."""
    return _bearer(secrets_of(system.state).service_token)


def test_every_internal_method_has_a_request_here_and_no_row() -> None:
    assert sorted(INTERNAL) == sorted(rpc.name for rpc in internal)
    assert not set(INTERNAL) & {row.rpc for row in ROWS}


@every_internal_rpc
async def test_the_service_token_opens_it(rpc: Rpc, service_token: Metadata, ways: Ways) -> None:
    for message in ({}, INTERNAL[rpc.name]):
        answer = await rpc_call(ways.services[rpc.program], rpc, message_of(rpc, message), service_token)
        assert not isinstance(answer, ApiError), answer


@every_internal_rpc
@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff"], ids=["good", "malformed"])
async def test_nothing_else_opens_it(rpc: Rpc, data: bytes, service_token: Metadata, account: Account, ways: Ways) -> None:
    """Authorization comes before validation of the request, as in every method (AIP-211)."""
    right = str(service_token[0][1]).removeprefix("Bearer ")
    answers = {
        "none": (await _answer(rpc, data, ways, ())),
        "a user's": await _answer(rpc, data, ways, metadata_of(account)),
        "a user's refresh token": await _answer(rpc, data, ways, _bearer(account.refresh_token)),
        **{f"wrong {i}": await _answer(rpc, data, ways, _bearer(token)) for i, token in enumerate(_nearly(right))},
    }
    missing, denied = (UNAUTHENTICATED, "TOKEN_MISSING"), (DENIED, "ACCESS_DENIED")
    assert answers == {name: missing if name == "none" else denied for name in answers}


@every_internal_rpc
@pytest.mark.parametrize("value", ["{token}", "Basic {token}", "Bearer {token} {token}"])
async def test_the_token_in_another_form_does_not(rpc: Rpc, value: str, service_token: Metadata, ways: Ways) -> None:
    right = str(service_token[0][1]).removeprefix("Bearer ")
    assert await _answer(rpc, b"", ways, (("authorization", value.format(token=right)),)) == (UNAUTHENTICATED, "TOKEN_INVALID")


@every_internal_rpc
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0b" * 200], ids=["tag", "cut-off", "deep"])
async def test_bytes_that_are_no_message(rpc: Rpc, data: bytes, service_token: Metadata, ways: Ways) -> None:
    error = await rpc_call(ways.services[rpc.program], rpc, data, service_token)
    assert isinstance(error, ApiError)
    assert error.reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"after": "-1"}, "after"),
        ({"max_age": "-1s"}, "max_age"),
        ({"max_age": "315360001s"}, "max_age"),
        ({"max_age": "315576000000s"}, "max_age"),
        ({"kind": 99}, "kind"),
        ({"kind": -1}, "kind"),
    ],
)
async def test_the_bounds_hold_for_services_too(message: dict[str, str], field: str, service_token: Metadata, ways: Ways) -> None:
    rpc = named("EventService.ListEvents")
    error = await rpc_call(ways.services["auth"], rpc, message_of(rpc, message), service_token)
    assert isinstance(error, ApiError)
    assert (error.reason, list(error.fields)) == ("INVALID_FIELD", [field])


async def test_at_its_bounds_a_request_is_answered(service_token: Metadata, ways: Ways) -> None:
    rpc = named("EventService.ListEvents")
    for message in ({"after": str(2**63 - 1)}, {"max_age": "0s"}, {"max_age": "315360000s"}):
        answer = await rpc_call(ways.services["auth"], rpc, message_of(rpc, message), service_token)
        assert not isinstance(answer, ApiError), answer


# The gateway does not route internal methods, whatever the token.


@every_internal_rpc
async def test_over_grpc_the_gateway_knows_no_such_method(rpc: Rpc, service_token: Metadata, account: Account, ways: Ways) -> None:
    request = message_of(rpc, INTERNAL[rpc.name])
    codes = {}
    for name, metadata in {"user": metadata_of(account), "service": service_token, "none": ()}.items():
        error = await rpc_call(ways.gateway, rpc, request, metadata)
        assert isinstance(error, ApiError), f"reached with {name}"
        codes[name] = error.code
    assert codes == {"user": UNIMPLEMENTED, "service": UNAUTHENTICATED, "none": UNAUTHENTICATED}


@every_internal_rpc
@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("content_type", ["application/json", "application/grpc", "application/grpc-web", "application/grpc-web+proto"])
async def test_over_http_neither(rpc: Rpc, verb: str, content_type: str, service_token: Metadata, account: Account, rest: httpx.AsyncClient) -> None:
    content = b"{}" if content_type == "application/json" else b"\0\0\0\0\0"
    authorizations = [({}, 401), ({"authorization": str(service_token[0][1])}, 401), (account.headers, 404)]
    for path in GUESSES:
        for headers, status in authorizations:
            where = path.format(path=rpc.path)
            response = await rest.request(verb, where, content=content, headers={**headers, "content-type": content_type})
            if content_type == "application/json":
                assert (response.status_code, of_response(response).code) == (status, {401: UNAUTHENTICATED, 404: 5}[status]), where
            else:
                # gRPC reports its status in a header of an HTTP 200 answer.
                expected = {401: UNAUTHENTICATED, 404: UNIMPLEMENTED}[status]
                assert int(response.headers["grpc-status"]) == expected, where


async def _answer(rpc: Rpc, data: bytes, ways: Ways, metadata: Metadata) -> tuple[int, str]:
    error = await rpc_call(ways.services[rpc.program], rpc, data, metadata)
    assert isinstance(error, ApiError), f"open to {metadata}"
    return error.code, error.reason


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def _nearly(token: str) -> Sequence[str]:
    """Returns texts that are similar to the token."""
    return ("x", token[:-1], token + "x", token.swapcase(), token[::-1], f"{token},{token}", token[:-1] + chr(ord(token[-1]) ^ 1))
