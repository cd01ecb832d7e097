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
    traveller = _Traveller(rest, secrets, (await make_account(rest)).access_token)
    tokens = await traveller.sign_in()
    access, refresh = tokens["access_token"], tokens["refresh_token"]
    await traveller.use(access, refresh)
    await traveller.use_api_tokens(access)
    await traveller.use_webhooks(access)
    await traveller.leave(access, refresh)
    return traveller.ids


class _Traveller:
    """A user with an account, who also sends wrong secrets. `ids` are the ids of the requests."""

    def __init__(self, rest: httpx.AsyncClient, secrets: Secrets, foreign: str) -> None:
        self._rest = rest
        self._who = {"email": f"{uuid4().hex}@example.com"}
        self._wrong_refresh, self._wrong_api_token = randomness.token_urlsafe(32), new_api_token()
        head, payload, _ = foreign.split(".")
        self._wrong_access = f"{head}.{payload}.{randomness.token_urlsafe(64)}"
        secrets.add("refresh token", self._wrong_refresh)
        secrets.add("API token", self._wrong_api_token)
        secrets.add_access_token(self._wrong_access)
        self.ids: list[str] = []

    async def call(self, verb: str, path: str, status: int, body: object = None, token: str = "") -> Any:
        """Makes a request, which must get this status. Returns the body of the answer."""
        self.ids.append(str(uuid4()))
        headers = {"x-request-id": self.ids[-1], **({"authorization": f"Bearer {token}"} if token else {})}
        response = await self._rest.request(verb, f"/api/v1/{path}", json=body, headers=headers)
        assert response.status_code == status, (path, response.text)
        return response.json()

    async def sign_in(self) -> Any:
        """Registers and logs in. Returns the tokens of the session."""
        who, wrong_refresh = self._who, self._wrong_refresh
        await self.call("POST", "auth/register", 400, {**who, "password": WRONG, "name": ""})
        await self.call("POST", "auth/register", 201, {**who, "password": PASSWORD, "name": "Ada"})
        await self.call("POST", "auth/register", 409, {**who, "password": PASSWORD, "name": "Ada"})
        await self.call("POST", "auth/login", 401, {**who, "password": WRONG})
        await self.call("POST", "auth/login", 400, {**who, "password": [WRONG]})
        await self.call("POST", "auth/login", 400, {**who, "password": WRONG, "email": {WRONG: WRONG}})
        tokens = await self.call("POST", "auth/login", 200, {**who, "password": PASSWORD})
        await self.call("POST", "auth/refresh", 401, {"refresh_token": wrong_refresh})
        await self.call("POST", "auth/refresh", 400, {"refresh_token": wrong_refresh * 20})
        return await self.call("POST", "auth/refresh", 200, {"refresh_token": tokens["refresh_token"]})

    async def use(self, access: str, refresh: str) -> None:
        """Calls with tokens at places where they belong and where they do not."""
        wrong_access = self._wrong_access
        await self.call("GET", "auth/sessions", 401, token=wrong_access)
        await self.call("GET", "auth/sessions", 200, token=access)
        await self.call("GET", f"auth/sessions?refresh_token={refresh}", 400, token=access)
        await self.call("GET", "tasks", 401, token=wrong_access)
        await self.call("GET", f"tasks?access_token={access}", 401)
        await self.call("POST", "tasks", 201, {"title": "a task", "due_date": None}, access)
        await self.call("POST", "tasks", 400, {"title": "", "description": "none"}, access)
        await self.call("GET", "tasks?filter=title:a", 200, token=access)

    async def use_api_tokens(self, access: str) -> None:
        """Creates an API token and calls with it."""
        wrong_api_token = self._wrong_api_token
        await self.call("POST", "auth/exchange", 401, {"api_token": wrong_api_token})
        await self.call("POST", "auth/exchange", 401, {"api_token": wrong_api_token[:-1]})
        await self.call("POST", "auth/exchange", 400, {"api_token": wrong_api_token * 20})
        await self.call("POST", "auth/tokens", 400, {"name": "A script", "scopes": [wrong_api_token]}, access)
        api_token = (await self.call("POST", "auth/tokens", 201, {"name": "A script", "scopes": ["tasks:read"]}, access))["token"]
        await self.call("POST", "auth/exchange", 200, {"api_token": api_token})
        await self.call("GET", "auth/tokens", 200, token=access)
        await self.call("GET", "tasks", 200, token=api_token)
        await self.call("POST", "tasks", 403, {"title": "a task"}, api_token)
        for bad in (wrong_api_token, api_token[:-1], f"{api_token},{api_token}"):
            await self.call("GET", "tasks", 401, token=bad)
        await self.call("GET", "webhooks", 403, token=api_token)

    async def use_webhooks(self, access: str) -> None:
        """Creates a webhook, has it sent to, and sends its secrets to places where they do not belong."""
        hook = {"url": "http://127.0.0.1:9/hook"}
        created = await self.call("POST", "webhooks", 201, hook, access)
        path = f"webhooks/{created['webhook']['id']}"
        rotated = await self.call("POST", f"{path}:rotateSecret", 200, {}, access)
        for secret in (created["secret"], rotated["secret"]):
            await self.call("PATCH", path, 400, {"url": secret}, access)
            await self.call("PATCH", path, 400, {"url": f"http://{quote(secret, safe='')}@127.0.0.1"}, access)
            await self.call("PATCH", path, 400, {"event_types": [secret]}, access)
            await self.call("GET", f"webhooks?secret={quote(secret)}", 400, token=access)
        await self.call("POST", f"{path}:test", 200, {}, access)
        await self.call("POST", "tasks", 201, {"title": "a task for the webhook"}, access)
        await self.call("GET", f"{path}/deliveries", 200, token=access)

    async def leave(self, access: str, refresh: str) -> None:
        """Changes the password, ends the session, and deletes the account."""
        who, wrong_refresh = self._who, self._wrong_refresh
        await self.call("POST", "auth/password", 403, {"current_password": WRONG, "new_password": CHANGED}, access)
        await self.call("POST", "auth/password", 200, {"current_password": PASSWORD, "new_password": CHANGED}, access)
        await self.call("POST", "auth/logout", 200, {"refresh_token": wrong_refresh})
        await self.call("POST", "auth/logout", 200, {"refresh_token": refresh})
        tokens = await self.call("POST", "auth/login", 200, {**who, "password": CHANGED})
        await self.call("POST", "users/me:delete", 403, {"password": WRONG}, tokens["access_token"])
        await self.call("POST", "users/me:delete", 200, {"password": CHANGED}, tokens["access_token"])


def served(received: Receiver) -> set[str]:
    """Returns the RPCs of which the services have sent spans."""
    return {rpc for rpc in (*RPCS, *WEBHOOK_RPCS) if any(f"/{rpc}" in span.name for span in received.spans if span.service.endswith("-service"))}


async def _all_sent(received: Receiver, ids: list[str]) -> None:
    sent = {span.attributes.get("guid:x-request-id") for span in received.spans}
    assert set(ids) <= sent
    # Each process sends its spans at times of its own.
    assert {*RPCS, *WEBHOOK_RPCS} <= served(received)
