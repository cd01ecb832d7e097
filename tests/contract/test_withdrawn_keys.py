"""Tokens of a key that no longer signs: valid while the key is published, and rejected everywhere after the key is withdrawn."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Sequence

import grpc.aio
import jwt
import pytest

from devstack.config import HOST, PROJECT_ROOT, StackConfig
from devstack.stack import Stack
from tests.contract.conftest import Ways
from tests.contract.forgery import forge_of
from tests.contract.insider import secrets_of
from tests.support.accounts import Account, log_in, make_account
from tests.support.calls import rpc_call
from tests.support.clients import channel_of, rest_of
from tests.support.databases import login
from tests.support.descriptors import named
from tests.support.errors import ApiError, of_response
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow("it starts a system of its own, and waits for the lead time of keys")

LEAD_SECONDS = 2
# During that time the replica reads the keys several times. The gateway fetches them every second.
ENVIRONMENT = {"BCRYPT_COST": "4", "LOG_LEVEL": "INFO", "KEY_LEAD_SECONDS": str(LEAD_SECONDS), "JWKS_REFRESH_SECONDS": "1"}
WITHIN_SECONDS = 15.0
METHODS = (named("UserService.GetMe"), named("TaskService.ListTasks"))


@pytest.fixture(scope="module")
async def rotating() -> AsyncIterator[Stack]:
    """A separate system, so that withdrawn keys do not affect other tests."""
    async with Stack(StackConfig(environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture(scope="module")
async def its_ways(rotating: Stack) -> AsyncIterator[Ways]:
    """All ways into the separate system."""
    addresses = [f"{HOST}:{rotating.state.processes[name].grpc_port}" for name in ("auth-1", "task-1")]
    async with (
        rest_of(rotating) as rest,
        channel_of(rotating) as gateway,
        grpc.aio.insecure_channel(addresses[0]) as auth,
        grpc.aio.insecure_channel(addresses[1]) as task,
    ):
        yield Ways(rest, gateway, {"auth": auth, "task": task})


async def test_a_token_is_as_good_as_its_key_is_published(rotating: Stack, its_ways: Ways) -> None:
    first = await make_account(its_ways.rest)
    forge = await forge_of(rotating.state, first)
    await _keys(rotating, "rotate")
    second = await eventually(lambda: _of_another_key(its_ways, first, [first]), within=WITHIN_SECONDS)
    # The old key is retired: it no longer signs, but its tokens are still valid.
    for account in (first, second):
        await _require(its_ways, account.access_token, "OK")

    await _keys(rotating, "replace")
    third = await eventually(lambda: _of_another_key(its_ways, first, [first, second]), within=WITHIN_SECONDS)
    await eventually(lambda: _require(its_ways, third.access_token, "OK"), within=WITHIN_SECONDS)
    # Also a token that no service has seen before.
    for token in (first.access_token, second.access_token, forge.signed(claims={"jti": "unseen"})):
        await eventually(lambda token=token: _require(its_ways, token, "TOKEN_INVALID"), within=WITHIN_SECONDS)  # type: ignore[misc]


async def _of_another_key(ways: Ways, account: Account, others: Sequence[Account]) -> Account:
    """Logs in. Fails unless a new key has signed the token."""
    new = await log_in(ways.rest, account)
    assert _kid(new) not in {_kid(other) for other in others}
    return new


async def _require(ways: Ways, token: str, expected: str) -> None:
    """Fails unless every way gives the expected answer, including direct calls to the services."""
    answers = {}
    for rpc in METHODS:
        for way, channel in {"gateway": ways.gateway, "direct": ways.services[rpc.program]}.items():
            answer = await rpc_call(channel, rpc, b"", (("authorization", f"Bearer {token}"),))
            answers[rpc.program, way] = answer.reason if isinstance(answer, ApiError) else "OK"
        response = await ways.rest.get(rpc.template, headers={"authorization": f"Bearer {token}"})
        answers[rpc.program, "rest"] = "OK" if response.is_success else of_response(response).reason
    assert answers == dict.fromkeys(answers, expected)


def _kid(account: Account) -> str:
    return str(jwt.get_unverified_header(account.access_token)["kid"])


async def _keys(stack: Stack, action: str) -> None:
    """Runs `python -m auth_service keys ACTION`."""
    own = {"DATABASE_URL": login(stack.state, "auth_service"), "KEY_ENCRYPTION_KEY": secrets_of(stack.state).key_encryption_key}
    command = (sys.executable, "-m", "auth_service", "keys", action)
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT_ROOT, env={**os.environ, **ENVIRONMENT, **own}, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
