"""Idempotency keys for every write: the write is executed once, and a retry gets the first answer. Other users and other requests do not get it.

The methods come from the descriptors and their requests from the contract's table, so a new method needs only its row.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.contract.table import filled, row_of
from tests.e2e.scenes import KEY, WITHIN_SECONDS, WRITES, SceneFactory, Way, done, every_write, others, require_replays
from tests.support.calls import message_of
from tests.support.descriptors import Rpc, named
from tests.support.tiers import first_quick
from tests.support.waiting import eventually

REUSED = "IDEMPOTENCY_KEY_REUSED"
DAY = timedelta(hours=24)


# The same request.


@every_write
@pytest.mark.parametrize("by", first_quick(["rest", "gateway", "first", "second"]))
async def test_the_same_request_is_answered_as_at_first_by_every_way(rpc: Rpc, by: str, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """Also on another replica, over another protocol, and after other changes. REST and gRPC carry the same message, so it is the same request."""
    scene = await scene_of(rpc)
    before = await scene.logged()
    first = await done(ways[by], scene)
    assert (first.outcome, first.replayed) == ("OK", None)
    await scene.require_logged(before + scene.changes)
    for task_id in (scene.world.task_id, scene.world.binned_task_id):
        message = message_of(named("UpdateTask"), {"task": {"id": task_id, "description": "meanwhile"}})
        await ways["first"](named("UpdateTask"), message, scene.account, {})
    await require_replays(ways, scene, first)


@every_write
async def test_many_at_once_are_one_write_and_one_answer(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    scene = await scene_of(rpc)
    before = await scene.logged()
    async with scene.held_up() as waiting:
        calls = [asyncio.create_task(done(way, scene)) for way in (*ways.values(), *ways.values())]
        await eventually(lambda: waiting(1), within=WITHIN_SECONDS)
    found = await asyncio.gather(*calls)
    assert {answer.outcome for answer in found} == {"OK"}
    assert sorted(answer.replayed or "" for answer in found) == ["", *["true"] * 7]
    assert all(answer.values == found[0].values for answer in found)
    await scene.require_logged(before + scene.changes)


@every_write
async def test_without_a_key_it_is_done_again(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """Otherwise the other tests would prove nothing."""
    scene = await scene_of(rpc)
    assert (await done(ways["first"], scene, {})).outcome == "OK"
    again = await done(ways["first"], scene, {})
    assert (again.outcome, again.replayed) == (scene.second_time, None)


# A different request.


@every_write
async def test_another_request_under_the_key_is_refused(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """A difference in any field counts. Afterwards the first request is still replayed."""
    scene = await scene_of(rpc)
    first = await done(ways["first"], scene)
    before = await scene.logged()
    changed = dict(others(scene.message))
    assert len(changed) >= 2
    for what, other in changed.items():
        answer = await ways["second"](rpc, other, scene.account, KEY)
        assert answer.outcome == REUSED, f"{what}: {answer}"
        assert answer.replayed is None
    assert await scene.logged() == before
    await require_replays(ways, scene, first)


@pytest.mark.parametrize("name", ["UpdateTask", "ReplaceTask", "DeleteTask", "UndeleteTask"])
async def test_another_if_match_is_another_request(name: str, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    for given, rest in ((None, ("*", '"1"')), ("*", (None, '"1"')), ("{now}", (None, "*", '"9"', '{now}, "9"'))):
        scene = await scene_of(named(name))
        now = '"2"' if name == "UndeleteTask" else '"1"'
        headers = [{**KEY, **({} if value is None else {"if-match": value.format(now=now)})} for value in (given, *rest)]
        assert (await done(ways["first"], scene, headers[0])).outcome == "OK"
        for other in headers[1:]:
            assert (await done(ways["rest"], scene, other)).outcome == REUSED, other
        # The etag is no longer the current one. A replay does not check it again.
        assert (await done(ways["rest"], scene, headers[0])).replayed == "true"


@every_write
async def test_another_method_is_another_request(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    scene = await scene_of(rpc, *WRITES)
    first = await done(ways["first"], scene)
    for other in WRITES:
        if other is not rpc:
            message = message_of(other, filled(row_of(other.name).message, scene.world))
            assert (await ways["first"](other, message, scene.account, KEY)).outcome == REUSED, other.name
    await require_replays(ways, scene, first)


@pytest.mark.parametrize(
    ("first", "other", "request_"),
    [
        ("DeleteTask", "UndeleteTask", {"id": "$task_id"}),
        ("UndeleteTask", "DeleteTask", {"id": "$binned_task_id"}),
        ("ReplaceTask", "UpdateTask", {"task": {"id": "$task_id", "title": "Changed"}}),
        ("UpdateTask", "CreateTask", {"task": {"id": "$task_id", "title": "Changed"}}),
        ("BatchUpdateTasks", "BatchCreateTasks", {"requests": [{"task": {"id": "$task_id", "title": "Changed"}}]}),
    ],
)
async def test_also_if_it_is_the_same_bytes(
    first: str, other: str, request_: Mapping[str, Any], scene_of: SceneFactory, ways: Mapping[str, Way]
) -> None:
    scene = await scene_of(named(first))
    messages = [message_of(named(name), filled(request_, scene.world)) for name in (first, other)]
    assert messages[0].SerializeToString() == messages[1].SerializeToString()
    assert (await ways["first"](named(first), messages[0], scene.account, KEY)).outcome == "OK"
    assert (await ways["first"](named(other), messages[1], scene.account, KEY)).outcome == REUSED


@every_write
async def test_another_users_key_is_another_key(rpc: Rpc, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    mine, theirs = [await scene_of(rpc) for _ in range(2)]
    first = await done(ways["first"], mine)
    other = await done(ways["first"], theirs)
    assert (other.outcome, other.replayed) == ("OK", None)
    await require_replays(ways, mine, first)
    # Also with exactly the same request.
    same = await done(ways["first"], replace(mine, account=(await scene_of(rpc)).account))
    assert same.replayed is None
    # A new task names a project of the other user.
    kind = "PROJECT" if "Project" in rpc.name or "Create" in rpc.name else "WEBHOOK" if "Webhook" in rpc.name else "TASK"
    assert same.outcome == ("OK" if rpc.name.endswith((".CreateProject", ".CreateWebhook")) else f"{kind}_NOT_FOUND")


# What the key remembers, and for how long.


@every_write
async def test_a_refusal_is_not_remembered(rpc: Rpc, rest: httpx.AsyncClient, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:
    """The service executes the same request with the same key again, and then it succeeds."""
    scene = await scene_of(rpc)
    kind, target = rpc.name.split(".")[-2].removesuffix("Service"), _target_of(scene.message)
    path = f"/api/v1/{kind.lower()}s"
    if "Create" in rpc.name:
        # No state of the data makes a creation fail. So use an invalid header, and an invalid request.
        refused = [await done(ways["first"], scene, {**KEY, "if-match": "*"}), await ways["first"](rpc, rpc.request(), scene.account, KEY)]
        assert [answer.outcome for answer in refused] == ["INVALID_FIELD"] * 2
    elif kind == "Webhook":
        assert (await done(ways["first"], scene, {**KEY, "if-match": '"9"'})).outcome == "ETAG_MISMATCH"
    elif "Undelete" in rpc.name:
        assert (await rest.post(f"{path}/{target}:undelete", headers=scene.account.headers)).is_success
        assert (await done(ways["first"], scene)).outcome == f"{kind.upper()}_NOT_DELETED"
        assert (await rest.delete(f"{path}/{target}", headers=scene.account.headers)).is_success
    else:
        assert (await rest.delete(f"{path}/{target}", headers=scene.account.headers)).is_success
        assert (await done(ways["first"], scene)).outcome == f"{kind.upper()}_NOT_FOUND"
        assert (await rest.post(f"{path}/{target}:undelete", headers=scene.account.headers)).is_success
    before = await scene.logged()
    first = await done(ways["second"], scene)
    assert (first.outcome, first.replayed) == ("OK", None)
    await scene.require_logged(before + scene.changes)
    await require_replays(ways, scene, first)


@every_write
@pytest.mark.parametrize("swept", [False, True], ids=["not swept", "swept"])
async def test_after_a_day_the_key_is_a_new_one(rpc: Rpc, swept: bool, scene_of: SceneFactory, ways: Mapping[str, Way]) -> None:  # noqa: FBT001
    scene = await scene_of(rpc)
    first = await done(ways["first"], scene)
    await scene.age(DAY - timedelta(minutes=5))
    await require_replays(ways, scene, first)
    await scene.age(timedelta(minutes=6))
    if swept:
        await scene.postgres.execute("SELECT task.sweep('365 days', '365 days', 1000)")
        assert await scene.postgres.fetchval("SELECT count(*) FROM task.idempotency_keys WHERE user_id = $1", scene.account.id) == 0
    again = await done(ways["second"], scene)
    assert (again.outcome, again.replayed) == (scene.second_time, None)
    # The key can be used for any request again.
    create = named("CreateTask")
    other = message_of(create, {"task": {"title": "Under a key of yesterday"}})
    if again.error is not None:
        assert (await ways["first"](create, other, scene.account, KEY)).replayed is None
    else:
        await require_replays(ways, scene, again)


def _target_of(message: Any) -> str:
    """Returns the id of the object that a write is about; of a batch the last one, so that the others are executed and rolled back."""
    if "requests" in message.DESCRIPTOR.fields_by_name:
        return _target_of(message.requests[-1])
    for name in ("task", "project", "webhook"):
        if name in message.DESCRIPTOR.fields_by_name:
            return str(getattr(message, name).id)
    return str(message.id)
