"""Forged and malformed access tokens: each service rejects them when called directly and through the gateway, always with the same answer."""

from collections.abc import Callable, Sequence

import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from tests.contract.conftest import Ways
from tests.contract.forgery import GOOD_SCHEMES, GOOD_TOKENS, ODD_TOKENS, SCHEMES, TOKENS, Forge
from tests.support import rawhttp
from tests.support.calls import Metadata, rpc_call
from tests.support.descriptors import named
from tests.support.errors import ApiError, of_response
from tests.support.tiers import sampled

GET_ME, LIST_TASKS = named("UserService.GetMe"), named("TaskService.ListTasks")
PATHS = {GET_ME.template: GET_ME, LIST_TASKS.template: LIST_TASKS}
UNAUTHENTICATED = 16


# In `make test`, test_the_refusal_tells_nothing_of_why sends every one of these tokens to the gateway.
@pytest.mark.parametrize("make", sampled(TOKENS.values(), every=3, ids=TOKENS))
async def test_a_bad_token_is_refused(make: Callable[[Forge], str], forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:
    value = f"Bearer {make(forge)}"
    await _refused_over_rest(rest, [("authorization", value)])
    await _refused_over_grpc(ways, (("authorization", value),), "TOKEN_INVALID")


@pytest.mark.parametrize("make", SCHEMES.values(), ids=SCHEMES)
async def test_a_header_of_another_form_is_refused(make: Callable[[Forge], str], forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:
    value = make(forge)
    await _refused_over_rest(rest, [("authorization", value)])
    await _refused_over_grpc(ways, (("authorization", value),), "TOKEN_INVALID")


@pytest.mark.parametrize("good_first", [True, False], ids=["good-first", "bad-first"])
async def test_two_headers_are_refused(good_first: bool, forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:  # noqa: FBT001
    """The gateway and the service may each read a different one of the headers (RFC 9110 §5.3: the header is not a list)."""
    pair = [("authorization", f"Bearer {forge.good()}"), ("authorization", "Bearer nonsense")]
    headers = pair if good_first else pair[::-1]
    await _refused_over_rest(rest, headers)
    await _refused_over_grpc(ways, tuple(headers), "TOKEN_INVALID")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "")],
        [("cookie", "access_token={token}; authorization=Bearer {token}")],
        [("x-forwarded-authorization", "Bearer {token}")],
        [("x-jwt-payload", "{token}"), ("x-user-id", "0190b5a0-0000-7000-8000-000000000001")],
        [("proxy-authorization", "Bearer {token}")],
    ],
    ids=["none", "empty", "cookie", "forwarded", "claims", "proxy"],
)
async def test_a_token_that_stands_elsewhere_is_none(headers: list[tuple[str, str]], forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:
    filled = [(name, value.format(token=forge.good())) for name, value in headers]
    await _refused_over_rest(rest, filled)
    await _refused_over_grpc(ways, tuple(filled), "TOKEN_MISSING")


@pytest.mark.parametrize("parameter", ["access_token", "token", "authorization"])
async def test_a_token_in_the_query_is_none(parameter: str, forge: Forge, rest: httpx.AsyncClient) -> None:
    """A token in the query would appear in the logs of every hop (RFC 9700 §4.3.2)."""
    for path in PATHS:
        response = await rest.get(f"{path}?{parameter}={forge.good()}")
        assert (response.status_code, of_response(response).reason) == (401, "TOKEN_MISSING")


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (b"authorization: Bearer \xff\xfe\xfd", {401}),
        ("authorization: Bearer ü".encode(), {401}),
        (b"authorization: Bearer\ttoken", {401}),
        (b"authorization:Bearer nonsense", {401}),
        # Invalid HTTP, which Envoy rejects before any filter runs.
        (b"authorization: Bearer a\x00b", {400, 401}),
        (b"authorization : Bearer nonsense", {400, 401}),
        (b"authorization: Bearer a\r b", {400, 401}),
    ],
    ids=["bytes", "non-ascii", "tab", "no-space", "nul", "space-before-colon", "carriage-return"],
)
async def test_bytes_that_clients_do_not_send(line: bytes, statuses: set[int], system: Stack) -> None:
    for path in PATHS:
        response = await rawhttp.send(system.state.url, rawhttp.RawRequest(b"GET", path.encode(), (line,)))
        assert response.status_code in statuses, response.text
        of_response(response)


@pytest.mark.parametrize("make", GOOD_TOKENS.values(), ids=GOOD_TOKENS)
async def test_a_good_token_is_accepted(make: Callable[[Forge], str], forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:
    """Otherwise the rejections above would prove nothing. Also, the gateway rejects no token that a service accepts."""
    await _accepted(lambda: f"Bearer {make(forge)}", rest, ways)


@pytest.mark.parametrize("make", ODD_TOKENS.values(), ids=ODD_TOKENS)
async def test_an_odd_token_does_not_get_through(make: Callable[[Forge], str], forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:
    """The gateway or the service rejects ambiguous tokens."""
    value = f"Bearer {make(forge)}"
    await _refused_over_rest(rest, [("authorization", value)])
    for rpc in PATHS.values():
        error = await rpc_call(ways.gateway, rpc, b"", (("authorization", value),))
        assert isinstance(error, ApiError)
        assert (error.code, error.reason) == (UNAUTHENTICATED, "TOKEN_INVALID")
        direct = await rpc_call(ways.services[rpc.program], rpc, b"", (("authorization", value),))
        assert isinstance(direct, ApiError)
        assert (direct.code, direct.reason) == (UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize("scheme", GOOD_SCHEMES)
async def test_the_case_of_the_scheme_is_free_and_blanks_do_not_matter(scheme: str, forge: Forge, rest: httpx.AsyncClient, ways: Ways) -> None:
    await _accepted(lambda: f"{scheme}{forge.good()}", rest, ways)
    await _accepted(lambda: f"{scheme}{forge.good()} ", rest, ways)


@pytest.mark.parametrize("value", ["", " ", "  "], ids=["empty", "one", "two"])
async def test_an_empty_header_is_a_missing_token(value: str, rest: httpx.AsyncClient, ways: Ways) -> None:
    for path, rpc in PATHS.items():
        error = of_response(await rest.get(path, headers={"authorization": value.strip()}))
        assert (error.code, error.reason) == (UNAUTHENTICATED, "TOKEN_MISSING")
        for channel in (ways.gateway, ways.services[rpc.program]):
            found = await rpc_call(channel, rpc, b"", (("authorization", value),))
            assert isinstance(found, ApiError)
            assert (found.code, found.reason) == (UNAUTHENTICATED, "TOKEN_MISSING")


@pytest.mark.parametrize("first", [True, False])
async def test_an_empty_second_header_is_none(first: bool, forge: Forge, ways: Ways) -> None:  # noqa: FBT001
    """The gateway drops it, so a service that is called directly ignores it too."""
    for rpc in PATHS.values():
        pair = (("authorization", f"Bearer {forge.good()}"), ("authorization", ""))
        for channel in (ways.gateway, ways.services[rpc.program]):
            assert not isinstance(await rpc_call(channel, rpc, b"", pair if first else pair[::-1]), ApiError)


@pytest.mark.parametrize("name", ["wrong-key", "typ-jwt"], ids=["refused-by-the-gateway", "refused-by-the-service"])
async def test_the_refusal_has_a_challenge(name: str, forge: Forge, rest: httpx.AsyncClient) -> None:
    """RFC 9110 §15.5.2, RFC 6750 §3: from the gateway and from the service."""
    response = await rest.get(LIST_TASKS.template, headers={"authorization": f"Bearer {TOKENS[name](forge)}"})
    assert response.status_code == 401
    assert response.headers.get("www-authenticate", "").startswith("Bearer ")


async def test_the_refusal_tells_nothing_of_why(forge: Forge, rest: httpx.AsyncClient) -> None:
    """The gateway and the services give the same answer for every invalid token."""
    bodies = set()
    for make in TOKENS.values():
        response = await rest.get(LIST_TASKS.template, headers={"authorization": f"Bearer {make(forge)}"})
        if response.status_code != httpx.codes.UNAUTHORIZED:
            continue  # the test of that token reports it
        error = of_response(response)
        bodies.add((error.code, error.reason))
        assert "exp" not in error.message.split()
        assert forge.claims["sub"] not in error.message
    assert bodies == {(UNAUTHENTICATED, "TOKEN_INVALID")}


async def _accepted(authorization: Callable[[], str], rest: httpx.AsyncClient, ways: Ways) -> None:
    """Every way accepts the token. Each call gets a new token, because some are valid for only a few seconds."""
    for path, rpc in PATHS.items():
        for way, channel in {"direct": ways.services[rpc.program], "gateway": ways.gateway}.items():
            answer = await rpc_call(channel, rpc, b"", (("authorization", authorization()),))
            assert not isinstance(answer, ApiError), f"{way}: {answer}"
        # An HTTP/1.1 client does not send blanks around a value.
        response = await rest.get(path, headers={"authorization": authorization().strip()})
        assert response.status_code == httpx.codes.OK, response.text


async def _refused_over_rest(rest: httpx.AsyncClient, headers: Sequence[tuple[str, str]]) -> None:
    for path in PATHS:
        response = await rest.get(path, headers=list(headers))
        error = of_response(response)
        assert (response.status_code, error.code) == (401, UNAUTHENTICATED), response.text
        assert error.reason in {"TOKEN_INVALID", "TOKEN_MISSING"}


async def _refused_over_grpc(ways: Ways, metadata: Metadata, reason: str) -> None:
    for rpc in PATHS.values():
        channels: dict[str, grpc.aio.Channel] = {"gateway": ways.gateway, rpc.program: ways.services[rpc.program]}
        for way, channel in channels.items():
            error = await rpc_call(channel, rpc, b"", metadata)
            assert isinstance(error, ApiError), f"accepted by {way}"
            assert error.code == UNAUTHENTICATED, f"{way}: {error}"
            if way != "gateway":
                assert error.reason == reason, f"{way}: {error}"
