"""Projects, subtasks and order agree with a model of them, and the feed replayed gives exactly the state, also after clients that wrote at once."""

import asyncio
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import httpx
import pytest
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.stack import Stack
from tests.conftest import AccountFactory
from tests.model.lists import OK, Lists, Project
from tests.support.accounts import Account
from tests.support.calls import as_dict
from tests.support.tiers import first_quick

STEPS = 120
CLIENTS, STEPS_AT_ONCE = 4, 40
# Nobody has it.
UNKNOWN = "01890000-0000-7000-8000-000000000000"


class Client:
    """Makes calls over REST. Each returns the reason of a refusal, or OK, and the answer."""

    def __init__(self, rest: httpx.AsyncClient, account: Account) -> None:
        self._rest = rest
        self._account = account

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[str, Any]:
        response = await self._rest.request(method, f"/api/v1/{path}", json=body, headers={**self._account.headers, "idempotency-key": str(uuid4())})
        if response.is_success:
            return OK, response.json()
        assert response.status_code < 500, response.text
        return response.json()["details"][0]["reason"], None

    async def all(self, kind: str, query: str = "") -> Sequence[Mapping[str, Any]]:
        """Returns all tasks or projects."""
        found: list[Mapping[str, Any]] = []
        token = ""
        while True:
            _, page = await self.call("GET", f"{kind}?page_size=100&page_token={token}{query}")
            found += page[kind]
            token = page["next_page_token"]
            if not token:
                return found


class Run:
    """Random calls, by a seed. With a model, each answer is compared with it."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.chance = random.Random(seed)
        self.model = Lists()
        self.projects: list[str] = []
        self.tasks: list[str] = []

    def task(self) -> str:
        """Returns a task of the latest ones, seldom one that is unknown."""
        return self.chance.choice([*self.tasks[-14:], UNKNOWN] if self.chance.random() < 0.1 else self.tasks[-14:] or [UNKNOWN])

    def project(self) -> str:
        """Returns a project, or the inbox."""
        return self.chance.choice([*self.projects[-4:], "", ""])

    async def step(self) -> tuple[str, str]:
        """Makes one call. Returns the reason of the refusal that the model expects, and that of the system."""
        kinds = ["create"] * 4 + ["move"] * 5 + ["delete", "undelete", "undelete", "project", "delete_project", "undelete_project", "archive"]
        step = getattr(self, f"_{self.chance.choice(kinds)}")
        expected: str
        reason: str
        expected, reason = await step()
        return expected, reason

    async def _create(self) -> tuple[str, str]:
        project, parent = self.project(), self.task() if self.chance.random() < 0.5 else ""
        expected = self.model.may_create(project, parent)
        reason, made = await self.client.call("POST", "tasks", {"title": "t", "project_id": project, "parent_id": parent})
        if made:
            self.tasks.append(made["id"])
            if expected == OK:
                self.model.created(made["id"], project, parent)
        return expected, reason

    async def _move(self) -> tuple[str, str]:
        where: dict[str, str] = {}
        if self.chance.random() < 0.4:
            where["project_id"] = self.project()
        if self.chance.random() < 0.5:
            where["parent_id"] = self.chance.choice([self.task(), self.task(), ""])
        if self.chance.random() < 0.6:
            where[self.chance.choice(["before_id", "after_id"])] = self.task()
        task = self.task()
        expected = self.model.move(task, where.get("project_id"), where.get("parent_id"), where.get("before_id", ""), where.get("after_id", ""))
        reason, _ = await self.client.call("POST", f"tasks/{task}:move", where)
        return expected, reason

    async def _delete(self) -> tuple[str, str]:
        task = self.task()
        return self.model.delete(task), (await self.client.call("DELETE", f"tasks/{task}"))[0]

    async def _undelete(self) -> tuple[str, str]:
        task = self.task()
        return self.model.undelete(task), (await self.client.call("POST", f"tasks/{task}:undelete", {}))[0]

    async def _project(self) -> tuple[str, str]:
        reason, made = await self.client.call("POST", "projects", {"name": "p"})
        self.projects.append(made["id"])
        self.model.projects[made["id"]] = Project()
        return OK, reason

    async def _delete_project(self) -> tuple[str, str]:
        project, force = self.project() or UNKNOWN, self.chance.random() < 0.6
        expected = self.model.delete_project(project, force=force)
        return expected, (await self.client.call("DELETE", f"projects/{project}?force={str(force).lower()}"))[0]

    async def _undelete_project(self) -> tuple[str, str]:
        project = self.project() or UNKNOWN
        return self.model.undelete_project(project), (await self.client.call("POST", f"projects/{project}:undelete", {}))[0]

    async def _archive(self) -> tuple[str, str]:
        project, is_archived = self.project() or UNKNOWN, self.chance.random() < 0.4
        verb = "archive" if is_archived else "unarchive"
        return self.model.archive(project, is_archived=is_archived), (await self.client.call("POST", f"projects/{project}:{verb}", {}))[0]


async def _replayed(channel: grpc.aio.Channel, account: Account, token: str, last: int) -> Mapping[str, Mapping[str, Any]]:
    """Returns the tasks and projects that the feed gives after `last` changes, by id."""
    stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]
    call = stub.WatchTasks(task_service_pb2.WatchTasksRequest(resume_token=token, show_projects=True), metadata=account.metadata)
    state: dict[str, Mapping[str, Any]] = {}
    changes = 0
    async with asyncio.timeout(60):
        async for message in call:
            told = as_dict(message)
            if told["kind"] != "CHECKPOINT":
                entity = told.get("project") or told["task"]
                state[entity["id"]] = entity
                changes += 1
            if changes == last:
                break
    call.cancel()
    return state


async def _agrees(client: Client, channel: grpc.aio.Channel, account: Account, token: str, system: Stack) -> None:
    """The feed gives the state, and the state keeps the rules."""
    tasks, projects = await client.all("tasks", "&show_deleted=true"), await client.all("projects", "&show_deleted=true&show_archived=true")
    connection = await asyncpg.connect(system.state.database_url)
    last = await connection.fetchval("SELECT last_seq FROM task.counters WHERE user_id = $1", UUID(account.id))
    await connection.close()
    assert await _replayed(channel, account, token, last) == {each["id"]: each for each in (*tasks, *projects)}
    by_id = {task["id"]: task for task in tasks}
    binned = {each["id"] for each in (*tasks, *projects) if "deleted_at" in each}
    for task in tasks:
        depth, up = 1, task
        while up["parent_id"]:
            depth, up = depth + 1, by_id[up["parent_id"]]
            assert depth <= 5, "too deep, or a cycle"
        if task["id"] not in binned:
            assert task["parent_id"] not in binned
            assert task["project_id"] not in binned
            assert not task["parent_id"] or by_id[task["parent_id"]]["project_id"] == task["project_id"]


async def _start(rest: httpx.AsyncClient, account: Account) -> str:
    """Returns a resume token of the beginning of the log."""
    return str((await rest.get("/api/v1/tasks", headers=account.headers)).raise_for_status().json()["resume_token"])


@pytest.mark.parametrize("number", first_quick([0, 1, 2, 3, 4, 5]))
async def test_lists_agree_with_their_model(
    rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, new_account: AccountFactory, system: Stack, number: int
) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time()) + number
    print(f"FAULT_SEED={seed}")  # noqa: T201 - pytest shows it if the test fails
    account = await new_account()
    token = await _start(rest, account)
    run = Run(Client(rest, account), seed)
    for n in range(STEPS):
        expected, reason = await run.step()
        assert reason == expected, f"step {n} of seed {seed}"
    tasks = await run.client.all("tasks", "&show_deleted=true")
    assert {task["id"]: (task["project_id"], task["parent_id"], "deleted_at" in task) for task in tasks} == run.model.seen()
    for (project, parent), line in run.model.order.items():
        if line:
            found = await run.client.all("tasks", f"&project_id={project}&parent_id={parent}&order_by=position")
            assert [task["id"] for task in found] == line, f"the order in project {project!r}, parent {parent!r}, seed {seed}"
    await _agrees(run.client, gateway_channel, account, token, system)


@pytest.mark.parametrize("number", first_quick([0, 1, 2]))
async def test_after_clients_that_wrote_at_once_the_feed_gives_the_state(
    rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, new_account: AccountFactory, system: Stack, number: int
) -> None:
    seed = int(os.environ.get("FAULT_SEED") or time.time()) + number
    print(f"FAULT_SEED={seed}")  # noqa: T201 - see above
    account = await new_account()
    token = await _start(rest, account)
    runs = [Run(Client(rest, account), seed + client) for client in range(CLIENTS)]
    for run in runs[1:]:
        # They know the same tasks and projects, so they meet.
        run.tasks, run.projects = runs[0].tasks, runs[0].projects

    async def client(run: Run) -> None:
        for _ in range(STEPS_AT_ONCE):
            await run.step()

    await asyncio.gather(*map(client, runs))
    await _agrees(runs[0].client, gateway_channel, account, token, system)
