"""The comparison of two OpenAPI documents finds each kind of change that breaks clients, and no other."""

import copy
import runpy
from collections.abc import Callable
from typing import Any

import pytest

from gateway.openapi.document import document
from tests.gateway.planted import planted
from tests.gateway.stack import DESCRIPTORS, ROOT

BREAKING: Callable[[Any, Any], Any] = runpy.run_path(str(ROOT / "proto" / "openapi_changes.py"))["breaking_changes"]
DOCUMENT = document(DESCRIPTORS.read_bytes(), {})
TASKS, TASK = "/api/v1/tasks", "/api/v1/tasks/{id}"


def changed(path: str, value: Any = None) -> dict[str, Any]:
    """Returns the document with another value at a place, or without the place."""
    new = copy.deepcopy(DOCUMENT)
    *names, last = path.split(" ")
    part: Any = new
    for name in names:
        part = part[int(name) if isinstance(part, list) else name]
    if value is None:
        del part[int(last) if isinstance(part, list) else last]
    else:
        part[last] = value
    return new


def test_nothing_or_more_breaks_no_client() -> None:
    assert list(BREAKING(DOCUMENT, DOCUMENT)) == []
    assert list(BREAKING(DOCUMENT, document(planted(DESCRIPTORS.read_bytes()), {}))) == []
    assert list(BREAKING(DOCUMENT, changed("components schemas TaskInput properties title maxLength", 300))) == []
    assert list(BREAKING(DOCUMENT, changed("components schemas Task properties color", {"type": "string"}))) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (f"paths {TASK} get", None, f"GET {TASK} is gone"),
        (f"paths {TASK} get operationId", "readTask", f"GET {TASK}: the operationId getTask is now readTask"),
        ("paths /api/v1/auth/login post security", [{"accessToken": []}], "POST /api/v1/auth/login now needs a token"),
        (f"paths {TASKS} post responses 201", None, f"POST {TASKS}: the status 201 is gone"),
        (f"paths {TASKS} get parameters 0", None, f"GET {TASKS}: the parameter page_size is gone"),
        (f"paths {TASKS} get parameters 0 required", True, f"GET {TASKS}: the parameter page_size is now required"),
        ("components schemas Task properties etag", None, f"GET {TASK}: the answer 200 no longer has etag"),
        ("components schemas Task required", ["id"], f"GET {TASK}: the answer 200 need no longer have title"),
        ("components schemas Task properties priority type", "string", f"GET {TASK}: the answer 200, priority is no longer integer, but string"),
        ("components schemas TaskInput required", ["title", "labels"], f"POST {TASKS}: the body must now have labels"),
        ("components schemas TaskInput properties title maxLength", 100, f"POST {TASKS}: the body, title has a narrower maxLength: 100"),
        ("components schemas TaskStatus enum", ["PENDING"], f"POST {TASKS}: the body, status may no longer be COMPLETED, IN_PROGRESS"),
        (
            "components schemas TaskInput properties labels items minLength",
            2,
            f"POST {TASKS}: an item of the body, labels has a narrower minLength: 2",
        ),
    ],
)
def test_a_change_that_breaks_clients_is_told(path: str, value: Any, told: str) -> None:
    assert told in list(BREAKING(DOCUMENT, changed(path, value)))
