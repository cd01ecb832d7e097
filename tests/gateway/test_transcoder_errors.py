"""The errors of the transcoder: no name of a type, and no long quotation."""

import json

import pytest

from tests.gateway.errors import assert_error
from tests.gateway.stack import Gateway, Stack

TASKS, BATCH = "/api/v1/tasks", "/api/v1/tasks:batchCreate"
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


# Bodies that no request can have, and bodies with the fields of a task, which the request of a batch does not have.
BROKEN = [
    '{"task": nonsense',
    '{"due_date": "tomorrow"}',
    "[1]",
    json.dumps({"due_date": LONG}),
    LONG,
    b'{"title": "\xff"}',
    b"\x1f\x8b\x08" + bytes(100),
]
OF_A_TASK = [
    '{"title": {"a": 1}}',
    '{"status": "NOPE"}',
    '{"priority": "x"}',
    '{"labels": [1]}',
    json.dumps({"status": LONG}),
    json.dumps({"priority": 'a"\\\n\x01é' * 500}),
]


@pytest.mark.parametrize(
    ("path", "body"),
    [*((path, body) for path in (TASKS, BATCH) for body in BROKEN), *((TASKS, body) for body in OF_A_TASK)],
    ids=lambda value: str(value)[:20],
)
def test_a_body(gateway: Gateway, stack: Stack, path: str, body: str | bytes) -> None:
    answer = gateway.request("POST", path, content=body)
    assert_error(answer, 400, 3, "MALFORMED_REQUEST")
    message = answer.json()["message"]
    assert "taskmanager" not in answer.text.replace('"domain":"taskmanager"', "")
    assert "google" not in message
    assert "TYPE_" not in message
    assert len(message) <= 201
    assert "\n" not in message
    assert not stack.requests()


@pytest.mark.parametrize("body", OF_A_TASK, ids=lambda body: body[:20])
def test_a_field_that_a_request_does_not_have_is_ignored(gateway: Gateway, stack: Stack, body: str) -> None:
    answer = gateway.request("POST", BATCH, content=body)
    assert (answer.status_code, answer.json()) == (200, {"tasks": []})
    (request,) = stack.requests()
    assert request.ByteSize() == 0


def test_a_single_value_is_read_as_a_list_of_it(gateway: Gateway, stack: Stack) -> None:
    assert gateway.request("POST", TASKS, content='{"labels": "x"}').status_code == 201
    (request,) = stack.requests()
    assert request.task.labels == ["x"]
