"""Ended sessions: every replica of both services rejects their tokens within two seconds, also during outages.

The tests call the replicas directly, so that each one answers for itself.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import asyncpg
import grpc.aio
import httpx
import pytest
from taskmanager.auth.v1 import auth_service_pb2, auth_service_pb2_grpc, user_pb2, user_pb2_grpc
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.config import HOST
from devstack.stack import Stack
from tests.e2e.conftest import REFUSED_AT_LAST_SECONDS, REFUSED_WITHIN_SECONDS
from tests.support.accounts import PASSWORD, Account, make_account
from tests.support.errors import of_response, of_rpc
from tests.support.observed import ops
from tests.support.outage import freeze
from tests.support.replica import replica_of
from tests.support.waiting import eventually
from tests.support.watchers import Watcher, over_grpc

OUTAGE = pytest.mark.alone("breaks a running system, and measures how long replicas accept the token of an ended session")

REPLICAS = ("auth-1", "auth-2", "task-1", "task-2")
PAUSE_SECONDS = 0.02
# Longer than the polling interval of events.
A_WHILE_SECONDS = 2.0
RECOVERED_WITHIN_SECONDS = 10.0
OK, REFUSED = "OK", "TOKEN_INVALID"
NEW_PASSWORD = "another horse battery"

# Ends the session of an account over REST.
End: TypeAlias = Callable[[httpx.AsyncClient, Account], Awaitable[httpx.Response]]


class Replicas:
    """Calls each replica directly with an account's token."""

    def __init__(self, stack: Stack, channels: dict[str, grpc.aio.Channel]) -> None:
        self.stack = stack
        self._channels = channels
        self._users: dict[str, Any] = {name: user_pb2_grpc.UserServiceStub(channels[name]) for name in REPLICAS}  # type: ignore[no-untyped-call]
        self._sessions: Any = auth_service_pb2_grpc.AuthServiceStub(channels["auth-1"])  # type: ignore[no-untyped-call]
        self._tasks: dict[str, Any] = {name: task_service_pb2_grpc.TaskServiceStub(channels[name]) for name in REPLICAS}  # type: ignore[no-untyped-call]

    async def answer(self, name: str, account: Account) -> str:
        """Returns OK, or the error's reason, or its code if it has no reason."""
        try:
            if name.startswith("auth"):
                await self._users[name].GetMe(user_pb2.GetMeRequest(), metadata=account.metadata, timeout=5)
            else:
                await self._tasks[name].ListTasks(task_service_pb2.ListTasksRequest(), metadata=account.metadata, timeout=5)
        except grpc.aio.AioRpcError as error:
            return of_rpc(error).reason or error.code().name
        return OK

    async def follow(self, account: Account, stack: contextlib.AsyncExitStack) -> list[Watcher]:
        """Opens a stream of the account at each replica of task_service, until the stack closes."""
        ways = [over_grpc(self._channels[name]) for name in REPLICAS if name.startswith("task")]
        return [await stack.enter_async_context(Watcher(way, account)) for way in ways]

    async def logout_at_auth_1(self, account: Account) -> None:
        await self._sessions.Logout(auth_service_pb2.LogoutRequest(refresh_token=account.refresh_token), timeout=5)

    async def answers(self, account: Account, names: Sequence[str] = REPLICAS) -> dict[str, str]:
        return dict(zip(names, await asyncio.gather(*(self.answer(name, account) for name in names)), strict=True))

    async def require_accepted(self, account: Account, names: Sequence[str] = REPLICAS) -> None:
        assert await self.answers(account, names) == dict.fromkeys(names, OK)

    async def seconds_until_refused(self, account: Account, name: str, since: float, within: float) -> float:
        while True:
            began = time.monotonic()
            # The start of the call counts, however long the answer took.
            if await self.answer(name, account) == REFUSED or began - since > 3 * within:
                return began - since
            await asyncio.sleep(PAUSE_SECONDS)

    async def require_refused_in_time(
        self, account: Account, since: float, names: Sequence[str] = REPLICAS, within: float = REFUSED_WITHIN_SECONDS
    ) -> None:
        seconds = dict(zip(names, await asyncio.gather(*(self.seconds_until_refused(account, name, since, within) for name in names)), strict=True))
        assert max(seconds.values()) <= within, seconds
        assert await self.answers(account, names) == dict.fromkeys(names, REFUSED)


@pytest.fixture
async def replicas(stack: Stack) -> AsyncIterator[Replicas]:
    # The channels reconnect within 100 ms after a replica has restarted.
    options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100))
    async with contextlib.AsyncExitStack() as exits:
        channels = {
            name: await exits.enter_async_context(grpc.aio.insecure_channel(f"{HOST}:{stack.state.processes[name].grpc_port}", options=options))
            for name in REPLICAS
        }
        yield Replicas(stack, channels)


@pytest.fixture
async def following() -> AsyncIterator[contextlib.AsyncExitStack]:
    """Closes the streams of a test at its end."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def _long_transaction(stack: Stack) -> AsyncIterator[None]:
    """Keeps a transaction with an id open during the whole test."""
    connection = await asyncpg.connect(stack.state.database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            yield
    finally:
        await connection.close()


async def logout(client: httpx.AsyncClient, account: Account) -> httpx.Response:
    return await client.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})


async def revoke_from_another(client: httpx.AsyncClient, account: Account) -> httpx.Response:
    other = await _login(client, account)
    return await client.delete(f"/api/v1/auth/sessions/{account.claims['sid']}", headers=other.headers)


async def change_password_in_another(client: httpx.AsyncClient, account: Account) -> httpx.Response:
    other = await _login(client, account)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return await client.post("/api/v1/auth/password", json=body, headers=other.headers)


async def delete_me(client: httpx.AsyncClient, account: Account) -> httpx.Response:
    return await client.post("/api/v1/users/me:delete", json={"password": PASSWORD}, headers=account.headers)


WAYS: tuple[End, ...] = (logout, revoke_from_another, change_password_in_another, delete_me)


@OUTAGE
@pytest.mark.usefixtures("_long_transaction")
@pytest.mark.parametrize("valkey", ["there", "killed", "empty", "stuck"])
async def test_every_replica_refuses_the_token_of_an_ended_session_in_time(
    valkey: str, stack: Stack, client: httpx.AsyncClient, replicas: Replicas, following: contextlib.AsyncExitStack
) -> None:
    accounts = [await make_account(client) for _ in WAYS]
    bystander = await make_account(client)
    for account in (*accounts, bystander):
        await replicas.require_accepted(account)
    streams = {account.id: await replicas.follow(account, following) for account in (*accounts, bystander)}
    if valkey in {"killed", "empty"}:
        await stack.kill("valkey")
    if valkey == "empty":
        await stack.start_process("valkey")
    if valkey == "stuck":
        freeze(stack, "valkey")

    async def end(way: End, account: Account) -> None:
        answer = await way(client, account)
        since = time.monotonic()
        assert answer.is_success, answer.text
        # All replicas reject the refresh token at once, because they read it from the database.
        again = await client.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token})
        assert (again.status_code, of_response(again).reason) == (httpx.codes.UNAUTHORIZED, "REFRESH_TOKEN_INVALID")
        ends = (stream.ended(since + REFUSED_WITHIN_SECONDS - time.monotonic()) for stream in streams[account.id])
        _, *ended = await asyncio.gather(replicas.require_refused_in_time(account, since), *ends)
        assert {each.reason for each in ended} == {REFUSED}

    await asyncio.gather(*(end(way, account) for way, account in zip(WAYS, accounts, strict=True)))
    await replicas.require_accepted(bystander)
    assert [stream.end for stream in streams[bystander.id]] == [None, None]
    if valkey == "killed":
        await stack.start_process("valkey")
        for account in accounts:
            assert set((await replicas.answers(account)).values()) == {REFUSED}


@OUTAGE
async def test_a_replica_of_auth_service_that_hangs_holds_up_none_of_the_others(stack: Stack, client: httpx.AsyncClient, replicas: Replicas) -> None:
    account, names = await make_account(client), [name for name in REPLICAS if name != "auth-2"]
    await replicas.require_accepted(account)
    for name in ("auth-2", "valkey"):
        freeze(stack, name)
    await replicas.logout_at_auth_1(account)
    await replicas.require_refused_in_time(account, time.monotonic(), names)


async def test_a_change_of_password_ends_all_sessions_but_its_own(client: httpx.AsyncClient, replicas: Replicas) -> None:
    account = await make_account(client)
    others = [await _login(client, account) for _ in range(3)]
    changed = await client.post("/api/v1/auth/password", json={"current_password": PASSWORD, "new_password": NEW_PASSWORD}, headers=account.headers)
    since = time.monotonic()
    assert changed.status_code == httpx.codes.OK, changed.text
    await asyncio.gather(*(replicas.require_refused_in_time(other, since, within=REFUSED_AT_LAST_SECONDS) for other in others))
    await replicas.require_accepted(account)
    assert (await client.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token})).status_code == httpx.codes.OK
    for other in others:
        again = await client.post("/api/v1/auth/refresh", json={"refresh_token": other.refresh_token})
        assert again.status_code == httpx.codes.UNAUTHORIZED
    assert (await client.post("/api/v1/auth/login", json={"email": account.email, "password": PASSWORD})).status_code == httpx.codes.UNAUTHORIZED
    assert (await _login(client, account, NEW_PASSWORD)).id == account.id


@OUTAGE
@pytest.mark.parametrize("revoked", ["right before", "while it is down"])
async def test_a_replica_that_starts_accepts_no_token_of_a_session_that_ended_before(
    revoked: str, stack: Stack, client: httpx.AsyncClient, replicas: Replicas
) -> None:
    account, bystander = await make_account(client), await make_account(client)
    await replicas.require_accepted(account)
    if revoked == "right before":
        assert (await logout(client, account)).is_success
        await stack.kill("task-2")
    else:
        await stack.kill("task-2")
        assert (await logout(client, account)).is_success
    starting = asyncio.create_task(stack.start_process("task-2"))
    seen: set[str] = set()
    while not starting.done() or REFUSED not in seen:
        seen.add(await replicas.answer("task-2", account))
        await asyncio.sleep(PAUSE_SECONDS / 4)
    await starting
    assert seen <= {REFUSED, "DEPENDENCY_UNAVAILABLE", "UNAVAILABLE"}
    await replicas.require_accepted(bystander)


@OUTAGE
async def test_without_auth_service_what_is_known_holds_and_a_replica_that_starts_waits(
    stack: Stack, client: httpx.AsyncClient, replicas: Replicas
) -> None:
    good, ended = await make_account(client), await make_account(client)
    assert (await logout(client, ended)).is_success
    await replicas.require_refused_in_time(ended, time.monotonic())
    await replicas.require_accepted(good)
    for name in ("auth-1", "auth-2"):
        await stack.kill(name)
    await stack.kill("task-2")
    starting = asyncio.create_task(stack.start_process("task-2"))
    seen: dict[str, set[str]] = {"good, known": set(), "ended, known": set(), "good, new": set(), "ended, new": set()}
    began = time.monotonic()
    while time.monotonic() - began < A_WHILE_SECONDS + 1 or "DEPENDENCY_UNAVAILABLE" not in seen["good, new"]:
        assert time.monotonic() - began < 5 * A_WHILE_SECONDS, seen
        for label, name in (("known", "task-1"), ("new", "task-2")):
            seen[f"good, {label}"].add(await replicas.answer(name, good))
            seen[f"ended, {label}"].add(await replicas.answer(name, ended))
        await asyncio.sleep(PAUSE_SECONDS)
    assert seen["good, known"] == {OK}
    assert seen["ended, known"] == {REFUSED}
    # First the replica is not up yet, then it is up but does not know the ended sessions.
    assert seen["good, new"] | seen["ended, new"] <= {"UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"}
    assert not starting.done()
    not_ready = await ops(stack, "task-2", "/readyz")
    assert not_ready.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert not_ready.json()["failing"].keys() == {"signing keys", "events"}
    assert (await ops(stack, "task-1", "/readyz")).status_code == httpx.codes.OK
    # task_service keeps working without auth_service, also through the gateway.
    assert (await client.get("/api/v1/tasks", headers=good.headers)).status_code == httpx.codes.OK
    assert (await client.get("/api/v1/tasks", headers=ended.headers)).status_code == httpx.codes.UNAUTHORIZED
    await asyncio.gather(*(stack.start_process(name) for name in ("auth-1", "auth-2")))
    await asyncio.wait_for(starting, RECOVERED_WITHIN_SECONDS)
    await eventually(lambda: replicas.require_accepted(good), within=RECOVERED_WITHIN_SECONDS)
    assert await replicas.answers(ended) == dict.fromkeys(REPLICAS, REFUSED)
    # The replica that was up all the time learns of newly ended sessions again.
    await eventually(lambda: _require_logged_out(client, good), within=RECOVERED_WITHIN_SECONDS)
    await replicas.require_refused_in_time(good, time.monotonic())


@pytest.mark.slow("starts another replica")
async def test_a_replica_that_knows_the_keys_and_not_who_is_out_lets_nobody_in(stack: Stack, client: httpx.AsyncClient) -> None:
    """The replica reaches auth_service's JWKS, but not its EventService."""
    account = await make_account(client)
    blind = replica_of(stack, "task-blind", settings={"AUTH_GRPC_ENDPOINT": f"{HOST}:1"}, until="/livez")
    async with blind as replica, grpc.aio.insecure_channel(replica.target) as channel, httpx.AsyncClient(base_url=replica.ops_url) as own:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]

        async def failing_for_that_alone() -> None:
            answer = await own.get("/readyz")
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert answer.json()["failing"].keys() == {"events"}

        await eventually(failing_for_that_alone, within=RECOVERED_WITHIN_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListTasks(task_service_pb2.ListTasksRequest(), metadata=account.metadata, timeout=5)
        assert of_rpc(refused.value).reason == "DEPENDENCY_UNAVAILABLE"


async def test_sessions_are_listed_as_they_are(client: httpx.AsyncClient) -> None:
    account = await make_account(client)
    # The client's own headers must not determine its address.
    liar = {"user-agent": "a browser/1.0", "x-forwarded-for": "203.0.113.7", "x-envoy-external-address": "203.0.113.8", "x-real-ip": "203.0.113.9"}
    logged_in = await client.post("/api/v1/auth/login", json={"email": account.email, "password": PASSWORD}, headers=liar)
    second = _account(account, logged_in.json())
    newest, oldest = await _sessions(client, second)
    assert (newest["id"], oldest["id"]) == (second.claims["sid"], account.claims["sid"])
    assert (newest["user_agent"], newest["address"], newest["current"]) == ("a browser/1.0", HOST, True)
    assert oldest["user_agent"].startswith("python-httpx/")
    assert (oldest["address"], oldest["current"]) == (HOST, False)
    assert oldest["created_at"] == oldest["last_used_at"] < newest["created_at"] == newest["last_used_at"] < newest["expires_at"]
    refreshed = await client.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token}, headers={"user-agent": "another"})
    assert refreshed.status_code == httpx.codes.OK
    now_newest, now_oldest = await _sessions(client, account)
    assert (now_newest["id"], now_newest["current"], now_oldest["current"]) == (oldest["id"], True, False)
    assert now_newest["last_used_at"] > newest["last_used_at"]
    assert now_newest["expires_at"] > oldest["expires_at"]
    for name in ("created_at", "user_agent", "address"):
        assert now_newest[name] == oldest[name]


async def test_a_session_is_ended_by_its_own_user_alone_and_once(client: httpx.AsyncClient, replicas: Replicas) -> None:
    account, stranger = await make_account(client), await make_account(client)
    other = await _login(client, account)

    async def revoke(as_whom: Account) -> str:
        answer = await client.delete(f"/api/v1/auth/sessions/{other.claims['sid']}", headers=as_whom.headers)
        return OK if answer.is_success else of_response(answer).reason

    assert await revoke(stranger) == "SESSION_NOT_FOUND"
    await replicas.require_accepted(other)
    assert await revoke(account) == OK
    assert [session["id"] for session in await _sessions(client, account)] == [account.claims["sid"]]
    assert await revoke(account) == "SESSION_NOT_FOUND"
    # A logout with an ended session or an unknown token is no error.
    assert (await logout(client, other)).is_success
    assert (await client.post("/api/v1/auth/logout", json={"refresh_token": "never was"})).is_success
    await replicas.require_accepted(account)


async def _login(client: httpx.AsyncClient, account: Account, password: str = PASSWORD) -> Account:
    answer = await client.post("/api/v1/auth/login", json={"email": account.email, "password": password})
    assert answer.status_code == httpx.codes.OK, answer.text
    return _account(account, answer.json())


def _account(account: Account, tokens: Any) -> Account:
    return Account(account.id, account.email, tokens["access_token"], tokens["refresh_token"])


async def _sessions(client: httpx.AsyncClient, account: Account) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/auth/sessions", headers=account.headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    return list(answer.json()["sessions"])


async def _require_logged_out(client: httpx.AsyncClient, account: Account) -> None:
    assert (await logout(client, account)).is_success
