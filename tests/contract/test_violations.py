"""An error names every invalid field, whichever part of the system checks it."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.contract.calls import Call, refusal
from tests.contract.table import NO_ID
from tests.support.accounts import Account

CASES: tuple[tuple[str, Mapping[str, Any], Mapping[str, str], set[str]], ...] = (
    ("CreateTask", {"task": {"priority": 9}}, {}, {"task.title", "task.priority"}),
    ("CreateTask", {"task": {"priority": 9, "labels": [""]}}, {"if_match": '"1"'}, {"task.title", "task.priority", "task.labels[0]", "if-match"}),
    ("ReplaceTask", {"task": {"id": NO_ID, "priority": 9, "etag": "x" * 65}}, {}, {"task.title", "task.priority", "task.etag"}),
    (
        "UpdateTask",
        {"task": {"id": NO_ID, "priority": 9}, "update_mask": "title,priority"},
        {"if_match": "no tag"},
        {"task.title", "task.priority", "if-match"},
    ),
    (
        "UpdateTask",
        {"task": {"id": NO_ID, "priority": 9, "etag": "x" * 65}, "update_mask": "nothing"},
        {},
        {"update_mask", "task.priority", "task.etag"},
    ),
    ("ListTasks", {"page_size": -1, "filter": "nonsense", "order_by": "nothing"}, {}, {"page_size", "filter", "order_by"}),
    ("ListTasks", {"skip": -1, "priority": 9, "filter": "title:a"}, {}, {"skip", "priority"}),
    (
        "BatchCreateTasks",
        {"requests": [{"task": {"priority": 9}}, {"task": {"title": ""}}]},
        {},
        {"requests[0].task.title", "requests[0].task.priority", "requests[1].task.title"},
    ),
    (
        "BatchUpdateTasks",
        {"requests": [{"task": {"id": "x", "priority": 0}}, {"task": {"id": NO_ID}, "update_mask": "nothing"}]},
        {},
        {"requests[0].task.id", "requests[0].task.priority", "requests[1].update_mask"},
    ),
    ("DeleteTask", {"id": NO_ID, "etag": "x" * 65}, {"if_match": "no tag"}, {"etag", "if-match"}),
    ("Register", {"email": "nobody", "password": "short", "name": " "}, {}, {"email", "password", "name"}),
    ("ChangePassword", {"current_password": "", "new_password": "short"}, {}, {"current_password", "new_password"}),
    ("UpdateMe", {"user": {}, "update_mask": "name,email"}, {}, {"user.name", "update_mask"}),
)


@pytest.mark.parametrize(("rpc", "values", "headers", "fields"), CASES, ids=[f"{case[0]}-{'-'.join(sorted(case[3]))}" for case in CASES])
async def test_every_invalid_field_is_named(
    rpc: str, values: Mapping[str, Any], headers: Mapping[str, str], fields: set[str], account: Account, call: Call
) -> None:
    error = refusal(await call(rpc, values, account, **headers))
    assert (error.reason, set(error.fields)) == ("INVALID_FIELD", fields)
    assert all(f"{field}: " in error.message for field in fields)
