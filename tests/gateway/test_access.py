"""Access through the gateway: tokens, public methods, CORS, and headers that a client must not set."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.routes import Rpc
from tests.gateway.errors import assert_error, reason_of
from tests.gateway.stack import CREATE_TASK, GET_TASK, LOGIN, Gateway, Stack, gateway_behind, rest_cases, routes, wait_until
from tests.support.rawhttp import RawRequest, send

TASKS = "/api/v1/tasks"


@pytest.mark.parametrize(("rpc", "method", "path"), rest_cases())
def test_rest_without_a_token(gateway: Gateway, stack: Stack, rpc: Rpc, method: str, path: str) -> None:
    answer = gateway.request(method, path, token=False)
    if rpc.public:
        assert answer.is_success
        assert stack.calls(rpc.path) == 1
    else:
        assert_error(answer, 401, 16, "TOKEN_MISSING")
        assert answer.headers["www-authenticate"] == 'Bearer realm="task-manager"'
        assert stack.calls(rpc.path) == 0


@pytest.mark.parametrize(("rpc", "method", "path"), rest_cases())
def test_rest_with_a_token(gateway: Gateway, stack: Stack, rpc: Rpc, method: str, path: str) -> None:
    answer = gateway.request(method, path)
    assert answer.status_code == (201 if rpc.creates else 200)
    assert stack.calls(rpc.path) == 1
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy-"))]


@pytest.mark.parametrize("rpc", routes().rpcs, ids=lambda rpc: rpc.path)
def test_grpc_without_a_token(gateway: Gateway, stack: Stack, rpc: Rpc) -> None:
    if rpc.public:
        gateway.call(rpc.path, token=False)
        assert stack.calls(rpc.path) == 1
    else:
        error = gateway.failure(rpc.path, token=False)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error.details() == "The call has no access token."
        assert reason_of(error) == "TOKEN_MISSING"
        assert stack.calls(rpc.path) == 0


@pytest.mark.parametrize("rpc", routes().rpcs, ids=lambda rpc: rpc.path)
def test_grpc_with_a_token(gateway: Gateway, stack: Stack, rpc: Rpc) -> None:
    gateway.call(rpc.path, streams=rpc.streams)
    assert stack.calls(rpc.path) == 1


def test_the_token_goes_on_to_the_service(gateway: Gateway, stack: Stack) -> None:
    header = gateway.bearer()
    gateway.request("GET", f"{TASKS}/1", headers=header)
    assert stack.metadata()["authorization"] == header["authorization"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_the_token_is_free_in_case(gateway: Gateway, scheme: str) -> None:
    assert gateway.request("GET", TASKS, token=False, headers={"authorization": f"{scheme} {gateway.stack.keys.token()}"}).status_code == 200


@pytest.mark.parametrize("claims", [{"iss": "https://elsewhere"}, {"aud": "elsewhere"}, {"exp": 1000}])
def test_a_wrong_claim(gateway: Gateway, claims: dict[str, Any]) -> None:
    headers = gateway.bearer(**claims)
    answer = gateway.request("GET", TASKS, token=False, headers=headers)
    assert_error(answer, 401, 16, "TOKEN_INVALID")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    error = gateway.failure(GET_TASK, token=False, metadata=headers)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "TOKEN_INVALID"


def test_a_token_just_over_is_the_services_to_judge(gateway: Gateway) -> None:
    assert gateway.request("GET", TASKS, token=False, headers=gateway.bearer(exp=int(time.time()) - 5)).status_code == 200


def test_a_token_in_the_cache_ends_60_seconds_after_its_expiry(gateway: Gateway) -> None:
    headers = gateway.bearer(exp=int(time.time()) - 57)
    assert gateway.request("GET", TASKS, token=False, headers=headers).status_code == 200
    wait_until(lambda: gateway.request("GET", TASKS, token=False, headers=headers).status_code == 401)


def test_a_token_of_another_key(gateway: Gateway) -> None:
    claims = {"iss": "https://task-manager.local", "aud": "task-manager", "sub": "u", "exp": int(time.time()) + 60}
    forged = jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": gateway.stack.keys.kid})
    assert_error(gateway.request("GET", TASKS, token=False, headers={"authorization": f"Bearer {forged}"}), 401, 16, "TOKEN_INVALID")
    foreign = jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "unknown"})
    assert_error(gateway.request("GET", TASKS, token=False, headers={"authorization": f"Bearer {foreign}"}), 401, 16, "TOKEN_INVALID")
    bare = jwt.encode(claims, None, algorithm="none", headers={"kid": gateway.stack.keys.kid})
    assert_error(gateway.request("GET", TASKS, token=False, headers={"authorization": f"Bearer {bare}"}), 401, 16, "TOKEN_INVALID")


def test_a_token_in_the_query_does_not_count_and_is_not_repeated(gateway: Gateway) -> None:
    token = gateway.stack.keys.token()
    answer = gateway.request("GET", TASKS, token=False, params={"access_token": token})
    assert_error(answer, 401, 16, "TOKEN_MISSING")
    assert token not in str(answer.headers)
    assert token not in gateway.log.read_text()


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/",
        "/api/v1/tasks/1/2/3",
        "/.well-known/else",
        "/grpc.reflection.v1/",
        "/healthy",
        "//health",
        # Paths for operators, and paths that scanners try.
        "/metrics",
        "/livez",
        "/readyz",
        "/stats",
        "/config_dump",
        "/server_info",
        "/.git/config",
        "/api/v1/tasks/",
        "/api/v1/tasks/1/",
        "/api/v1/tasks/1/?id=2",
        "/api/v1/auth/login/",
    ],
)
def test_an_unknown_path_is_401_without_a_token_and_404_with_one(gateway: Gateway, path: str) -> None:
    url = gateway.url + path
    assert_error(gateway.request("GET", url, token=False), 401, 16, "TOKEN_MISSING")
    assert_error(gateway.request("GET", url), 404, 5)


@pytest.mark.parametrize(
    "path", ["/grpc.health.v1.Health/Watch", "/taskmanager.task.v1.TaskService/Nope", "/taskmanager.auth.v1.EventService/ListEvents"]
)
def test_what_is_not_routed_is_unimplemented(gateway: Gateway, path: str) -> None:
    with pytest.raises(grpc.RpcError) as unknown:
        gateway.channel.unary_unary(path)(b"", metadata=tuple(gateway.bearer().items()))
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as missing:
        gateway.channel.unary_unary(path)(b"")
    assert missing.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_grpc_path_takes_nothing_but_grpc(gateway: Gateway, stack: Stack) -> None:
    assert_error(gateway.request("POST", LOGIN, token=False, json={"email": "a"}), 404, 5)
    assert stack.calls(LOGIN) == 0


@pytest.mark.parametrize("content_type", ["application/grpcx", "application/grpc-webx"])
def test_a_type_that_only_begins_like_grpc_reaches_no_service(gateway: Gateway, stack: Stack, content_type: str) -> None:
    answer = gateway.request("POST", LOGIN, token=False, content=bytes(5), headers={"content-type": content_type})
    assert answer.status_code == 404
    assert stack.calls(LOGIN) == 0


SPOOFED = {
    "x-envoy-original-path": "/api/v1/tasks/2",
    "x-envoy-original-method": "DELETE",
    "x-envoy-external-address": "203.0.113.9",
    "x-envoy-retry-on": "5xx",
    "x-user-id": "someone",
    "x-real-ip": "203.0.113.9",
    "forwarded": "for=203.0.113.9",
    "cookie": "session=of-another-application",
}


def test_a_rest_client_cannot_set_internal_headers(gateway: Gateway, stack: Stack) -> None:
    gateway.request("GET", f"{TASKS}/1", headers=SPOOFED)
    metadata = stack.metadata()
    assert metadata["x-envoy-original-path"] == f"{TASKS}/1"
    assert metadata["x-envoy-original-method"] == "GET"
    assert not set(SPOOFED.values()) & set(metadata.values())


def test_a_grpc_client_cannot_set_internal_headers(gateway: Gateway, stack: Stack) -> None:
    gateway.call(GET_TASK, metadata=SPOOFED)
    metadata = stack.metadata()
    assert "x-envoy-original-path" not in metadata
    assert not set(SPOOFED.values()) & set(metadata.values())
    # The client also does not get the reply for REST clients.
    assert gateway.failure(GET_TASK, token=False, metadata=SPOOFED).details() == "The call has no access token."


def test_no_binary_header_reaches_a_service(gateway: Gateway, stack: Stack) -> None:
    """grpc ends a call with INTERNAL if such a header is not base64."""
    assert gateway.request("GET", f"{TASKS}/1", headers={"x-trace-bin": "not base64!"}).status_code == 200
    assert "x-trace-bin" not in stack.metadata()


def test_a_compression_that_grpc_does_not_know(gateway: Gateway, stack: Stack) -> None:
    """Over REST there are no gRPC messages, so the header means nothing there."""
    assert gateway.request("GET", f"{TASKS}/1", headers={"grpc-encoding": "brotli"}).status_code == 200
    assert "grpc-encoding" not in stack.metadata()
    headers = {"content-type": "application/grpc", "te": "trailers"}
    for encoding, status in (("brotli", "12"), ("gzip", "0"), ("deflate", "0"), ("identity", "0")):
        answer = gateway.request("POST", LOGIN, token=False, content=bytes(5), headers=headers | {"grpc-encoding": encoding})
        assert (encoding, answer.headers.get("grpc-status", "0")) == (encoding, status)


def test_the_headers_that_services_read_arrive(gateway: Gateway, stack: Stack) -> None:
    gateway.request("POST", TASKS, json={}, headers={"idempotency-key": "k-1", "if-match": '"e"', "x-request-id": "my-id.1"})
    metadata = stack.metadata()
    assert (metadata["idempotency-key"], metadata["if-match"], metadata["x-request-id"]) == ("k-1", '"e"', "my-id.1")


def test_a_request_id_is_made_kept_or_tamed_and_returned(gateway: Gateway, stack: Stack) -> None:
    made = gateway.request("GET", TASKS).headers["x-request-id"]
    assert made == stack.metadata()["x-request-id"]
    assert gateway.request("GET", TASKS, headers={"x-request-id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    tamed = gateway.request("GET", TASKS, headers={"x-request-id": 'a" <b>' + "x" * 500}).headers["x-request-id"]
    assert tamed == "a___b_" + "x" * 58


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.mark.parametrize("path", [TASKS, CREATE_TASK, "/nope"])
def test_a_preflight_needs_no_token(gateway: Gateway, stack: Stack, path: str) -> None:
    answer = gateway.request("OPTIONS", path, token=False, headers={"origin": "https://app.example", **PREFLIGHT})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert {"authorization", "idempotency-key", "if-match"} <= set(answer.headers["access-control-allow-headers"].replace(" ", "").split(","))
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert not any(service.calls for service in stack.services)


def test_a_preflight_from_elsewhere_is_given_no_origin(gateway: Gateway) -> None:
    answer = gateway.request("OPTIONS", TASKS, token=False, headers={"origin": "https://evil.example", **PREFLIGHT})
    assert answer.status_code == 200  # not 401, which would suggest that a token helps
    assert "access-control-allow-origin" not in answer.headers


def test_a_browser_can_read_answers_and_errors(gateway: Gateway) -> None:
    for token, status in ((True, 200), (False, 401)):
        answer = gateway.request("GET", TASKS, token=token, headers={"origin": "https://app.example"})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert {"idempotency-replayed", "retry-after", "x-request-id"} <= set(
            answer.headers["access-control-expose-headers"].replace(" ", "").split(",")
        )
    assert "access-control-allow-origin" not in gateway.request("GET", TASKS, headers={"origin": "https://evil.example"}).headers


# The status 431 of a request whose headers Envoy has not read.
UNREAD = None


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/health", {}, 200),
        ("/ready", {}, 200),
        ("/.well-known/jwks.json", {}, 200),
        (f"{TASKS}/a%2Fb", {}, 400),
        (f"{TASKS}/a%00b", {}, 400),
        (TASKS, {"host": "a@b"}, 400),
        (TASKS, {"x-big": "x" * 40_000}, 431),
        (f"{TASKS}?filter={'x' * 40_000}", {}, 431),
        (TASKS, {f"x-{number}": "1" for number in range(120)}, 431),
        (TASKS, {"x-big": "x" * 140_000}, UNREAD),
        (TASKS, {f"x-{number}": "1" for number in range(420)}, UNREAD),
    ],
)
def test_a_browser_can_read_what_no_filter_of_the_access_check_has_seen(
    gateway: Gateway, path: str, headers: dict[str, str], status: int | None
) -> None:
    """Without these headers, a browser reports a network error instead of the answer."""
    answer = gateway.request("GET", path, headers={"origin": "https://app.example", **headers})
    assert answer.status_code == (status or 431)
    # Envoy does not read headers that are larger than the codec's limits, so it does not know the origin. The answer contains nothing of the request.
    assert answer.headers.get_list("access-control-allow-origin") == ["*" if status is UNREAD else "https://app.example"]
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    if status is not UNREAD:
        for origin in ({}, {"origin": "https://evil.example"}):
            assert "access-control-allow-origin" not in gateway.request("GET", path, headers={**origin, **headers}).headers


def test_without_an_allowed_origin_no_error_is_given_one(stack: Stack) -> None:
    with gateway_behind(stack) as gateway:
        for path in (f"{TASKS}/a%2Fb", f"/{'x' * 40_000}"):
            assert "access-control-allow-origin" not in gateway.request("GET", path, headers={"origin": "https://app.example"}).headers


def test_every_origin_may_read_the_errors_if_every_origin_is_allowed(stack: Stack) -> None:
    with gateway_behind(stack, cors_allowed_origins="*") as gateway:
        answer = gateway.request("GET", f"{TASKS}/a%2Fb", headers={"origin": "https://any.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (400, "https://any.example")


@pytest.mark.parametrize("host", ["api.example.com", "api.example.com:8080", "task_service", "127.0.0.1", "[::1]:80", ""])
def test_a_host(gateway: Gateway, host: str) -> None:
    assert gateway.request("GET", "/health", token=False, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["a b", "a,b", "a@b", "a:b", "a:80:90", "[::1", "a/b", "http://a", "a?b"])
@pytest.mark.parametrize("path", ["/health", TASKS, "/nope"])
def test_a_malformed_host(gateway: Gateway, stack: Stack, host: str, path: str) -> None:
    """RFC 9112 §3.2."""
    assert_error(gateway.request("GET", path, headers={"host": host}), 400, 3, "MALFORMED_REQUEST")
    assert not stack.requests()


@pytest.mark.parametrize("second", [b"host: localhost", b"HOST: elsewhere"])
def test_two_host_lines(gateway: Gateway, second: bytes) -> None:
    """Two readers of such a request could each take another line for the host."""
    for path in (b"/health", TASKS.encode()):
        assert_error(asyncio.run(send(gateway.url, RawRequest(b"GET", path, (second,)))), 400, 3, "MALFORMED_REQUEST")


def test_a_grpc_call_has_one_host_too(gateway: Gateway, stack: Stack) -> None:
    options = [("grpc.default_authority", "a,b")]
    with grpc.insecure_channel(gateway.url.removeprefix("http://"), options=options) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(GET_TASK)(b"", metadata=tuple(gateway.bearer().items()))
    assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert not stack.requests()


def test_no_keys_is_no_fault_of_the_token(stack: Stack) -> None:
    with gateway_behind(stack, jwks_endpoint="127.0.0.1:1") as gateway:
        assert_error(gateway.request("GET", TASKS), 503, 14, "DEPENDENCY_UNAVAILABLE")
        assert gateway.failure(GET_TASK).code() is grpc.StatusCode.UNAVAILABLE
        assert_error(gateway.request("GET", TASKS, token=False), 401, 16, "TOKEN_MISSING")
        gateway.call(LOGIN, token=False)


def test_the_keys_are_public(gateway: Gateway) -> None:
    answer = gateway.request("GET", "/.well-known/jwks.json", token=False)
    assert answer.json()["keys"][0]["kid"] == gateway.stack.keys.kid
    assert answer.headers["server"] == "task-manager"


def test_new_keys_are_fetched(tmp_path: Path) -> None:
    with Stack.started(tmp_path) as stack, gateway_behind(stack, jwks_refresh_seconds=1) as gateway:
        seen, unseen = gateway.bearer(jti="1"), gateway.bearer(jti="2")
        assert gateway.request("GET", TASKS, token=False, headers=seen).status_code == 200
        stack.keys.rotate()
        wait_until(lambda: gateway.request("GET", TASKS).status_code == 200)
        assert_error(gateway.request("GET", TASKS, token=False, headers=unseen), 401, 16, "TOKEN_INVALID")
        # Envoy's token cache outlives the keys, so a token that Envoy has verified before still passes. The services verify it again and reject it:
        # tests/e2e/test_key_rotation.py.
        assert gateway.request("GET", TASKS, token=False, headers=seen).status_code == 200


def test_a_header_with_an_underscore_is_dropped(gateway: Gateway, stack: Stack) -> None:
    gateway.request("GET", TASKS, headers={"x_forwarded_for": "203.0.113.9"})
    assert "203.0.113.9" not in stack.metadata().values()
