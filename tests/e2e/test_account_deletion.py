"""Deleted accounts: their tasks are removed within seconds, also after outages, and a writer with a valid token cannot leave rows behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.config import HOST
from devstack.stack import Stack
from tests.support.accounts import PASSWORD, Account, make_account
from tests.support.errors import of_response
from tests.support.load import Load
from tests.support.outage import frozen
from tests.support.task_api import GrpcTasks, RestTasks
from tests.support.waiting import eventually

OUTAGE = pytest.mark.outage("breaks or loads a running system")

REPLICAS = ("task-1", "task-2")
REMOVED_WITHIN_SECONDS = 5.0
# The time after which running calls have ended, so that a second check is useful.
LATER_SECONDS = 1.0
WRITERS = 4
TASKS = 20
UNDER_LOAD_SECONDS = 0.5
# All tables of both services with a `user_id` column.
TABLES = """
    SELECT format('%I.%I', nspname, relname) AS name
      FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid JOIN pg_namespace AS n ON n.oid = relnamespace
     WHERE nspname IN ('auth', 'task') AND relkind IN ('r', 'p') AND attname = 'user_id' AND NOT attisdropped
"""
# Queries for tables without that column, and for tables that keep one row of a deleted user (the USER_DELETED event, the closed counter).
SPECIAL = {
    "auth.users": "SELECT count(*) FROM auth.users WHERE id = $1",
    "auth.refresh_tokens": "SELECT count(*) FROM auth.refresh_tokens JOIN auth.sessions AS session ON session.id = session_id WHERE user_id = $1",
    "auth.events": "SELECT count(*) FROM auth.events WHERE user_id = $1 AND kind <> 2",
    "task.counters": "SELECT count(*) FROM task.counters WHERE user_id = $1 AND closed_at IS NULL",
}
USED = {"auth.users", "auth.sessions", "auth.login_networks", "auth.refresh_tokens", "task.tasks", "task.changes", "task.counters"}
USED |= {"task.task_labels", "task.idempotency_keys"}

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Rows: TypeAlias = Callable[[Account], Awaitable[dict[str, int]]]


@pytest.fixture
async def user(client: httpx.AsyncClient) -> Account:
    """A user with tasks, one of them deleted, and two sessions."""
    account = await make_account(client)
    tasks = RestTasks(client, account)
    made = await asyncio.gather(*(tasks.create("to be removed", str(uuid4())) for _ in range(TASKS)))
    await tasks.rename(made[0].id, "changed", str(uuid4()))
    await tasks.delete(made[1].id, str(uuid4()))
    labelled = {"title": made[2].title, "labels": ["one", "two"]}
    headers = {**account.headers, "idempotency-key": str(uuid4())}
    assert (await client.patch(f"/api/v1/tasks/{made[2].id}", json=labelled, headers=headers)).status_code == httpx.codes.OK
    await client.post("/api/v1/auth/login", json={"email": account.email, "password": PASSWORD})
    return account


@pytest.fixture
async def sql(stack: Stack) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.state.database_url)
    yield connection
    await connection.close()


@pytest.fixture
def rows(sql: Connection) -> Rows:
    """Counts a user's rows by table. Tables without rows are omitted."""

    async def count(account: Account) -> dict[str, int]:
        queries = {row["name"]: f"SELECT count(*) FROM {row['name']} WHERE user_id = $1" for row in await sql.fetch(TABLES)} | SPECIAL
        found = {name: await sql.fetchval(query, UUID(account.id)) for name, query in queries.items()}
        return {name: number for name, number in found.items() if number}

    return count


async def test_a_wrong_password_deletes_nothing(client: httpx.AsyncClient, user: Account, rows: Rows) -> None:
    before = await rows(user)
    assert before.keys() == USED, "the test must begin with rows in every table"
    assert before["auth.sessions"] == 2
    assert (before["task.tasks"], before["task.changes"], before["task.counters"]) == (TASKS, TASKS + 3, 1)
    refused = await client.post("/api/v1/users/me:delete", json={"password": "another one"}, headers=user.headers)
    assert (refused.status_code, of_response(refused).reason) == (httpx.codes.FORBIDDEN, "WRONG_PASSWORD")
    await asyncio.sleep(LATER_SECONDS)
    assert await rows(user) == before
    assert (await client.get("/api/v1/users/me", headers=user.headers)).status_code == httpx.codes.OK
    assert len(await RestTasks(client, user).list("still there")) == TASKS - 1


async def test_an_account_goes_with_all_that_was_its_own_and_nothing_else(client: httpx.AsyncClient, user: Account, rows: Rows) -> None:
    bystander = await make_account(client)
    await RestTasks(client, bystander).create("to stay", str(uuid4()))
    others = await rows(bystander)
    await _delete(client, user)
    assert not [name for name in await rows(user) if name.startswith("auth.")], "auth_service deletes its rows at once"
    await eventually(lambda: _require_none(rows, user), within=REMOVED_WITHIN_SECONDS)
    await eventually(lambda: _require_refused(client, user), within=REMOVED_WITHIN_SECONDS)
    refreshed = await client.post("/api/v1/auth/refresh", json={"refresh_token": user.refresh_token})
    assert (refreshed.status_code, of_response(refreshed).reason) == (httpx.codes.UNAUTHORIZED, "REFRESH_TOKEN_INVALID")
    login = await client.post("/api/v1/auth/login", json={"email": user.email, "password": PASSWORD})
    assert (login.status_code, of_response(login).reason) == (httpx.codes.UNAUTHORIZED, "INVALID_CREDENTIALS")
    assert await rows(bystander) == others


@OUTAGE
@pytest.mark.parametrize("late", [None, "task-2"])
async def test_no_writer_with_a_living_token_leaves_a_row_behind(
    late: str | None, stack: Stack, client: httpx.AsyncClient, user: Account, rows: Rows
) -> None:
    async with contextlib.AsyncExitStack() as channels:
        replicas = [await channels.enter_async_context(grpc.aio.insecure_channel(_address(stack, name))) for name in REPLICAS]
        apis = [GrpcTasks(replica, user) for replica in replicas]
        task = await apis[0].create("written to", "setup")
        clients: list[Any] = []
        for api in apis:
            creating = [("create", lambda request_id, api=api: api.create("never stays", request_id))]
            renaming = [("rename", lambda request_id, api=api: api.rename(task.id, request_id, request_id))]
            clients += [creating, renaming] * WRITERS
        async with Load(clients) as load:
            await asyncio.sleep(UNDER_LOAD_SECONDS)
            # When a frozen replica continues, calls wait in front of the deletion event. Rows that they wrote now would never be removed.
            with frozen(stack, late) if late else contextlib.nullcontext():
                await asyncio.sleep(UNDER_LOAD_SECONDS)
                await _delete(client, user)
                await eventually(lambda: _require_none(rows, user), within=REMOVED_WITHIN_SECONDS)
            # The writers continue, and every check finds no rows.
            for _ in range(20):
                assert await rows(user) == {}
                await asyncio.sleep(LATER_SECONDS / 20)
        await asyncio.sleep(LATER_SECONDS)
    assert await rows(user) == {}
    assert load.codes()["OK"] > len(clients), "the writers must have written before the deletion"
    # NOT_FOUND: a writer gets it for the removed task while the replica still accepts its token.
    assert set(load.codes()) <= {"OK", "UNAUTHENTICATED", "NOT_FOUND"}, load.codes()


@OUTAGE
@pytest.mark.parametrize("away", [("valkey",), REPLICAS, ("valkey", *REPLICAS)], ids=["valkey", "task_service", "both"])
async def test_what_was_away_meanwhile_makes_no_difference(
    away: tuple[str, ...], stack: Stack, client: httpx.AsyncClient, user: Account, rows: Rows
) -> None:
    for name in away:
        await stack.kill(name)
    await _delete(client, user)
    if away == ("valkey",):
        # Valkey stays down.
        await eventually(lambda: _require_none(rows, user), within=REMOVED_WITHIN_SECONDS)
        return
    assert (await rows(user))["task.tasks"] == TASKS
    await asyncio.gather(*(stack.start_process(name) for name in REPLICAS))
    await eventually(lambda: _require_none(rows, user), within=REMOVED_WITHIN_SECONDS)
    await eventually(lambda: _require_refused(client, user), within=REMOVED_WITHIN_SECONDS)


async def test_who_registers_the_email_again_is_somebody_else(client: httpx.AsyncClient, user: Account, rows: Rows) -> None:
    await _delete(client, user)
    registered = await client.post("/api/v1/auth/register", json={"email": user.email, "password": PASSWORD, "name": "Anew"})
    assert registered.status_code == httpx.codes.CREATED, registered.text
    assert registered.json()["id"] != user.id
    tokens = (await client.post("/api/v1/auth/login", json={"email": user.email, "password": PASSWORD})).json()
    anew = Account(registered.json()["id"], user.email, tokens["access_token"], tokens["refresh_token"])
    assert list(await RestTasks(client, anew).list("nothing there")) == []
    made = await RestTasks(client, anew).create("of the new one", str(uuid4()))
    await eventually(lambda: _require_none(rows, user), within=REMOVED_WITHIN_SECONDS)
    await eventually(lambda: _require_refused(client, user), within=REMOVED_WITHIN_SECONDS)
    assert [task.id for task in await RestTasks(client, anew).list("its own")] == [made.id]
    assert len((await client.get("/api/v1/auth/sessions", headers=anew.headers)).json()["sessions"]) == 1


async def _delete(client: httpx.AsyncClient, account: Account) -> None:
    answer = await client.post("/api/v1/users/me:delete", json={"password": PASSWORD}, headers=account.headers)
    assert answer.status_code == httpx.codes.OK, answer.text


async def _require_none(rows: Rows, account: Account) -> None:
    assert await rows(account) == {}


async def _require_refused(client: httpx.AsyncClient, account: Account) -> None:
    assert (await client.get("/api/v1/users/me", headers=account.headers)).status_code == httpx.codes.UNAUTHORIZED
    assert (await client.get("/api/v1/tasks", headers=account.headers)).status_code == httpx.codes.UNAUTHORIZED


def _address(stack: Stack, name: str) -> str:
    return f"{HOST}:{stack.state.processes[name].grpc_port}"
