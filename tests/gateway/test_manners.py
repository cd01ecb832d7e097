"""What HTTP asks of a server beside the answers of the methods: other methods, HEAD, Vary, compression, bodies and headers that are too large."""

import gzip
import json
import struct
from collections.abc import Mapping

import grpc
import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from gateway.routes import Resource
from tests.gateway.errors import assert_error, reason_of
from tests.gateway.stack import GET_TASK, LOGIN, Gateway, Stack, concrete, gateway_behind, routes
from tests.support.rawhttp import connected

TASK = "/api/v1/tasks/1"
ALL_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
ORIGIN = {"origin": "https://app.example"}
every_resource = pytest.mark.parametrize("resource", routes().resources, ids=lambda resource: resource.template.template)
both_versions = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


def _client(gateway: Gateway, *, http2: bool) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, http1=not http2, http2=http2, headers=gateway.bearer(), timeout=30)


@every_resource
def test_another_method_is_told_the_right_ones(gateway: Gateway, resource: Resource) -> None:
    path = concrete(resource.template.template)
    for method in set(ALL_METHODS) - set(resource.methods):
        answer = gateway.request(method, path)
        assert (method, answer.status_code, answer.headers["allow"]) == (method, 405, ", ".join(resource.methods))
        if method == "HEAD":
            assert answer.content == b""
        else:
            assert_error(answer, 405, 12)
        # Nobody learns from the methods of a path that needs a token.
        assert gateway.request(method, path, token=False).status_code == (405 if resource.public else 401)


@pytest.mark.parametrize("path", ["/health", "/ready", "/.well-known/jwks.json"])
def test_the_gateways_own_paths_are_read_alone(gateway: Gateway, path: str) -> None:
    answer = gateway.request("POST", path, token=False)
    assert_error(answer, 405, 12)
    assert answer.headers["allow"] == "GET, HEAD"


@both_versions
@pytest.mark.parametrize("resource", [resource for resource in routes().resources if resource.has_head], ids=lambda each: each.template.template)
def test_head_is_get_without_the_body(gateway: Gateway, resource: Resource, *, http2: bool) -> None:
    path = concrete(resource.template.template)
    with _client(gateway, http2=http2) as client:
        for headers in ({}, {"authorization": ""}):
            got, head = (client.request(method, path, headers=headers) for method in ("GET", "HEAD"))
            assert head.status_code == got.status_code
            assert head.content == b""
            assert head.headers.get("content-length") == got.headers["content-length"]
            assert head.headers["content-type"] == got.headers["content-type"]


@both_versions
@pytest.mark.parametrize("path", ["/health", "/ready", "/.well-known/jwks.json"])
def test_head_of_the_gateways_own_paths(gateway: Gateway, path: str, *, http2: bool) -> None:
    with _client(gateway, http2=http2) as client:
        head = client.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", client_length(gateway, path))


def client_length(gateway: Gateway, path: str) -> str:
    """Returns the length of the path's answer to GET."""
    return str(gateway.http.get(path).headers["content-length"])


@pytest.mark.parametrize("path", ["/health?x=1", "/ready?", "/ready?verbose"])
def test_a_probe_may_have_a_query(gateway: Gateway, path: str) -> None:
    answer = gateway.http.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy" if "health" in path else "ready")


@pytest.mark.parametrize("path", ["/healthy", "/health/x", "/readyz"])
def test_only_the_probes_are_probes(gateway: Gateway, path: str) -> None:
    assert gateway.http.get(path).status_code == 401


@pytest.mark.parametrize("headers", [ORIGIN, {}, {"origin": "https://evil.example"}], ids=["allowed", "none", "other"])
@pytest.mark.parametrize(
    ("method", "path", "token"),
    [("GET", TASK, True), ("GET", TASK, False), ("PUT", "/api/v1/tasks", True), ("GET", "/health", False), ("GET", "/no", True)],
)
def test_caches_keep_the_answers_of_origins_apart(gateway: Gateway, method: str, path: str, headers: Mapping[str, str], *, token: bool) -> None:
    """The answer without an origin has no CORS headers, so it is no answer for an origin."""
    assert "origin" in gateway.request(method, path, token=token, headers=headers).headers["vary"].lower()


def test_preflights_vary_too(gateway: Gateway) -> None:
    answer = gateway.http.options(TASK, headers=ORIGIN | {"access-control-request-method": "GET"})
    assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert "origin" in answer.headers["vary"].lower()


def test_without_cors_nothing_depends_on_the_origin(stack: Stack) -> None:
    with gateway_behind(stack) as gateway:
        assert "vary" not in gateway.request("GET", TASK, headers=ORIGIN).headers


# Compression.


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("identity", None),
        ("", None),
        ("gzip;q=0", None),
        ("deflate", None),
        ("br;q=0.1, gzip", "gzip"),
    ],
)
def test_a_long_answer_is_compressed_if_the_client_accepts_it(gateway: Gateway, stack: Stack, accept: str, encoding: str | None) -> None:
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(description="x" * 5000))
    with httpx.Client() as client, client.stream("GET", gateway.url + TASK, headers=gateway.bearer() | {"accept-encoding": accept}) as answer:
        sent = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == encoding
        assert "accept-encoding" in answer.headers["vary"].lower()
    assert (len(sent) > 5000) == (encoding is None)
    if encoding == "gzip":
        assert json.loads(gzip.decompress(sent))["description"] == "x" * 5000


@pytest.mark.parametrize(("characters", "compressed"), [(1000, False), (2100, True)])
def test_a_short_answer_is_not_compressed(gateway: Gateway, stack: Stack, characters: int, *, compressed: bool) -> None:
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(description="x" * characters))
    answer = gateway.request("GET", TASK, headers={"accept-encoding": "gzip"})
    assert ("content-encoding" in answer.headers) == compressed
    assert answer.json()["description"] == "x" * characters


def test_head_of_a_compressed_answer_has_no_body(gateway: Gateway, stack: Stack) -> None:
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(description="x" * 3_000_000))
    for http2 in (False, True):
        with _client(gateway, http2=http2) as client:
            for accept in ("gzip", "identity"):
                head = client.head(TASK, headers={"accept-encoding": accept})
                assert (head.status_code, head.content) == (200, b"")
                # A body of HTTP/1 would be read as the beginning of the next answer.
                assert client.get(TASK).status_code == 200


def test_grpc_is_never_compressed(gateway: Gateway, stack: Stack) -> None:
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)(description="x" * 5000))
    headers = {"content-type": "application/grpc", "te": "trailers", "accept-encoding": "gzip, br, zstd"}
    with _client(gateway, http2=True) as client:
        answer = client.post(GET_TASK, content=bytes(5), headers=headers)
    assert "content-encoding" not in answer.headers
    assert len(answer.content) > 5000


# Bodies.


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip"},
        {"content-encoding": "br"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "text/plain;charset=latin1"},
    ],
    ids=str,
)
def test_a_body_in_another_encoding_is_refused(gateway: Gateway, stack: Stack, headers: dict[str, str]) -> None:
    answer = gateway.request("POST", "/api/v1/tasks", content=gzip.compress(b"{}"), headers=headers)
    assert_error(answer, 415, 3, "MALFORMED_REQUEST")
    assert (answer.headers["accept"], answer.headers["accept-encoding"]) == ("application/json", "identity")
    assert stack.requests() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "identity"},
        {"content-type": "application/json; charset=UTF-8"},
        {"content-type": 'application/json;charset="utf-8"'},
        {"content-type": "application/x-www-form-urlencoded"},  # curl's default
        {"content-type": ""},
    ],
    ids=str,
)
def test_a_body_in_utf_8_is_read(gateway: Gateway, headers: dict[str, str]) -> None:
    assert gateway.request("POST", "/api/v1/tasks", content=b"{}", headers=headers).status_code == 201


def test_a_gzip_bomb_is_refused(gateway: Gateway, stack: Stack) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    assert_error(gateway.request("POST", "/api/v1/tasks", content=bomb, headers={"content-encoding": "gzip"}), 415, 3, "MALFORMED_REQUEST")
    headers = {"content-type": "application/grpc", "te": "trailers", "grpc-encoding": "gzip"}
    with _client(gateway, http2=True) as client:
        answer = client.post(GET_TASK, content=struct.pack(">BI", 1, len(bomb)) + bomb, headers=headers)
    assert answer.headers["grpc-status"] == "8"
    assert stack.requests() == []


def test_an_oversized_body_has_a_reason(gateway: Gateway) -> None:
    assert_error(gateway.request("POST", "/api/v1/tasks", content=bytes(4 * 1024 * 1024)), 413, 8, "REQUEST_TOO_LARGE")
    error = gateway.failure(LOGIN, gateway.stack.messages.request(LOGIN)(password="x" * 4 * 1024 * 1024), token=False)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


def test_over_http_2_the_whole_error_comes_before_the_reset(gateway: Gateway) -> None:
    """RFC 9113 section 8.1. Some clients discard the answer all the same."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "localhost",
        ":path": "/api/v1/tasks",
        "content-length": "4194304",
        **gateway.bearer(),
    }
    connection.send_headers(1, list(headers.items()))
    status, body = "", b""
    with connected(gateway.url) as raw:
        raw.sendall(connection.data_to_send())
        while True:
            # The socket has a time limit, and a closed connection reads as nothing, again and again.
            received = raw.recv(65536)
            assert received, f"closed after the status {status!r} and {len(body)} bytes"
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[":status"]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    assert (status, json.loads(body)["details"][0]["reason"]) == ("413", "REQUEST_TOO_LARGE")
                    return


# Headers.


@both_versions
@pytest.mark.parametrize("extra", [{"x-large": "x" * 40_000}, {f"x-{number}": "x" for number in range(120)}], ids=["large", "many"])
def test_too_large_headers_get_an_answer(gateway: Gateway, stack: Stack, extra: dict[str, str], *, http2: bool) -> None:
    with _client(gateway, http2=http2) as client:
        assert_error(client.get(TASK, headers=extra), 431, 8, "REQUEST_TOO_LARGE")
        assert client.get(TASK).status_code == 200
    assert stack.calls(GET_TASK) == 1


def test_too_large_metadata_gets_an_answer(gateway: Gateway) -> None:
    error = gateway.failure(GET_TASK, metadata={"x-large": "x" * 40_000})
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


# Secrets in URLs.


@pytest.mark.parametrize(
    "path", [f"{path}?{query}" for path in ("/api/v1/auth/login", "/api/v1/auth/register") for query in ("password=hunter22", "email=a@b.c", "x")]
)
def test_a_field_of_the_body_is_not_taken_from_the_query(gateway: Gateway, stack: Stack, path: str) -> None:
    answer = gateway.request("POST", path, token=False, json={})
    assert_error(answer, 400, 3, "MALFORMED_REQUEST")
    assert "hunter22" not in answer.text
    assert stack.requests() == []


def test_every_method_with_its_fields_in_the_body_has_no_query(gateway: Gateway, stack: Stack) -> None:
    for resource in routes().resources:
        for rest, rpc in resource.rpcs:
            if rest.whole_body:
                path = concrete(rest.template)
                assert_error(gateway.request(rest.method, f"{path}?id=1", json={}), 400, 3, "MALFORMED_REQUEST")
                assert stack.calls(rpc.path) == 0
                assert gateway.request(rest.method, f"{path}?", json={}).is_success
