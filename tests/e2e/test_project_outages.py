"""A replica is killed while it takes a project's tasks to the bin or out of it. A repetition on another replica goes on; each task changes once."""

import asyncio
from typing import Any

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from tests.support.accounts import Account
from tests.support.answers import Answer, by_grpc
from tests.support.calls import message_of
from tests.support.descriptors import named
from tests.support.outage import heal
from tests.support.waiting import eventually

pytestmark = pytest.mark.outage("kills a replica")

# Six writes of 500 tasks.
TASKS, BATCH = 3000, 1000
# Each of these is in the cache before.
READ_EVERY = 100
DELETED, RESTORED = 3, 4
LOGGED = "SELECT count(*) FROM task.changes WHERE user_id = $1 AND kind = $2 AND is_project = $3"


async def test_a_cascade_goes_on_after_its_replica_was_killed(
    breakable: Stack, breakable_rest: httpx.AsyncClient, breakable_replicas: tuple[grpc.aio.Channel, grpc.aio.Channel], breakable_account: Account
) -> None:
    rest, account = breakable_rest, breakable_account
    made = await rest.post("/api/v1/projects", json={"name": "Large"}, headers=account.headers)
    project_id, task_ids = made.json()["id"], []
    for _ in range(0, TASKS, BATCH):
        requests = [{"task": {"title": "One of many", "project_id": project_id}}] * BATCH
        answer = await rest.post("/api/v1/tasks:batchCreate", json={"requests": requests}, headers=account.headers)
        task_ids += [task["id"] for task in answer.json()["tasks"]]
    sample = task_ids[::READ_EVERY]
    database = await asyncpg.connect(breakable.state.database_url)
    try:
        for name, kind in (("DeleteProject", DELETED), ("UndeleteProject", RESTORED)):
            request = {"id": project_id} | ({"force": True} if kind == DELETED else {})
            assert {await _status(rest, account, task_id) for task_id in sample} == {200 if kind == DELETED else 404}
            cut_off = await _cut_off(breakable, breakable_replicas[0], database, name, request, account, kind)
            assert cut_off.error is not None
            assert cut_off.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
            assert 0 < await database.fetchval(LOGGED, account.id, kind, False) < TASKS, "it was not cut off in between"
            answers = [await _call(breakable_replicas[1], name, request, account) for _ in range(2)]
            assert [(answer.outcome, answer.replayed) for answer in answers] == [("OK", None), ("OK", "true")]
            assert [await database.fetchval(LOGGED, account.id, kind, is_project) for is_project in (False, True)] == [TASKS, 1]
            await heal(breakable)
            for _ in range(4):
                # By both replicas in turn, and then from the cache.
                assert {await _status(rest, account, task_id) for task_id in sample} == {404 if kind == DELETED else 200}
    finally:
        await database.close()


async def _cut_off(
    stack: Stack,
    replica: grpc.aio.Channel,
    database: "asyncpg.Connection[asyncpg.Record]",
    name: str,
    request: dict[str, Any],
    account: Account,
    kind: int,
) -> Answer:
    """Makes the call on task-1, and kills task-1 when the first tasks have changed."""

    async def require_begun() -> None:
        assert await database.fetchval(LOGGED, account.id, kind, False) > 0

    calling = asyncio.create_task(_call(replica, name, request, account))
    await eventually(require_begun, within=10, every=0.01)
    await stack.kill("task-1")
    return await calling


async def _call(replica: grpc.aio.Channel, name: str, request: dict[str, Any], account: Account) -> Answer:
    return await by_grpc(replica, named(name), message_of(named(name), request), account, {"idempotency-key": name})


async def _status(rest: httpx.AsyncClient, account: Account, task_id: str) -> int:
    return (await rest.get(f"/api/v1/tasks/{task_id}", headers=account.headers)).status_code
