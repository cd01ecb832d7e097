"""Envoy runs the Lua filters only for the requests that need them, because a script costs more than every other filter."""

import pytest

from tests.gateway.stack import GET_TASK, LOGIN, Gateway

TASKS = "/api/v1/tasks"


def _scripts(gateway: Gateway) -> int:
    """Returns the number of scripts that Envoy has run so far."""
    stats = gateway.http.get(f"http://127.0.0.1:{gateway.settings.admin_port}/stats", params={"filter": "gateway.lua.executions"}).text
    return int(stats.rpartition(":")[2])


def test_an_ordinary_request_runs_no_script(gateway: Gateway) -> None:
    before = _scripts(gateway)
    assert gateway.request("GET", f"{TASKS}/1", headers={"x-request-id": "my-id.1"}).status_code == 200
    assert gateway.request("GET", f"{TASKS}/1/").status_code == 404
    assert gateway.request("GET", TASKS, token=False).status_code == 401
    assert gateway.request("POST", "/api/v1/auth/login", token=False, json={}).status_code == 200
    assert gateway.request("GET", "/health").status_code == 200
    gateway.call(GET_TASK)
    gateway.call(LOGIN, token=False)
    assert _scripts(gateway) == before


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", TASKS, {"x-request-id": "a b"}),
        ("GET", TASKS, {"x-request-id": "x" * 65}),
        ("GET", TASKS, {"authorization": "bearer token"}),
        ("POST", GET_TASK, {"content-type": "application/grpc-web"}),
        ("POST", TASKS, {}),
    ],
)
def test_an_unusual_request_runs_a_script(gateway: Gateway, method: str, path: str, headers: dict[str, str]) -> None:
    before = _scripts(gateway)
    gateway.request(method, path, headers=headers, **({"json": {}} if path == TASKS and method == "POST" else {}))
    assert _scripts(gateway) > before
