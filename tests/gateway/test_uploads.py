"""The limits on the bodies of REST requests (gateway.uploads)."""

import itertools
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from gateway import uploads
from tests.gateway.errors import assert_error
from tests.gateway.stack import CREATE_TASK, Gateway, Stack, gateway_behind
from tests.support.rawhttp import connected

TASKS, TASK = "/api/v1/tasks", "/api/v1/tasks/1"
KIBIBYTE = 1024
LARGEST = 3 * KIBIBYTE * KIBIBYTE
AT_ONCE = 4
USERS = itertools.count()


@pytest.fixture
def user(gateway: Gateway) -> dict[str, str]:
    """The token of a user who has uploaded nothing."""
    return gateway.bearer(sub=f"uploader-{next(USERS)}")


def _body(size: int) -> bytes:
    return b'{"title":"' + b"x" * (size - 12) + b'"}'


def _upload(gateway: Gateway, user: dict[str, str], size: int, *, chunked: bool = False, method: str = "POST", path: str = TASKS) -> httpx.Response:
    body: Any = iter([_body(size)]) if chunked else _body(size)
    return gateway.request(method, path, token=False, headers=user, content=body)


def _uploads(gateway: Gateway, user: dict[str, str], size: int, **options: Any) -> Iterator[int]:
    while True:
        yield _upload(gateway, user, size, **options).status_code


def test_a_user_has_the_four_largest_bodies_and_then_waits(gateway: Gateway, stack: Stack, user: dict[str, str]) -> None:
    assert list(itertools.islice(_uploads(gateway, user, LARGEST), AT_ONCE)) == [201] * AT_ONCE
    answer = _upload(gateway, user, LARGEST)
    assert_error(answer, 429, 8, "TOO_MANY_UPLOADS")
    assert answer.headers["retry-after"] == "4"
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "4s"} in answer.json()["details"]
    assert stack.calls(CREATE_TASK) == AT_ONCE


def test_the_limit_is_one_users_large_bodies_over_rest(gateway: Gateway, stack: Stack, user: dict[str, str]) -> None:
    sub = f"uploader-{next(USERS)}"
    assert [_upload(gateway, gateway.bearer(sub=sub, jti=f"{number}"), LARGEST).status_code for number in range(AT_ONCE + 1)] == [201] * AT_ONCE + [
        429
    ]
    same = gateway.bearer(sub=sub)
    assert _upload(gateway, user, LARGEST).status_code == 201
    assert _upload(gateway, same, uploads.COUNTED_BYTES - 1).status_code == 201
    assert gateway.request("GET", TASK, token=False, headers=same).status_code == 200
    message = stack.messages.request(CREATE_TASK)()
    message.task.title = "x" * (LARGEST - 100)
    gateway.call(CREATE_TASK, message, token=False, metadata=same)


@pytest.mark.parametrize(("method", "path"), [("PATCH", TASK), ("PUT", TASK), ("POST", "/api/v1/tasks:batchCreate"), ("POST", "/api/v1/projects")])
def test_every_method_with_a_body_counts(gateway: Gateway, user: dict[str, str], method: str, path: str) -> None:
    for _ in range(AT_ONCE):
        _upload(gateway, user, LARGEST)
    assert_error(_upload(gateway, user, LARGEST, method=method, path=path), 429, 8, "TOO_MANY_UPLOADS")


@pytest.mark.parametrize(
    "size", [16 * KIBIBYTE, 19_999, 64 * KIBIBYTE, 99 * KIBIBYTE, 100_000, 128 * KIBIBYTE, 300 * KIBIBYTE, 2048 * KIBIBYTE, LARGEST]
)
def test_a_body_counts_as_often_as_it_is_long(stack: Stack, user: dict[str, str], size: int) -> None:
    times = max(1, min(size // (128 * KIBIBYTE), 16))
    # Twice as much as such a body counts, and no more for a long time.
    with _with_bucket(stack, 2 * size * times) as gateway:
        assert list(itertools.islice(_uploads(gateway, user, size), 3)) == [201, 201, 429]


def _with_bucket(stack: Stack, tokens: int) -> AbstractContextManager[Gateway]:
    """Runs a gateway whose users have this many tokens and get no more for a long time."""
    before, after = (json.dumps(bucket, sort_keys=True) for bucket in (uploads.BUCKET, uploads.BUCKET | {"max_tokens": tokens, "tokens_per_fill": 1}))
    return gateway_behind(stack, sooner={before: after})


def test_a_body_that_a_setting_allows_counts_as_one_of_3_mib(stack: Stack, user: dict[str, str]) -> None:
    with gateway_behind(stack, max_request_bytes=2 * LARGEST) as gateway:
        assert list(itertools.islice(_uploads(gateway, user, LARGEST + 512 * KIBIBYTE), AT_ONCE + 1)) == [201] * AT_ONCE + [429]


def test_a_refused_body_need_not_be_sent(gateway: Gateway, user: dict[str, str]) -> None:
    for _ in range(AT_ONCE):
        _upload(gateway, user, LARGEST)
    lines = [f"POST {TASKS} HTTP/1.1", "host: localhost", f"authorization: {user['authorization']}", f"content-length: {LARGEST}"]
    with connected(gateway.url) as raw:
        raw.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert raw.recv(64 * KIBIBYTE).startswith(b"HTTP/1.1 429 ")


def test_a_body_waits_for_the_exchange_of_an_api_token(gateway: Gateway, stack: Stack, accepted: str) -> None:
    """Envoy stops reading while the token is exchanged. It must read on afterwards."""
    for number in range(AT_ONCE):
        assert _upload(gateway, {"authorization": f"Bearer tm_{number:048}0"}, LARGEST).status_code == 201
    assert stack.metadata()["authorization"] == f"Bearer {accepted}"


# Of a method that has no body.


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("method", "path"), [("GET", TASKS), ("GET", TASK), ("DELETE", TASK)])
def test_a_body_of_a_method_without_one_has_4_kib(gateway: Gateway, user: dict[str, str], method: str, path: str, *, chunked: bool) -> None:
    assert _upload(gateway, user, uploads.BODILESS_BYTES + 1, method=method, path=path, chunked=chunked).status_code == 413


# Without a content-length.


@pytest.mark.parametrize("http2", [False, True])
def test_a_body_without_a_length_has_64_kib(gateway: Gateway, stack: Stack, user: dict[str, str], *, http2: bool) -> None:
    with httpx.Client(base_url=gateway.url, http1=not http2, http2=http2, headers=user, timeout=30) as client:
        assert client.post(TASKS, content=iter([_body(uploads.UNDECLARED_BYTES)])).status_code == 201
        answer = client.post(TASKS, content=iter([_body(uploads.UNDECLARED_BYTES + 1)]))
    assert_error(answer, 413, 8, "REQUEST_TOO_LARGE")
    assert answer.json()["message"] == "A body without a content-length may have 64 KiB."
    assert stack.calls(CREATE_TASK) == 1


@pytest.mark.parametrize("http2", [False, True])
def test_a_body_without_a_length_counts(stack: Stack, user: dict[str, str], *, http2: bool) -> None:
    size = 60 * KIBIBYTE
    with (
        _with_bucket(stack, 2 * size) as gateway,
        httpx.Client(base_url=gateway.url, http1=not http2, http2=http2, headers=user, timeout=30) as client,
    ):
        assert [client.post(TASKS, content=iter([_body(size)])).status_code for _ in range(3)] == [201, 201, 429]


# Methods that need no token.


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_a_token_has_64_kib(gateway: Gateway, stack: Stack, *, chunked: bool) -> None:
    path = "/api/v1/auth/login"
    body = b'{"email":"' + b"x" * (uploads.PUBLIC_BYTES - 12) + b'"}'
    for size, status in ((0, 200), (1, 413)):
        content: Any = iter([body + b" " * size]) if chunked else body + b" " * size
        answer = gateway.request("POST", path, token=False, content=content)
        assert answer.status_code == status
    assert_error(answer, 413, 8, "REQUEST_TOO_LARGE")
    assert len(stack.requests()) == 1
