"""The errors of the transcoder: no name of a type, and no long quotation."""

import json

import pytest

from tests.gateway.errors import assert_error
from tests.gateway.stack import Gateway, Stack

TASKS = "/api/v1/tasks"
LONG = "b" * 3000


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nope=1", 'Could not find field "nope".'),
        ("tasks.title=1", 'Could not find field "tasks".'),
        ("status=NOPE", 'status: invalid value "NOPE"'),
        ("page_size=many", 'page_size: invalid value "many"'),
        (f"status={LONG}", f'status: invalid value "{"b" * 100}…"'),
        (f"status={'%C3%A9' * 300}", f'status: invalid value "{"é" * 100}…"'),
        (f"status={'%22%5C' * 300}", None),
    ],
)
def test_a_query(gateway: Gateway, stack: Stack, query: str, message: str | None) -> None:
    answer = gateway.request("GET", f"{TASKS}?{query}")
    assert_error(answer, 400, 3, "MALFORMED_REQUEST")
    assert message is None or answer.json()["message"] == message
    assert len(answer.json()["message"]) < 150
    assert "x-from-transcoder" not in answer.headers
    assert not stack.requests()


@pytest.mark.parametrize(
    "body",
    [
        '{"title": {"a": 1}}',
        '{"task": nonsense',
        '{"status": "NOPE"}',
        '{"priority": "x"}',
        '{"labels": "x"}',
        '{"labels": [1]}',
        '{"due_date": "tomorrow"}',
        "[1]",
        json.dumps({"status": LONG}),
        json.dumps({"priority": 'a"\\\n\x01é' * 500}),
        json.dumps({"due_date": LONG}),
        LONG,
        b'{"title": "\xff"}',
        b"\x1f\x8b\x08" + bytes(100),
    ],
    ids=lambda body: str(body)[:20],
)
@pytest.mark.parametrize("path", [TASKS, "/api/v1/tasks:batchCreate"])
def test_a_body(gateway: Gateway, stack: Stack, path: str, body: str | bytes) -> None:
    answer = gateway.request("POST", path, content=body)
    if answer.is_success:  # the other request has no such field
        return
    assert_error(answer, 400, 3, "MALFORMED_REQUEST")
    message = answer.json()["message"]
    assert "taskmanager" not in answer.text.replace('"domain":"taskmanager"', "")
    assert "google" not in message
    assert "TYPE_" not in message
    assert len(message) <= 201
    assert "\n" not in message
    assert not stack.requests()
