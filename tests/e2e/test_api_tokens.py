"""API tokens end to end: nothing accepts one after its deletion or expiry, streams end, and outages stop no session."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import grpc.aio
import httpx
import pytest

from auth_service.api_tokens.tokens import new_api_token
from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.e2e.conftest import ENVIRONMENT, REFUSED_AT_LAST_SECONDS, REFUSED_WITHIN_SECONDS
from tests.support.accounts import PASSWORD, Account, make_account, make_api_token
from tests.support.calls import message_of, rpc_call
from tests.support.clients import rest_of
from tests.support.descriptors import named
from tests.support.errors import ApiError, of_response
from tests.support.waiting import eventually
from tests.support.watchers import OVER, Watcher, over_grpc, over_sse

OUTAGE = pytest.mark.alone("breaks a running system, and measures how long replicas accept an API token that was deleted")
LIST_TASKS = named("TaskService.ListTasks")
TASKS, TOKENS = "/api/v1/tasks", "/api/v1/auth/tokens"
# How long the gateway keeps an access token (gateway/api_tokens.lua).
KEPT_SECONDS = 5
REPLICAS = ("task-1", "task-2", "auth-1", "auth-2")

# Ends an account's API token.
End: TypeAlias = Callable[[httpx.AsyncClient, Account, str], Awaitable[httpx.Response]]


async def delete(client: httpx.AsyncClient, account: Account, token_id: str) -> httpx.Response:
    return await client.delete(f"{TOKENS}/{token_id}", headers=account.headers)


async def change_password(client: httpx.AsyncClient, account: Account, _: str) -> httpx.Response:
    body = {"current_password": PASSWORD, "new_password": "another horse battery", "revoke_api_tokens": True}
    return await client.post("/api/v1/auth/password", json=body, headers=account.headers)


async def delete_account(client: httpx.AsyncClient, account: Account, _: str) -> httpx.Response:
    return await client.post("/api/v1/users/me:delete", json={"password": PASSWORD}, headers=account.headers)


every_end = pytest.mark.parametrize("end", [delete, change_password, delete_account], ids=["deleted", "password", "account"])


@pytest.fixture
async def channels(stack: Stack) -> AsyncIterator[Mapping[str, grpc.aio.Channel]]:
    """gRPC to the gateway, and directly to each replica."""
    async with contextlib.AsyncExitStack() as exits:
        addresses = {name: f"{HOST}:{stack.state.processes[name].grpc_port}" for name in REPLICAS}
        addresses["gateway"] = stack.state.url.removeprefix("http://")
        yield {name: await exits.enter_async_context(grpc.aio.insecure_channel(address)) for name, address in addresses.items()}


async def exchanged(channels: Mapping[str, grpc.aio.Channel], token: str, replica: str) -> str | ApiError:
    """Exchanges the token at one replica of auth_service. Returns the access token, or the error."""
    rpc = named("ExchangeApiToken")
    answer = await rpc_call(channels[replica], rpc, message_of(rpc, {"api_token": token}))
    return answer if isinstance(answer, ApiError) else str(getattr(answer, "access_token"))  # noqa: B009 - a message of any type


async def refusals(client: httpx.AsyncClient, channels: Mapping[str, grpc.aio.Channel], token: str, kept: str) -> dict[str, bool]:
    """Returns for each way whether it refuses: the API token at the gateway and at each auth_service, its access token at each task_service."""
    found = {"gateway": (await client.get(TASKS, headers={"authorization": f"Bearer {token}"})).status_code == httpx.codes.UNAUTHORIZED}
    for name in REPLICAS:
        if name.startswith("auth"):
            found[name] = isinstance(await exchanged(channels, token, name), ApiError)
        else:
            answer = await rpc_call(channels[name], LIST_TASKS, b"", (("authorization", f"Bearer {kept}"),))
            found[name] = isinstance(answer, ApiError) and answer.reason == "TOKEN_INVALID"
    return found


async def _ends_everywhere(end: End, within: float, client: httpx.AsyncClient, channels: Mapping[str, grpc.aio.Channel]) -> None:
    account = await make_account(client)
    token_id, token = await make_api_token(client, account, "tasks:write")
    kept, _ = [await exchanged(channels, token, name) for name in ("auth-1", "auth-2")]
    assert isinstance(kept, str)
    assert await refusals(client, channels, token, kept) == dict.fromkeys(("gateway", *REPLICAS), False)
    caller = replace(account, access_token=token)
    async with contextlib.AsyncExitStack() as watching:
        ways = {"SSE": over_sse(client), "gRPC": over_grpc(channels["gateway"])}
        watchers = {name: await watching.enter_async_context(Watcher(way, caller)) for name, way in ways.items()}
        direct = await watching.enter_async_context(Watcher(over_grpc(channels["task-2"]), replace(account, access_token=kept)))
        began = time.monotonic()
        answer = await end(client, account, token_id)
        assert answer.is_success, answer.text
        while not all((await refusals(client, channels, token, kept)).values()):
            assert time.monotonic() - began < within
            await asyncio.sleep(0.02)
        ends = {name: await watcher.ended() for name, watcher in {**watchers, "direct": direct}.items()}
        assert time.monotonic() - began < within
    assert {name: (OVER if name == "SSE" else "UNAUTHENTICATED") for name in ends} == {name: end.code for name, end in ends.items()}


@every_end
async def test_a_token_that_was_ended_is_refused_everywhere_and_its_streams_end(
    end: End, client: httpx.AsyncClient, channels: Mapping[str, grpc.aio.Channel]
) -> None:
    await _ends_everywhere(end, REFUSED_AT_LAST_SECONDS, client, channels)


@OUTAGE
@every_end
async def test_it_is_refused_within_two_seconds(end: End, client: httpx.AsyncClient, channels: Mapping[str, grpc.aio.Channel]) -> None:
    await _ends_everywhere(end, REFUSED_WITHIN_SECONDS, client, channels)


@OUTAGE
async def test_it_is_refused_within_two_seconds_while_redis_is_down(
    stack: Stack, client: httpx.AsyncClient, channels: Mapping[str, grpc.aio.Channel]
) -> None:
    await stack.stop_process("valkey")
    await _ends_everywhere(delete, REFUSED_WITHIN_SECONDS, client, channels)


async def test_an_expired_token_is_refused_everywhere_and_its_streams_end(
    client: httpx.AsyncClient, channels: Mapping[str, grpc.aio.Channel]
) -> None:
    account = await make_account(client)
    expires_at = datetime.now(UTC) + timedelta(seconds=5)
    _, token = await make_api_token(client, account, "tasks:read", expires_at=expires_at.isoformat())
    kept = await exchanged(channels, token, "auth-1")
    assert isinstance(kept, str)
    async with Watcher(over_grpc(channels["gateway"]), replace(account, access_token=token)) as watcher:
        assert (await watcher.ended()).reason == "TOKEN_INVALID"
    assert expires_at - timedelta(seconds=1.5) < datetime.now(UTC) < expires_at + timedelta(seconds=2)

    async def all_refuse() -> None:
        assert set((await refusals(client, channels, token, kept)).values()) == {True}

    await eventually(all_refuse, within=2)
    assert (await client.get(TOKENS, headers=account.headers)).json() == {"api_tokens": []}


async def test_a_new_password_or_a_logout_keeps_the_token(client: httpx.AsyncClient) -> None:
    account = await make_account(client)
    _, token = await make_api_token(client, account, "tasks:read")
    body = {"current_password": PASSWORD, "new_password": "another horse battery"}
    assert (await client.post("/api/v1/auth/password", json=body, headers=account.headers)).is_success
    assert (await client.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})).is_success
    await asyncio.sleep(REFUSED_WITHIN_SECONDS)
    assert (await client.get(TASKS, headers={"authorization": f"Bearer {token}"})).status_code == httpx.codes.OK


@OUTAGE
async def test_without_auth_service_only_calls_with_api_tokens_fail(stack: Stack, client: httpx.AsyncClient) -> None:
    account = await make_account(client)
    # Each is exchanged once, because the gateway keeps its access token then.
    tokens = [(await make_api_token(client, account, "tasks:read"))[1] for _ in range(20)]
    await stack.kill("auth-1")
    # The gateway retries at the other replica.
    answers = [await client.get(TASKS, headers={"authorization": f"Bearer {token}"}) for token in tokens]
    assert [answer.status_code for answer in answers] == [httpx.codes.OK] * 20
    await stack.kill("auth-2")
    assert (await client.get(TASKS, headers=account.headers)).status_code == httpx.codes.OK

    async def refused() -> None:
        answer = await client.get(TASKS, headers={"authorization": f"Bearer {tokens[0]}"})
        assert (answer.status_code, of_response(answer).reason) == (503, "DEPENDENCY_UNAVAILABLE")

    await eventually(refused, within=KEPT_SECONDS + 2)
    assert (await client.get(TASKS, headers=account.headers)).status_code == httpx.codes.OK


@pytest.fixture
async def strict() -> AsyncIterator[httpx.AsyncClient]:
    """A system that allows two unknown API tokens, then one in a minute."""
    few = {"API_TOKEN_ADDRESS_BURST": "2", "API_TOKEN_ADDRESS_INTERVAL_SECONDS": "60"}
    async with Stack(StackConfig(environment=ENVIRONMENT | few)) as stack, rest_of(stack) as client:
        yield client


async def test_guesses_are_limited_and_a_script_with_a_deleted_token_is_not(strict: httpx.AsyncClient) -> None:
    account = await make_account(strict)
    token_id, deleted = await make_api_token(strict, account, "tasks:read")
    _, used = await make_api_token(strict, account, "tasks:read")
    assert (await strict.get(TASKS, headers={"authorization": f"Bearer {used}"})).is_success
    assert (await delete(strict, account, token_id)).is_success
    statuses = [(await strict.get(TASKS, headers={"authorization": f"Bearer {deleted}"})).status_code for _ in range(10)]
    assert statuses == [httpx.codes.UNAUTHORIZED] * 10
    statuses = [(await strict.get(TASKS, headers={"authorization": f"Bearer {new_api_token()}"})).status_code for _ in range(3)]
    assert statuses == [401, 429, 429]
    limited = await strict.get(TASKS, headers={"authorization": f"Bearer {new_api_token()}"})
    assert (limited.headers["retry-after"], of_response(limited).reason) == ("10", "TOO_MANY_ATTEMPTS")
    # What is in use goes on, and a login has a limit of its own.
    assert (await strict.get(TASKS, headers={"authorization": f"Bearer {used}"})).is_success
    assert (await strict.post("/api/v1/auth/login", json={"email": account.email, "password": PASSWORD})).is_success
