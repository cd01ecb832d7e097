"""A method's own check sees a request beside the bounds, but not a large one that is beyond them."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from taskmanager.task.v1 import task_service_pb2

from servicekit.errors import InvalidField, Violation
from servicekit.rpc.admission import THOROUGH_BYTES, validation
from servicekit.rpc.call import Call
from tests.servicekit.rpc.test_method import methods


def _violations(rpc: str, request: Any) -> tuple[list[str], int]:
    """Returns the fields of the violations, and how often the method's own check was called. It finds the field `own` wrong."""
    called = 0

    def check(_: Any, __: Call) -> Sequence[Violation]:
        nonlocal called
        called += 1
        return [Violation("own", "is wrong")]

    with pytest.raises(InvalidField) as refused:
        validation(methods()[rpc], check)(request, Call({}, None, request_bytes=request.ByteSize()))
    return [violation.field for violation in refused.value.violations], called


@pytest.mark.parametrize("text", ["a", "\0"], ids=["valid", "invalid"])
def test_the_own_check_of_a_method_adds_to_the_bounds(text: str) -> None:
    fields, called = _violations("ListTasks", task_service_pb2.ListTasksRequest(filter=text))
    assert (fields, called) == (["filter"] * (text == "\0") + ["own"], 1)


def test_a_large_request_within_its_bounds_is_checked() -> None:
    one = task_service_pb2.UpdateTaskRequest(task={"id": str(uuid4()), "description": "x" * 10_000})
    fields, called = _violations("BatchUpdateTasks", task_service_pb2.BatchUpdateTasksRequest(requests=[one] * 2))
    assert (fields, called) == (["own"], 1)


@pytest.mark.parametrize(
    ("rpc", "request_", "field"),
    [
        ("BatchUpdateTasks", task_service_pb2.BatchUpdateTasksRequest(requests=[{"task": {}}] * 100_000), "requests"),
        ("ListTasks", task_service_pb2.ListTasksRequest(filter="title:" + "x" * THOROUGH_BYTES), "filter"),
        ("ListTasks", task_service_pb2.ListTasksRequest(order_by="title" + " " * THOROUGH_BYTES), "order_by"),
    ],
    ids=["batch", "filter", "order_by"],
)
def test_a_large_request_beyond_its_bounds_is_not_checked_further(rpc: str, request_: Any, field: str) -> None:
    """The check would take time and memory for each byte of what is refused anyway."""
    assert _violations(rpc, request_) == ([field], 0)
