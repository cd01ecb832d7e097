"""The gateway has auth_service exchange API tokens, for the requests that have one and no others, and sends none to a service."""

import time

import httpx
import pytest

from tests.gateway.errors import assert_error, reason_of
from tests.gateway.grpc_web import frame
from tests.gateway.stack import GET_TASK, LOGIN, Gateway, Stack, gateway_behind, wait_until
from tests.support import rawhttp
from tests.support.waiting import eventually

TASKS = "/api/v1/tasks"
UNAUTHENTICATED, EXHAUSTED, UNAVAILABLE = 16, 8, 14


def test_a_request_without_an_api_token_asks_for_no_exchange(gateway: Gateway, accepted: str, token: str) -> None:
    assert gateway.request("GET", f"{TASKS}/1").status_code == 200
    assert gateway.request("GET", TASKS, token=False).status_code == 401
    assert gateway.request("GET", TASKS, token=False, headers={"authorization": "Bearer tn_x"}).status_code == 401
    assert gateway.request("GET", TASKS, token=False, headers={"authorization": f"Basic {token}"}).status_code == 401
    assert gateway.request("GET", TASKS, headers={"x-api-key": token, "cookie": f"token={token}"}).status_code == 200
    gateway.call(GET_TASK)
    assert gateway.stack.keys.exchanges == []


def test_a_public_method_ignores_an_api_token(gateway: Gateway, accepted: str, api_token: dict[str, str]) -> None:
    """Also a wrong one: the routes switch the exchange off."""
    for method, path, status in (
        ("POST", "/api/v1/auth/login", 200),
        ("GET", "/api/v1/auth/login", 405),
        ("POST", "/api/v1/auth/login?password=x", 400),
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("POST", "/health", 405),
        ("GET", "/.well-known/jwks.json", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
    ):
        body = {"json": {}} if method == "POST" and path.startswith("/api") else {}
        assert gateway.request(method, path, token=False, headers=api_token, **body).status_code == status, path
    gateway.call(LOGIN, token=False, metadata=api_token)
    assert gateway.stack.keys.exchanges == []


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_service_gets_the_access_token_alone(
    gateway: Gateway, stack: Stack, accepted: str, scheme: str, api_token: dict[str, str], token: str
) -> None:
    assert gateway.request("GET", f"{TASKS}/1", token=False, headers={"authorization": f"{scheme}{token}"}).status_code == 200
    assert stack.metadata()["authorization"] == f"Bearer {accepted}"
    assert token not in str(stack.metadata())
    stack.reset()
    stack.keys.exchange = lambda _: (200, {"authorization": f"Bearer {accepted}"})
    gateway.call(GET_TASK, token=False, metadata=api_token)
    assert stack.metadata()["authorization"] == f"Bearer {accepted}"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", f"{TASKS}?filter=title:secret"), ("POST", TASKS), ("DELETE", f"{TASKS}/1"), ("HEAD", f"{TASKS}/1")]
)
def test_auth_service_learns_the_token_and_the_client_but_not_the_request(
    gateway: Gateway, accepted: str, method: str, path: str, api_token: dict[str, str]
) -> None:
    headers = {**api_token, "x-request-id": "my-id.1", "if-match": "secret", "x-envoy-external-address": "203.0.113.7", "x-custom": "secret"}
    gateway.request(method, path, token=False, headers=headers, **({"json": {"title": "secret"}} if method == "POST" else {}))
    ((asked_with, asked_at, sent),) = gateway.stack.keys.exchanges
    assert (asked_with, asked_at, sent["host"]) == ("GET", "/exchange", "127.0.0.1")
    assert sent.get_all("authorization") == [api_token["authorization"]]
    assert (sent["x-envoy-external-address"], sent["x-request-id"], sent["content-length"]) == ("127.0.0.1", "my-id.1", "0")
    assert "secret" not in str(sent)


def test_an_unknown_path_is_404_with_a_token_and_401_without(gateway: Gateway, accepted: str, api_token: dict[str, str]) -> None:
    assert_error(gateway.request("GET", "/api/v1/nowhere", token=False, headers=api_token), 404, 5)
    gateway.stack.keys.exchange = lambda _: (401, {})
    another = {"authorization": f"{api_token['authorization']}x"}
    assert gateway.request("GET", "/api/v1/nowhere", token=False, headers=another).status_code == 401


@pytest.mark.parametrize(
    ("answered", "status", "code", "reason"),
    [
        (401, 401, UNAUTHENTICATED, "TOKEN_INVALID"),
        (429, 429, EXHAUSTED, "TOO_MANY_ATTEMPTS"),
        (500, 503, UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
        (503, 503, UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
    ],
)
def test_a_refusal_has_the_form_of_every_error(
    gateway: Gateway, stack: Stack, answered: int, status: int, code: int, reason: str, api_token: dict[str, str]
) -> None:
    stack.keys.exchange = lambda _: (answered, {"x-internal": "secret", "server": "secret"})
    response = gateway.request("GET", TASKS, token=False, headers=api_token)
    body = response.json()
    assert (response.status_code, body["code"], body["details"][0]["reason"]) == (status, code, reason)
    assert "secret" not in str(response.headers)
    if answered == 429:
        assert response.headers["retry-after"] == "10"
        assert body["details"][1]["retry_delay"] == "10s"
    if answered == 401:
        assert response.headers["www-authenticate"].startswith("Bearer ")
    error = gateway.failure(GET_TASK, token=False, metadata=api_token)
    assert (error.code().value[0], reason_of(error)) == (code, reason)  # type: ignore[attr-defined]  # of a call
    web = {**api_token, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    response = gateway.request("POST", GET_TASK, token=False, headers=web, content=frame(stack.messages.request(GET_TASK)()))
    assert (response.status_code, response.headers["grpc-status"]) == (200, str(code))
    assert stack.calls(GET_TASK) == 0


def test_an_answer_without_an_access_token_opens_nothing(gateway: Gateway, stack: Stack, api_token: dict[str, str]) -> None:
    for headers in ({}, {"authorization": ""}, {"authorization": "Bearer nonsense"}, {"x-authorization": f"Bearer {stack.keys.token()}"}):
        stack.keys.exchange = lambda _, headers=headers: (200, headers)  # type: ignore[misc]  # the loop's value
        assert gateway.request("GET", TASKS, token=False, headers=api_token).status_code == 401
    assert stack.requests() == []


def test_two_headers_together_are_no_token(gateway: Gateway, stack: Stack, token: str) -> None:
    """auth_service gets both, and refuses them (auth_service.api_tokens.endpoint)."""
    pair = (f"authorization: Bearer {token}".encode(), f"authorization: Bearer {stack.keys.token()}".encode())
    with httpx.Client() as client:
        for lines in (pair, pair[::-1]):
            response = client.request("GET", f"{gateway.url}{TASKS}", headers=[(b"authorization", line.partition(b": ")[2]) for line in lines])
            assert response.status_code == 401
    for _, _, sent in stack.keys.exchanges:
        assert len(sent.get_all("authorization", [])) == 2 or "," in sent["authorization"]
    assert stack.requests() == []


def test_an_auth_service_that_hangs_or_is_gone_fails_only_calls_with_api_tokens(stack: Stack, api_token: dict[str, str]) -> None:
    def hang(_: object) -> tuple[int, dict[str, str]]:
        time.sleep(1.5)
        return 200, {}

    with gateway_behind(stack, sooner={"timeout: 6s": "timeout: 0.5s"}) as gateway:
        stack.keys.exchange = hang
        began = time.monotonic()
        assert_error(gateway.request("GET", TASKS, token=False, headers=api_token), 503, UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        assert time.monotonic() - began < 1.4
        assert gateway.request("GET", TASKS).status_code == 200
    with gateway_behind(stack, ready=False, exchange_endpoints="127.0.0.1:1") as gateway:
        wait_until(lambda: gateway.request("GET", TASKS).status_code == 200)
        assert_error(gateway.request("GET", TASKS, token=False, headers=api_token), 503, UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")


async def test_no_log_line_has_the_token(gateway: Gateway, accepted: str, token: str) -> None:
    await rawhttp.send(gateway.url, rawhttp.RawRequest(b"GET", TASKS.encode(), (f"authorization: Bearer {token}".encode(),)))
    # Envoy writes the lines of its access log at most 1 s later.
    await eventually(lambda: _logged(gateway, TASKS), within=5)
    assert token[:20] not in gateway.log.read_text()


async def _logged(gateway: Gateway, text: str) -> None:
    assert text in gateway.log.read_text()
