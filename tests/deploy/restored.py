"""Checks on a restored system: revoked credentials and deleted data stay gone, and clients can continue."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import jwt
import pytest
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.stack import Stack
from tests.support.accounts import Account, log_in
from tests.support.backups import Rows, superuser
from tests.support.databases import login
from tests.support.errors import of_response, of_rpc
from tests.support.task_api import RestTasks
from tests.support.waiting import eventually

BACK_WITHIN_SECONDS = 15.0
# The 2 s of the contract, and a margin for a busy machine.
REVOKED_WITHIN_SECONDS = 2.5
# The tables that a restore changes after it has loaded the dump. Other tests check each.
SET_ANEW = {"auth.sessions", "auth.api_tokens", "auth.signing_keys", "auth.event_counter", "task.feed", "task.webhooks"}


def watch(channel: grpc.aio.Channel, account: Account, resume_token: str = "") -> Any:
    """Opens a stream of the account's changes, through the gateway."""
    stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]
    return stub.WatchTasks(task_service_pb2.WatchTasksRequest(resume_token=resume_token), metadata=account.metadata)


async def next_of(stream: Any) -> Any:
    """Returns the stream's next message."""
    return await asyncio.wait_for(stream.read(), BACK_WITHIN_SECONDS)


async def log_in_again(client: httpx.AsyncClient, account: Account) -> Account:
    """Logs in. Requires that auth_service signs with a new key, and that the gateway and task_service accept the token."""
    again = await log_in(client, account)
    assert jwt.get_unverified_header(again.access_token)["kid"] != jwt.get_unverified_header(account.access_token)["kid"]
    await list_tasks(client, again)
    return again


async def list_tasks(client: httpx.AsyncClient, account: Account) -> Any:
    """Returns the account's tasks, over REST."""
    answer = await client.get("/api/v1/tasks", headers=account.headers)
    assert answer.is_success, answer.text
    return [type("Task", (), task) for task in answer.json()["tasks"]]


async def require_rights(stack: Stack) -> None:
    """Requires that the services' roles have the same rights as before, and no more."""
    for role, own, other in (("auth_service", "auth.users", "task.tasks"), ("task_service", "task.tasks", "auth.users")):
        connection = await asyncpg.connect(login(stack.state, role))
        try:
            assert await connection.fetchval(f"SELECT count(*) FROM {own}") > 0
            for statement in (f"SELECT FROM {other}", f"ALTER TABLE {own} ADD COLUMN mine integer", f"TRUNCATE {own}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()


async def require_session_over(client: httpx.AsyncClient, account: Account) -> None:
    """Requires that the services reject the access token and the refresh token from before."""

    async def require_refused() -> None:
        for path in ("/api/v1/tasks", "/api/v1/users/me"):
            answer = await client.get(path, headers=account.headers)
            assert answer.status_code == httpx.codes.UNAUTHORIZED, answer.text

    await eventually(require_refused, within=BACK_WITHIN_SECONDS)
    refreshed = await client.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token})
    assert of_response(refreshed).reason == "REFRESH_TOKEN_INVALID"


async def require_told_to_list_again(client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account, resume_token: str) -> None:
    """Requires that a resume token from before is rejected, and that a watch from a new list gets the next change."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await next_of(watch(channel, account, resume_token))
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert of_rpc(refused.value).reason == "RESUME_TOKEN_EXPIRED"
    listed = (await client.get("/api/v1/tasks", headers=account.headers)).json()
    stream = watch(channel, account, listed["resume_token"])
    await next_of(stream)
    made = await RestTasks(client, account).create("after the restore", "told")
    assert (await next_of(stream)).task.id == made.id
    stream.cancel()


async def require_no_tasks(stack: Stack, account: Account) -> None:
    async with superuser(stack) as sql:
        assert await sql.fetchval("SELECT count(*) FROM task.tasks WHERE user_id = $1", UUID(account.id)) == 0


async def require_revocations_bite(client: httpx.AsyncClient, account: Account) -> None:
    """Requires that replicas, which had read further in the old event log than the backup, do not miss a new event."""
    logged_out = await client.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})
    assert logged_out.is_success

    async def require_refused() -> None:
        answer = await client.get("/api/v1/tasks", headers=account.headers)
        assert answer.status_code == httpx.codes.UNAUTHORIZED

    await eventually(require_refused, within=REVOKED_WITHIN_SECONDS)


def without_set_anew(rows: Rows) -> Rows:
    """Returns the rows of the tables that a restore does not change after loading the dump."""
    return {table: found for table, found in rows.items() if table not in SET_ANEW}
