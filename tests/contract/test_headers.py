"""Headers with bytes that the services cannot read: the client learns which one it was, and no log contains a value."""

import secrets as randomness
from pathlib import Path

import pytest

from devstack.stack import Stack
from tests.contract.table import World
from tests.support import rawhttp
from tests.support.accounts import Account
from tests.support.canary import Secrets
from tests.support.errors import of_response

NAMES = ("x-foo", "idempotency-key", "if-match", "traceparent", "tracestate", "baggage", "accept-encoding", "x-forwarded-for")
# Latin-1, UTF-8, and a byte that occurs in neither text.
TAILS = (b"\xe9", b"\xc3\xa9", b"\xff")
# For these, the gateway's own log or another rule is the place: it removes cookies, cleans request ids and logs user agents.
IGNORED = ("cookie", "x-trace-bin", "grpc-encoding", "x-request-id")


def _planted(secrets: Secrets) -> bytes:
    value = randomness.token_urlsafe(24)
    secrets.add("header", value)
    return value.encode()


async def _send(system: Stack, account: Account, name: str, value: bytes, *, public: bool) -> tuple[int, str, list[str]]:
    verb, path, body = (b"POST", b"/api/v1/auth/logout", b'{"refresh_token": "unknown"}') if public else (b"GET", b"/api/v1/users/me", b"")
    head = () if public else (f"authorization: Bearer {account.access_token}".encode(),)
    response = await rawhttp.send(system.state.url, rawhttp.RawRequest(verb, path, (*head, name.encode() + b": " + value), body))
    if response.is_success:
        return response.status_code, "", []
    error = of_response(response)
    return response.status_code, error.reason, list(error.fields)


def _logs(system: Stack) -> bytes:
    return b"".join(Path(process.log).read_bytes() for process in system.state.processes.values())


@pytest.mark.parametrize("public", [True, False], ids=["public", "authenticated"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_header_that_is_not_ascii_is_refused_by_name(
    name: str, shared: tuple[World, Account], system: Stack, secrets: Secrets, *, public: bool
) -> None:
    for tail in TAILS:
        planted = _planted(secrets)
        assert await _send(system, shared[1], name, planted + tail, public=public) == (400, "INVALID_FIELD", [name])
        assert planted not in _logs(system)


@pytest.mark.parametrize("name", IGNORED)
async def test_a_header_that_no_service_reads_does_no_harm(name: str, shared: tuple[World, Account], system: Stack) -> None:
    for tail in (*TAILS, b"!!"):
        assert await _send(system, shared[1], name, b"planted" + tail, public=False) == (200, "", [])


@pytest.mark.parametrize("name", ["authorization", "x-foo"])
async def test_a_token_beside_a_bad_byte_is_not_logged(name: str, shared: tuple[World, Account], system: Stack) -> None:
    token = shared[1].access_token.encode()
    await _send(system, shared[1], name, b"Bearer " + token + b"\xff", public=True)
    assert token not in _logs(system)


async def test_the_ops_port_logs_no_part_of_a_request_that_it_cannot_parse(system: Stack, secrets: Secrets) -> None:
    for name, process in system.state.processes.items():
        if not name.startswith(("auth", "task")):
            continue
        for line in (b"x-a: %s\x01", b"bad header %s: x", b"content-length: %s"):
            planted = _planted(secrets)
            request = rawhttp.RawRequest(b"GET", b"/metrics", (line % planted,))
            response = await rawhttp.send(f"http://127.0.0.1:{process.ops_port}", request)
            assert response.status_code == 400
            assert planted not in _logs(system)
