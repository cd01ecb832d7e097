"""A journey through the API that uses every kind of secret, right and wrong, on a system that exports its spans."""

import contextlib
import secrets as randomness
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from auth_service.api_tokens.tokens import new_api_token
from devstack.config import StackConfig
from devstack.stack import Stack
from tests.conftest import ENVIRONMENT
from tests.support.accounts import PASSWORD, make_account
from tests.support.canary import Secrets
from tests.support.otlp import Receiver, receiver
from tests.support.waiting import eventually

# Envoy exports its spans every five seconds.
SENT_WITHIN_SECONDS = 10.0
CHANGED, WRONG = "a password that is new", "a password that is wrong"
RPCS = ("Register", "Login", "RefreshToken", "ChangePassword", "Logout", "ListSessions", "DeleteMe", "CreateApiToken", "ExchangeApiToken")
WEBHOOK_RPCS = ("CreateWebhook", "RotateWebhookSecret", "TestWebhook")


@dataclass(frozen=True, slots=True)
class Journey:
    """A system whose API was called, with the spans that it exported and the secrets that were used."""

    stack: Stack
    received: Receiver
    secrets: Secrets


@contextlib.asynccontextmanager
async def journeyed() -> AsyncIterator[Journey]:
    """Yields a system after the journey, when it has exported all its spans."""
    secrets = Secrets()
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [secrets.listen]}
    async with receiver() as (received, endpoint):
        environment = {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with Stack(StackConfig(environment=environment)) as stack:
            async with httpx.AsyncClient(base_url=stack.state.url, timeout=20, event_hooks=hooks) as rest:
                ids = await _travel(rest, secrets)
            await eventually(lambda: _all_sent(received, ids), within=SENT_WITHIN_SECONDS)
            await secrets.learn(stack)
            yield Journey(stack, received, secrets)


async def _travel(rest: httpx.AsyncClient, secrets: Secrets) -> list[str]:
    """Uses an account from its registration to its deletion; most steps first send wrong values. Returns the request ids."""
    ids: list[str] = []

    async def call(verb: str, path: str, status: int, body: object = None, token: str = "") -> Any:
        ids.append(str(uuid4()))
        headers = {"x-request-id": ids[-1], **({"authorization": f"Bearer {token}"} if token else {})}
        response = await rest.request(verb, f"/api/v1/{path}", json=body, headers=headers)
        assert response.status_code == status, (path, response.text)
        return response.json()

    other = await make_account(rest)
    wrong_refresh, (head, payload, _) = randomness.token_urlsafe(32), other.access_token.split(".")
    wrong_access = f"{head}.{payload}.{randomness.token_urlsafe(64)}"
    wrong_api_token = new_api_token()
    secrets.add("refresh token", wrong_refresh)
    secrets.add("API token", wrong_api_token)
    secrets.add_access_token(wrong_access)
    who = {"email": f"{uuid4().hex}@example.com"}

    await call("POST", "auth/register", 400, {**who, "password": WRONG, "name": ""})
    await call("POST", "auth/register", 201, {**who, "password": PASSWORD, "name": "Ada"})
    await call("POST", "auth/register", 409, {**who, "password": PASSWORD, "name": "Ada"})
    await call("POST", "auth/login", 401, {**who, "password": WRONG})
    await call("POST", "auth/login", 400, {**who, "password": [WRONG]})
    await call("POST", "auth/login", 400, {**who, "password": WRONG, "email": {WRONG: WRONG}})
    tokens = await call("POST", "auth/login", 200, {**who, "password": PASSWORD})
    await call("POST", "auth/refresh", 401, {"refresh_token": wrong_refresh})
    await call("POST", "auth/refresh", 400, {"refresh_token": wrong_refresh * 20})
    tokens = await call("POST", "auth/refresh", 200, {"refresh_token": tokens["refresh_token"]})
    access = tokens["access_token"]
    await call("GET", "auth/sessions", 401, token=wrong_access)
    await call("GET", "auth/sessions", 200, token=access)
    await call("GET", f"auth/sessions?refresh_token={tokens['refresh_token']}", 400, token=access)
    await call("GET", "tasks", 401, token=wrong_access)
    await call("GET", f"tasks?access_token={access}", 401)
    await call("POST", "tasks", 201, {"title": "a task", "due_date": None}, access)
    await call("POST", "tasks", 400, {"title": "", "description": "none"}, access)
    await call("GET", "tasks?filter=title:a", 200, token=access)
    await call("POST", "auth/exchange", 401, {"api_token": wrong_api_token})
    await call("POST", "auth/exchange", 401, {"api_token": wrong_api_token[:-1]})
    await call("POST", "auth/exchange", 400, {"api_token": wrong_api_token * 20})
    await call("POST", "auth/tokens", 400, {"name": "A script", "scopes": [wrong_api_token]}, access)
    api_token = (await call("POST", "auth/tokens", 201, {"name": "A script", "scopes": ["tasks:read"]}, access))["token"]
    await call("POST", "auth/exchange", 200, {"api_token": api_token})
    await call("GET", "auth/tokens", 200, token=access)
    await call("GET", "tasks", 200, token=api_token)
    await call("POST", "tasks", 403, {"title": "a task"}, api_token)
    for bad in (wrong_api_token, api_token[:-1], f"{api_token},{api_token}"):
        await call("GET", "tasks", 401, token=bad)
    hook = {"url": "http://127.0.0.1:9/hook"}
    created = await call("POST", "webhooks", 201, hook, access)
    path = f"webhooks/{created['webhook']['id']}"
    rotated = await call("POST", f"{path}:rotateSecret", 200, {}, access)
    for secret in (created["secret"], rotated["secret"]):
        await call("PATCH", path, 400, {"url": secret}, access)
        await call("PATCH", path, 400, {"url": f"http://{quote(secret, safe='')}@127.0.0.1"}, access)
        await call("PATCH", path, 400, {"event_types": [secret]}, access)
        await call("GET", f"webhooks?secret={quote(secret)}", 400, token=access)
    await call("POST", f"{path}:test", 200, {}, access)
    await call("POST", "tasks", 201, {"title": "a task for the webhook"}, access)
    await call("GET", f"{path}/deliveries", 200, token=access)
    await call("GET", "webhooks", 403, token=api_token)
    await call("POST", "auth/password", 403, {"current_password": WRONG, "new_password": CHANGED}, access)
    await call("POST", "auth/password", 200, {"current_password": PASSWORD, "new_password": CHANGED}, access)
    await call("POST", "auth/logout", 200, {"refresh_token": wrong_refresh})
    await call("POST", "auth/logout", 200, {"refresh_token": tokens["refresh_token"]})
    tokens = await call("POST", "auth/login", 200, {**who, "password": CHANGED})
    await call("POST", "users/me:delete", 403, {"password": WRONG}, tokens["access_token"])
    await call("POST", "users/me:delete", 200, {"password": CHANGED}, tokens["access_token"])
    return ids


def served(received: Receiver) -> set[str]:
    """Returns the RPCs of which the services have sent spans."""
    return {rpc for rpc in (*RPCS, *WEBHOOK_RPCS) if any(f"/{rpc}" in span.name for span in received.spans if span.service.endswith("-service"))}


async def _all_sent(received: Receiver, ids: list[str]) -> None:
    sent = {span.attributes.get("guid:x-request-id") for span in received.spans}
    assert set(ids) <= sent
    # Each process sends its spans at times of its own.
    assert {*RPCS, *WEBHOOK_RPCS} <= served(received)
