"""The contract of batches over REST and gRPC: all operations in order or none, the index of a rejected operation, and size limits."""

from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest

from tests.contract.calls import FAILED_PRECONDITION, INVALID, NOT_FOUND, Call, over_grpc, refusal
from tests.contract.table import NO_ID, World
from tests.support.accounts import Account
from tests.support.tiers import first_quick

# The maximum size of an answer's text.
ANSWER_BYTES = 3 * 1024 * 1024
MOST = 1000


@pytest.fixture
def grpc_call(gateway_channel: grpc.aio.Channel) -> Call:
    """Makes calls over gRPC only."""
    return over_grpc(gateway_channel)


@pytest.mark.parametrize("count", [1, MOST])
async def test_a_batch_does_all_in_its_order(call: Call, account: Account, count: int) -> None:
    titles = [f"{n}" for n in range(count)]
    made = (await call("BatchCreateTasks", {"requests": [{"task": {"title": title}} for title in titles]}, account)).values["tasks"]
    assert [task["title"] for task in made] == titles
    requests = [{"task": {"id": task["id"], "priority": 5, "etag": '"1"'}} for task in reversed(made)]
    changed = (await call("BatchUpdateTasks", {"requests": requests}, account)).values["tasks"]
    assert [(task["title"], task["priority"], task["etag"]) for task in changed] == [(title, 5, '"2"') for title in reversed(titles)]
    read = (await call("BatchGetTasks", {"ids": [task["id"] for task in changed[:50]]}, account)).values["tasks"]
    assert read == changed[:50]
    assert (await call("BatchDeleteTasks", {"requests": [{"id": task["id"], "etag": '"2"'} for task in made]}, account)).values == {}
    assert (await call("ListTasks", {}, account)).values["tasks"] == []


async def test_one_task_may_come_twice(call: Call, acted: tuple[World, Account]) -> None:
    world, account = acted
    read = (await call("BatchGetTasks", {"ids": [world.task_id, world.second_task_id, world.task_id]}, account)).values["tasks"]
    assert [task["id"] for task in read] == [world.task_id, world.second_task_id, world.task_id]
    twice = [{"task": {"id": world.task_id, "title": title}} for title in ("Once", "Twice")]
    changed = (await call("BatchUpdateTasks", {"requests": twice}, account)).values["tasks"]
    assert [(task["title"], task["etag"]) for task in changed] == [("Once", '"2"'), ("Twice", '"3"')]
    error = refusal(await call("BatchDeleteTasks", {"requests": [{"id": world.second_task_id}, {"id": world.second_task_id}]}, account))
    assert (error.code, error.metadata) == (NOT_FOUND, {"index": "1"})
    assert (await call("GetTask", {"id": world.second_task_id}, account)).error is None


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_the_refused_one_is_named_and_nothing_is_done(call: Call, account: Account, bad: int) -> None:
    made = (await call("BatchCreateTasks", {"requests": [{"task": {"title": f"{n}"}} for n in range(3)]}, account)).values["tasks"]
    ids = [task["id"] for task in made]

    def with_bad(good: Callable[[str], Any], wrong: Any) -> dict[str, Any]:
        return {"requests": [wrong if n == bad else good(task_id) for n, task_id in enumerate(ids)]}

    def update(task_id: str) -> dict[str, Any]:
        return {"task": {"id": task_id, "title": "Changed"}}

    place = f"requests[{bad}]"
    invalid = (
        ("BatchCreateTasks", with_bad(lambda _: {"task": {"title": "New"}}, {"task": {"description": "x"}}), f"{place}.task.title"),
        ("BatchCreateTasks", with_bad(lambda _: {"task": {"title": "New"}}, {}), f"{place}.task"),
        ("BatchCreateTasks", with_bad(lambda _: {"task": {"title": "New"}}, {"task": {"title": "x" * 201}}), f"{place}.task.title"),
        ("BatchUpdateTasks", with_bad(update, {"task": {"id": "x"}}), f"{place}.task.id"),
        ("BatchUpdateTasks", with_bad(update, {**update(ids[bad]), "update_mask": "id"}), f"{place}.update_mask"),
        ("BatchDeleteTasks", with_bad(lambda task_id: {"id": task_id}, {"id": "x"}), f"{place}.id"),
    )
    for name, request, field in invalid:
        error = refusal(await call(name, request, account))
        assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_FIELD", [field])
    etags = {"etag": '"1"', "index": str(bad)}
    refused = (
        ("BatchUpdateTasks", with_bad(update, update(NO_ID)), "TASK_NOT_FOUND", {"index": str(bad)}),
        ("BatchUpdateTasks", with_bad(update, {"task": {"id": ids[bad], "title": "Changed", "etag": '"2"'}}), "ETAG_MISMATCH", etags),
        ("BatchDeleteTasks", with_bad(lambda task_id: {"id": task_id}, {"id": NO_ID}), "TASK_NOT_FOUND", {"index": str(bad)}),
        ("BatchDeleteTasks", with_bad(lambda task_id: {"id": task_id}, {"id": ids[bad], "etag": '"2"'}), "ETAG_MISMATCH", etags),
        ("BatchGetTasks", {"ids": [NO_ID if n == bad else task_id for n, task_id in enumerate(ids)]}, "TASK_NOT_FOUND", {"index": str(bad)}),
    )
    for name, request, reason, metadata in refused:
        error = refusal(await call(name, request, account))
        assert (error.reason, error.metadata) == (reason, metadata)
        assert error.message.startswith(f"{'ids' if name == 'BatchGetTasks' else 'requests'}[{bad}]: ")
    assert (await call("ListTasks", {"order_by": "title"}, account)).values["tasks"] == made


# Sizes. The tests use a character of four bytes, and one that JSON escapes to six bytes.


def _filling(total: int, character: str) -> list[dict[str, Any]]:
    """Returns the maximum number of creations, with titles of maximum length and descriptions that bring the text to at most `total` bytes."""
    width = len(character.encode())
    each = total // MOST // width - 200
    return [{"task": {"title": character * 200, "description": character * each}} for _ in range(MOST)]


@pytest.mark.parametrize("character", first_quick(["x", "𝄞"]))
async def test_the_largest_batch_that_can_be_sent_is_answered(call: Call, account: Account, character: str) -> None:
    """The fields that the server sets make the answer larger than the request, but it stays within the limit of gRPC clients."""
    # Besides the text, JSON needs 39 bytes for each item and a few bytes in total. Protobuf needs less.
    requests = _filling(ANSWER_BYTES - 40 * MOST, character)
    made = (await call("BatchCreateTasks", {"requests": requests}, account, idempotency_key="largest")).values["tasks"]
    assert [{"task": {name: task[name] for name in ("title", "description")}} for task in made] == requests
    again = await call("BatchCreateTasks", {"requests": requests}, account, idempotency_key="largest")
    assert (again.values["tasks"], again.replayed) == (made, "true")


@pytest.mark.parametrize("character", first_quick(["x", "𝄞", "\x01"]))
async def test_a_batch_whose_answer_would_be_too_large_changes_nothing(call: Call, account: Account, grpc_call: Call, character: str) -> None:
    size = 10_000 * len(character.encode())
    count = 1 + ANSWER_BYTES // size
    made: list[dict[str, Any]] = []
    while len(made) < count:
        requests = [{"task": {"title": "a", "description": character * 10_000}}] * min(50, count - len(made))
        made += (await grpc_call("BatchCreateTasks", {"requests": requests}, account)).values["tasks"]
    updates = [{"task": {"id": task["id"], "title": "b"}} for task in made]
    error = refusal(await call("BatchUpdateTasks", {"requests": updates}, account, idempotency_key="large"))
    assert (error.code, error.reason, error.metadata) == (FAILED_PRECONDITION, "ANSWER_TOO_LARGE", {"index": str(count - 1)})
    assert (await call("GetTask", {"id": made[0]["id"]}, account)).values == made[0]
    # With one item less the batch fits over both protocols, and the idempotency key is still unused.
    changed = await call("BatchUpdateTasks", {"requests": updates[:-1]}, account, idempotency_key="large")
    assert [(task["title"], task["description"] == character * 10_000) for task in changed.values["tasks"]] == [("b", True)] * (count - 1)
