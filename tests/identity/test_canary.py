"""No secret appears in a log, a metric, an error, a column or a span. tests.support.canary searches the data of the whole test run at its end.

This module tests that the search finds planted secrets. It also uses every kind of secret, right and wrong, on a system that exports its spans.
"""

import base64
import json
import os
import re
import secrets as randomness
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc.aio
import httpx
import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from auth_service.api_tokens.tokens import new_api_token
from devstack.data_dir import DataDir
from devstack.stack import Stack
from tests.identity.journey import CHANGED, RPCS, WEBHOOK_RPCS, WRONG, Journey, journeyed, served
from tests.support import canary
from tests.support.accounts import PASSWORD, Account
from tests.support.calls import message_of
from tests.support.canary import Secrets
from tests.support.descriptors import named

KEY = os.urandom(32)
TOKEN, PAYLOAD, SIGNATURE = (randomness.token_urlsafe(size) for size in (32, 150, 64))
API_TOKEN = new_api_token()
# Its base64 has a sign that ends a word.
HOOK_KEY = b"\xff" * 3 + os.urandom(29)
HOOK_SECRET = f"whsec_{base64.b64encode(HOOK_KEY).decode()}"
HOOK_WORD = max(re.findall(r"\w+", HOOK_SECRET.removeprefix("whsec_")), key=len)
PLANTED = 'plänted; a "password" of ours'

# Texts that contain a secret, each with the kind of the secret.
WRITTEN: Mapping[str, tuple[str, str]] = {
    "password": (f"wrong password: {PLANTED}!", "password"),
    "password in JSON": ('{"password": "pl\\u00e4nted; a \\"password\\" of ours"}', "password"),
    "password in JSON of UTF-8": ('{"password": "plänted; a \\"password\\" of ours"}', "password"),
    "password in a URL": ("?password=pl%C3%A4nted%3B%20a%20%22password%22%20of%20ours", "password"),
    "refresh token": (f"token={TOKEN}", "refresh token"),
    "refresh token, glued": (f"TOKEN_{TOKEN}-", "refresh token"),
    "refresh token, cut short": (f"{TOKEN[:16]}…", "refresh token"),
    "refresh token, its end": (f"…{TOKEN[-16:]}", "refresh token"),
    "access token": (f"Bearer eyJhbGciOiJFZERTQSJ9.{PAYLOAD}.{SIGNATURE}", "access token"),
    "access token, payload alone": (PAYLOAD[:60], "access token"),
    "access token, signature alone": (SIGNATURE, "access token"),
    "API token": (f"Bearer {API_TOKEN}", "API token"),
    "API token, cut short": (f"{API_TOKEN[:20]}…", "API token"),
    "API token, its end": (f"…{API_TOKEN[-16:]}", "API token"),
    "webhook secret": (f"secret={HOOK_SECRET}", "webhook secret"),
    "webhook secret, cut short": (f"whsec_{HOOK_WORD}…", "webhook secret"),
    "webhook secret, its key in hex": (f"key {HOOK_KEY.hex()}", "webhook secret"),
    "key in hex": (f"key {KEY.hex()}", "key"),
    "key in upper hex": (KEY.hex().upper(), "key"),
    "key in base64": (base64.b64encode(KEY).decode(), "key"),
    "key in base64url": (base64.urlsafe_b64encode(KEY).decode(), "key"),
}
INNOCENT = f"password {TOKEN[:15]} {uuid4()} planted {KEY.hex()[:15]} Bearer eyJhbGciOiJFZERTQSJ9 a password of ours"

written = pytest.mark.parametrize(("text", "kind"), WRITTEN.values(), ids=WRITTEN)


@pytest.fixture
def planted() -> Secrets:
    """Secrets that no running system uses."""
    secrets = Secrets()
    secrets.add_password(PLANTED)
    secrets.add("refresh token", TOKEN)
    secrets.add("API token", API_TOKEN)
    secrets.add_webhook_secret(HOOK_SECRET)
    secrets.add_access_token(f"eyJhbGciOiJFZERTQSJ9.{PAYLOAD}.{SIGNATURE}")
    secrets.add_key("key", KEY)
    return secrets


@pytest.fixture(scope="module")
async def journey() -> AsyncIterator[Journey]:
    async with journeyed() as made:
        yield made


@written
def test_a_secret_in_a_log_is_found_and_its_line_told(planted: Secrets, tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "auth-1.log").write_text(f"{INNOCENT}\n{text}\n")
    assert canary.in_logs(planted, tmp_path) == [f"{kind} in auth-1.log, line 2"]


def test_what_only_resembles_a_secret_is_none(planted: Secrets, tmp_path: Path) -> None:
    (tmp_path / "auth-1.log").write_text(INNOCENT)
    assert canary.in_logs(planted, tmp_path) == []


@written
async def test_a_secret_in_a_column_is_found(planted: Secrets, database_url: str, text: str, kind: str) -> None:
    async with _user(database_url, name=text):
        assert await canary.in_database(planted, database_url) == [f"{kind} in auth.users.name"]
    assert await canary.in_database(planted, database_url) == []


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0" + KEY, "key"),
        (KEY.hex().encode(), "key"),
        (TOKEN.encode(), "refresh token"),
        (API_TOKEN.encode(), "API token"),
        (b"\0" + HOOK_KEY, "webhook secret"),
        (base64.urlsafe_b64decode(TOKEN + "="), "refresh token"),
        (PLANTED.encode(), "password"),
    ],
    ids=["key", "key in hex", "token", "API token", "key of a webhook", "token as the bytes that it is", "password"],
)
async def test_a_secret_in_a_column_of_bytes_is_found(planted: Secrets, database_url: str, data: bytes, kind: str) -> None:
    async with _user(database_url, key=data):
        assert await canary.in_database(planted, database_url) == [f"{kind} in auth.signing_keys.sealed_key"]


async def test_a_secret_in_a_metric_is_found(planted: Secrets) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("sessions", "By token.", ["token"], registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        urls = {"auth-1": f"http://127.0.0.1:{server.server_port}/metrics"}
        assert await canary.in_metrics(planted, urls) == []
        gauge.labels(TOKEN).set(1)
        assert await canary.in_metrics(planted, urls) == ["refresh token in the metrics of auth-1"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_secret_in_an_error_is_found(planted: Secrets) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, content=request.content)

    async with httpx.AsyncClient(base_url="http://x", transport=httpx.MockTransport(echo), event_hooks={"response": [planted.listen]}) as client:
        await client.post("/api/v1/tasks/x", json={"title": "innocent"})
        assert canary.in_errors(planted) == []
        await client.post("/api/v1/tasks/x", json={"title": PLANTED})
        await client.post("/api/v1/auth/login", json={"email": "x", "password": WRONG})
    assert canary.in_errors(planted) == ["password in error 400 of POST /api/v1/tasks", "password in error 400 of POST /api/v1/auth"]


@pytest.mark.parametrize(
    "body",
    [
        {"password": "short words"},
        {"password": "abababababababab"},
        {"password": "administrator"},
        {"email": "Ada.Lovelace@example.com", "password": "ada.lovelace@example.com"},
        {"current_password": "x", "new_password": "ada.lovelace@example.com"},
        {"password": "\ud800 is half a character"},
        {"password": ["not", "a", "text"]},
        ["password"],
    ],
    ids=["short", "few characters", "leaked", "told by another field", "refused new one", "unsayable", "no text", "no object"],
)
async def test_a_password_that_may_stand_anywhere_is_not_looked_for(body: object) -> None:
    secrets = Secrets()
    async with httpx.AsyncClient(
        base_url="http://x", transport=httpx.MockTransport(lambda _: httpx.Response(400)), event_hooks={"response": [secrets.listen]}
    ) as client:
        await client.post("/api/v1/auth/password", content=json.dumps(body))
    assert secrets.found_in(str(body)) == {}


async def test_what_goes_over_rest_is_remembered(secrets: Secrets, account: Account, rest: httpx.AsyncClient) -> None:
    refreshed = (await rest.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token})).json()
    header, payload, signature = account.access_token.split(".")
    texts = (PASSWORD, account.refresh_token, payload, signature, refreshed["refresh_token"], refreshed["access_token"])
    assert [set(secrets.found_in(text)) for text in texts] == [
        {"password"},
        {"refresh token"},
        *[{"access token"}] * 2,
        {"refresh token"},
        {"access token"},
    ]
    assert secrets.found_in(header) == {}


async def test_an_api_token_is_remembered_and_its_hint_is_no_secret(secrets: Secrets, account: Account, rest: httpx.AsyncClient) -> None:
    created = await rest.post("/api/v1/auth/tokens", json={"name": "A script", "scopes": ["tasks:read"]}, headers=account.headers)
    token = created.json()["token"]
    exchanged = (await rest.post("/api/v1/auth/exchange", json={"api_token": token})).json()
    assert secrets.found_in(token).keys() == {"API token"}
    assert secrets.found_in(exchanged["access_token"]).keys() == {"access token"}
    assert secrets.found_in(created.json()["api_token"]["hint"]) == {}


async def test_the_secrets_of_a_webhook_are_remembered(secrets: Secrets, account: Account, rest: httpx.AsyncClient) -> None:
    created = (await rest.post("/api/v1/webhooks", json={"url": "http://127.0.0.1:9/", "state": "PAUSED"}, headers=account.headers)).json()
    path = f"/api/v1/webhooks/{created['webhook']['id']}"
    rotated = (await rest.post(f"{path}:rotateSecret", json={}, headers=account.headers)).json()
    for secret in (created["secret"], rotated["secret"]):
        assert secrets.found_in(f"x {secret}").keys() == {"webhook secret"}
    assert secrets.found_in((await rest.get(path, headers=account.headers)).text) == {}


async def test_the_systems_own_secrets_are_known(system: Stack) -> None:
    secrets = Secrets()
    await secrets.learn(system)
    files = list((Path(system.state.data_dir) / "secrets").iterdir())
    assert {kind for path in files for kind in secrets.found_in(path.read_text())} == {path.name for path in files}
    assert {"key_encryption_key", "page_token_key", "service_token", "postgres_password", "auth_service_password"} <= {path.name for path in files}
    assert "private signing key" in secrets._raw.values()


async def test_the_whole_search_fails_for_one_planted_name_and_does_not_quote_it(journey: Journey) -> None:
    await canary.check(journey.stack, journey.secrets)
    connection = await asyncpg.connect(journey.stack.state.database_url)
    try:
        await connection.execute("UPDATE auth.users SET name = $1", CHANGED)
        with pytest.raises(AssertionError, match=r"^secrets are in the open: password in auth\.users\.name$") as caught:
            await canary.check(journey.stack, journey.secrets)
    finally:
        await connection.execute("UPDATE auth.users SET name = 'Ada'")
        await connection.close()
    assert CHANGED not in str(caught.value)


async def test_no_stack_is_closed_with_a_secret_in_its_logs(secrets: Secrets, tmp_path: Path) -> None:
    """The check that tests.conftest makes when a stack closes, here on a stack without processes."""
    secrets.add_password(PLANTED)
    directory = await DataDir.opened(tmp_path, None)
    (directory.secrets / "service_token").write_text(TOKEN)
    (directory.logs / "task-1.log").write_text(f"{INNOCENT}\n{PLANTED}\n{INNOCENT} {TOKEN}\n")
    findings = r"^secrets are in the open: password in task-1\.log, line 2; service_token in task-1\.log, line 3$"
    with pytest.raises(AssertionError, match=findings):
        directory.close()
    # The directory was closed nevertheless.
    (directory.logs / "task-1.log").write_text(INNOCENT)
    (await DataDir.opened(tmp_path, None)).close()


async def test_a_secret_in_redis_is_found(planted: Secrets, journey: Journey) -> None:
    url, names = journey.stack.state.redis_url, ("planted:1", "planted:2", f"planted:{PLANTED}")
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.set(names[0], INNOCENT)
        assert await canary.in_redis(planted, url) == []
        await client.set(names[1], b"\xff\0" + KEY)
        await client.set(names[2], 1)
        try:
            assert await canary.in_redis(planted, url) == ["password in Redis' keys", "key in Redis' values"]
        finally:
            await client.delete(*names)


def test_no_log_tells_a_secret(journey: Journey) -> None:
    assert canary.in_logs(journey.secrets, journey.stack.log_dir) == []


def test_no_span_tells_a_secret(journey: Journey) -> None:
    spans = journey.received.spans
    assert served(journey.received) == {*RPCS, *WEBHOOK_RPCS}
    assert {"gateway", "auth-service", "task-service"} <= {span.service for span in spans}
    # The finding names only the service: the name of the span itself could contain a secret.
    assert [f"{kind} in a span of {span.service}" for span in spans for kind in journey.secrets.found_in("\n".join(span.texts))] == []


def test_a_secret_in_a_span_would_be_found(journey: Journey) -> None:
    span = journey.received.spans[-1]
    assert set(journey.secrets.found_in("\n".join((*span.texts, f"SELECT '{CHANGED}'", WRONG)))) == {"password"}


@pytest.mark.parametrize("direct", [True, False], ids=["auth_service", "gateway"])
async def test_no_error_over_grpc_tells_a_secret(
    planted: Secrets, gateway_channel: grpc.aio.Channel, auth_channel: grpc.aio.Channel, *, direct: bool
) -> None:
    channel = auth_channel if direct else gateway_channel
    token = f"eyJhbGciOiJFZERTQSJ9.{PAYLOAD}.{SIGNATURE}"
    long = PLANTED * 200
    calls = [
        ("AuthService.Login", {"email": "nobody@example.com", "password": PLANTED}),
        ("AuthService.Login", {"email": "nobody@example.com", "password": long}),
        ("AuthService.Register", {"email": "not an email", "password": PLANTED, "name": "Ada"}),
        ("AuthService.Register", {"email": f"{uuid4().hex}@example.com", "password": PLANTED * 5, "name": "Ada"}),
        ("AuthService.RefreshToken", {"refresh_token": TOKEN}),
        ("AuthService.RefreshToken", {"refresh_token": TOKEN * 20}),
        ("AuthService.ExchangeApiToken", {"api_token": API_TOKEN}),
        ("AuthService.ExchangeApiToken", {"api_token": API_TOKEN[:-1]}),
        ("AuthService.ExchangeApiToken", {"api_token": API_TOKEN * 20}),
        ("AuthService.ChangePassword", {"current_password": PLANTED, "new_password": PLANTED}),
        ("UserService.DeleteMe", {"password": PLANTED}),
    ]
    for name, values in calls:
        rpc = named(name)
        call = channel.unary_unary(rpc.path)(
            message_of(rpc, values).SerializeToString(), metadata=(("authorization", f"Bearer {token}"),), timeout=15
        )
        assert await call.code() != grpc.StatusCode.OK
        told = [
            (await call.details()) or "",
            *(value if isinstance(value, str) else value.decode(errors="replace") for _, value in await _trailers(call)),
        ]
        assert planted.found_in("\n".join(told)) == {}, name


async def _trailers(call: Any) -> list[tuple[str, str | bytes]]:
    return [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]


class _user:  # noqa: N801 - used as a function
    """A context in which the database has a user with that name, or a signing key with those bytes."""

    def __init__(self, url: str, *, name: str = "", key: bytes = b"") -> None:
        self._url, self._name, self._key = url, name, key

    async def __aenter__(self) -> None:
        self._connection = await asyncpg.connect(self._url)
        if self._name:
            await self._connection.execute(
                "INSERT INTO auth.users (id, email, email_key, name, password_hash) VALUES (gen_random_uuid(), 'x', 'x', $1, 'x')", self._name
            )
        if self._key:
            await self._connection.execute(
                "INSERT INTO auth.signing_keys (id, public_key, sealed_key, active_from) VALUES ('x', $1, $2, now())", bytes(32), self._key
            )

    async def __aexit__(self, *_: object) -> None:
        await self._connection.execute("DELETE FROM auth.users; DELETE FROM auth.signing_keys")
        await self._connection.close()
