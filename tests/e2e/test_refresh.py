"""Refresh tokens: concurrent use of one token logs nobody out, reuse after the grace period ends the session, and every session has an end.

The tests call two replicas of auth_service directly and in turn. To avoid waiting, they move times in the database into the past.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import pytest
from taskmanager.auth.v1 import auth_service_pb2, auth_service_pb2_grpc

from devstack.config import HOST
from devstack.stack import Stack
from tests.e2e.conftest import REFUSED_AT_LAST_SECONDS, REFUSED_WITHIN_SECONDS
from tests.support.accounts import PASSWORD, Account, make_account
from tests.support.errors import of_rpc
from tests.support.observed import log_lines
from tests.support.replica import replica_of
from tests.support.waiting import eventually

ROUNDS = 200
AT_ONCE = 8
TIMEOUT_SECONDS = 10.0
# The grace period, in which a used token may be sent again.
GRACE_SECONDS = 10.0
# Enough for a call to a replica, also on a loaded machine.
CALL_SECONDS = 3.0
# Two cleanup rounds: the first one may have run just before.
UPKEEP_WITHIN_SECONDS = 20.0
# The replica writes log lines in batches.
LOGGED_WITHIN_SECONDS = 10.0
MAX_SESSIONS = 100
DAY_SECONDS = 86_400
# For the replica with short sessions.
IDLE_SECONDS, LIFETIME_SECONDS = 2, 4

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MEASURES = pytest.mark.alone("measures how long replicas accept the token of an ended session")
in_time = pytest.mark.parametrize(
    "within", [pytest.param(REFUSED_AT_LAST_SECONDS, id="at last"), pytest.param(REFUSED_WITHIN_SECONDS, id="in time", marks=MEASURES)]
)


@pytest.fixture
async def stubs(stack: Stack) -> AsyncIterator[list[Any]]:
    """AuthService stubs, connected directly to each replica."""
    async with contextlib.AsyncExitStack() as channels:
        yield [await _stub(channels, stack.state.processes[name].grpc_port) for name in ("auth-1", "auth-2")]


@pytest.fixture
async def user(client: httpx.AsyncClient) -> Account:
    return await make_account(client)


@pytest.fixture
async def sql(stack: Stack) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.state.database_url)
    yield connection
    await connection.close()


@pytest.mark.slow("1600 refreshes")
async def test_all_who_send_one_token_at_once_get_one_successor(stubs: list[Any], client: httpx.AsyncClient, user: Account, sql: Connection) -> None:
    session, token, headers = _session_of(user.access_token), user.refresh_token, user.headers
    for _ in range(ROUNDS):
        answers = await asyncio.gather(*(_refresh(stubs[number % 2], token) for number in range(AT_ONCE)))
        successors = {answer.refresh_token for answer in answers}
        assert len(successors) == 1
        assert {_session_of(answer.access_token) for answer in answers} == {session}
        (successor,) = successors
        assert successor != token
        unused = await sql.fetch("SELECT token_hash FROM auth.refresh_tokens WHERE session_id = $1 AND used_at IS NULL", session)
        assert [row["token_hash"] for row in unused] == [_hash(successor)]
        token, headers = successor, {"authorization": f"Bearer {answers[-1].access_token}"}
    assert await sql.fetchval("SELECT count(*) FROM auth.refresh_tokens WHERE session_id = $1", session) == ROUNDS + 1
    assert (await client.get("/api/v1/users/me", headers=headers)).status_code == httpx.codes.OK
    assert await sql.fetchval("SELECT ended_at FROM auth.sessions WHERE id = $1", session) is None
    # A used token is sent again after the grace period: that revokes all tokens of the session.
    await _age(sql, user.refresh_token)
    assert await _refused(stubs[0], user.refresh_token)
    ended = time.monotonic()
    for refresh_token in (token, *(answer.refresh_token for answer in answers)):
        assert await _refused(stubs[1], refresh_token)
    for access_token in {user.access_token, *(answer.access_token for answer in answers)}:
        await _require_refused(stubs, client, access_token, ended + REFUSED_AT_LAST_SECONDS)


async def test_within_the_grace_a_used_token_gives_its_successor_even_when_that_was_used(stubs: list[Any], user: Account) -> None:
    first = await _refresh(stubs[0], user.refresh_token)
    second = await _refresh(stubs[1], first.refresh_token)
    assert (await _refresh(stubs[1], user.refresh_token)).refresh_token == first.refresh_token
    assert (await _refresh(stubs[0], first.refresh_token)).refresh_token == second.refresh_token
    assert (await _refresh(stubs[0], second.refresh_token)).refresh_token not in {first.refresh_token, second.refresh_token}


async def test_up_to_the_end_of_the_grace_it_gives_its_successor(stubs: list[Any], user: Account, sql: Connection) -> None:
    first = await _refresh(stubs[0], user.refresh_token)
    await _age(sql, user.refresh_token, GRACE_SECONDS - CALL_SECONDS)
    assert (await _refresh(stubs[1], user.refresh_token)).refresh_token == first.refresh_token
    await _age(sql, user.refresh_token, CALL_SECONDS)
    assert await _refused(stubs[1], user.refresh_token)
    assert await _refused(stubs[0], first.refresh_token)


@in_time
async def test_a_token_that_is_sent_again_after_the_grace_ends_its_session(
    stack: Stack, stubs: list[Any], client: httpx.AsyncClient, user: Account, sql: Connection, within: float
) -> None:
    session = _session_of(user.access_token)
    other = (await client.post("/api/v1/auth/login", json={"email": user.email, "password": PASSWORD})).json()
    first = await _refresh(stubs[0], user.refresh_token)
    second = await _refresh(stubs[0], first.refresh_token)
    await _age(sql, user.refresh_token)
    assert await _refused(stubs[1], user.refresh_token)
    ended = time.monotonic()
    for token in (user.refresh_token, first.refresh_token, second.refresh_token):
        assert await _refused(stubs[0], token)
    tokens = (user.access_token, first.access_token, second.access_token)
    await asyncio.gather(*(_require_refused(stubs, client, token, ended + within) for token in tokens))

    async def logged() -> dict[str, Any]:
        lines = [line for line in log_lines(stack, "auth-2") if line.get("security_event") == "refresh_token_reused"]
        (line,) = [line for line in lines if line["session_id"] == str(session)] or [None]
        assert line is not None
        return line

    line = await eventually(logged, within=LOGGED_WITHIN_SECONDS)
    assert (line["event"], line["level"], line["user_id"], line["session_id"]) == ("security", "warning", user.id, str(session))
    assert user.refresh_token not in json.dumps(line)
    # The user's other session is not affected.
    assert (await _refresh(stubs[0], other["refresh_token"])).refresh_token


async def test_a_thief_and_the_owner_at_once_leave_no_session_behind(
    stubs: list[Any], client: httpx.AsyncClient, user: Account, sql: Connection
) -> None:
    first = await _refresh(stubs[0], user.refresh_token)
    await _age(sql, user.refresh_token)
    answers = await asyncio.gather(
        *(_refresh(stubs[number % 2], token) for number in range(AT_ONCE) for token in (user.refresh_token, first.refresh_token)),
        return_exceptions=True,
    )
    ended = time.monotonic()
    given = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert {of_rpc(answer).reason for answer in answers if isinstance(answer, grpc.aio.AioRpcError)} == {"REFRESH_TOKEN_INVALID"}
    assert len({answer.refresh_token for answer in given}) <= 1
    for tokens in given:
        assert await _refused(stubs[0], tokens.refresh_token)
        await _require_refused(stubs, client, tokens.access_token, ended + REFUSED_AT_LAST_SECONDS)
    assert await sql.fetchval("SELECT ended_at FROM auth.sessions WHERE id = $1", _session_of(user.access_token)) is not None


async def test_the_database_has_only_hashes_and_forgets_successors_after_the_grace(
    system: Stack, stubs: list[Any], user: Account, sql: Connection
) -> None:
    first = await _refresh(stubs[0], user.refresh_token)
    second = await _refresh(stubs[0], first.refresh_token)
    tokens = [user.refresh_token, first.refresh_token, second.refresh_token]
    tables = [row[0] for row in await sql.fetch("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('auth', 'task')")]
    kept = [row[0] for table in tables for row in await sql.fetch(f"SELECT row::text FROM {table} AS row")]
    for token in tokens:
        assert any(_hash(token).hex() in row for row in kept)
        assert not any(form in row for row in kept for form in (token, token.encode().hex()))
        assert not any(token.encode() in log.read_bytes() for log in system.log_dir.iterdir())
    sealed = "SELECT sealed_successor FROM auth.refresh_tokens WHERE token_hash = $1"
    assert first.refresh_token.encode() not in await sql.fetchval(sealed, _hash(user.refresh_token))
    await _age(sql, user.refresh_token)

    async def erased() -> None:
        assert await sql.fetchval(sealed, _hash(user.refresh_token)) is None

    await eventually(erased, within=UPKEEP_WITHIN_SECONDS)


@pytest.mark.slow("waits until sessions have expired")
async def test_a_session_ends_when_it_is_not_used_or_when_its_time_is_over(
    system: Stack, client: httpx.AsyncClient, user: Account, sql: Connection
) -> None:
    usual = await sql.fetchrow("SELECT created_at, expires_at, ends_at FROM auth.sessions WHERE id = $1", _session_of(user.access_token))
    assert usual is not None
    assert (usual["expires_at"] - usual["created_at"]).total_seconds() == 30 * DAY_SECONDS
    assert (usual["ends_at"] - usual["created_at"]).total_seconds() == 90 * DAY_SECONDS
    short = {"SESSION_IDLE_SECONDS": str(IDLE_SECONDS), "SESSION_LIFETIME_SECONDS": str(LIFETIME_SECONDS)}
    async with replica_of(system, "auth-short", settings=short) as replica, grpc.aio.insecure_channel(replica.target) as channel:
        stub = auth_service_pb2_grpc.AuthServiceStub(channel)  # type: ignore[no-untyped-call]
        idle, used = [await _login(stub, user.email) for _ in range(2)]
        began = time.monotonic()
        tokens = used
        while time.monotonic() - began < LIFETIME_SECONDS - 1.0:
            await asyncio.sleep(0.5)
            tokens = await _refresh(stub, tokens.refresh_token)
            ends_at = await sql.fetchval("SELECT ends_at FROM auth.sessions WHERE id = $1", _session_of(used.access_token))
            # A token's lifetime is in whole seconds, and at least 1 s.
            assert _claims(tokens.access_token)["exp"] <= max(ends_at.timestamp(), datetime.now(UTC).timestamp() + 1)
        assert await _refused(stub, idle.refresh_token), "the session was idle for too long"
        await asyncio.sleep(began + LIFETIME_SECONDS + 0.2 - time.monotonic())
        assert await _refused(stub, tokens.refresh_token), "the session was used, but its lifetime is over"
        await asyncio.sleep(1)
    for over in (idle, tokens):
        headers = {"authorization": f"Bearer {over.access_token}"}
        assert (await client.get("/api/v1/users/me", headers=headers)).status_code == httpx.codes.UNAUTHORIZED
    listed = (await client.get("/api/v1/auth/sessions", headers=user.headers)).json()["sessions"]
    assert [session["id"] for session in listed] == [str(_session_of(user.access_token))]


@in_time
async def test_one_session_too_many_ends_the_one_used_least_recently(
    stubs: list[Any], client: httpx.AsyncClient, user: Account, sql: Connection, within: float
) -> None:
    second = await _login(stubs[0], user.email)
    for _ in range(MAX_SESSIONS - 2):
        await _login(stubs[0], user.email)
    # The first session is the oldest, but was used since. So the second one must end.
    first = await _refresh(stubs[0], user.refresh_token)
    newest = await _login(stubs[1], user.email)
    ended = time.monotonic()
    assert await _refused(stubs[0], second.refresh_token)
    await _require_refused(stubs, client, second.access_token, ended + within)
    assert (await _refresh(stubs[0], first.refresh_token)).refresh_token
    assert (await _refresh(stubs[0], newest.refresh_token)).refresh_token
    listed = (await client.get("/api/v1/auth/sessions", headers=user.headers)).json()["sessions"]
    assert len(listed) == MAX_SESSIONS
    assert await sql.fetchval("SELECT count(*) FROM auth.sessions WHERE user_id = $1 AND ended_at IS NULL", UUID(user.id)) == MAX_SESSIONS


async def _stub(channels: contextlib.AsyncExitStack, port: int | None) -> Any:
    channel = await channels.enter_async_context(grpc.aio.insecure_channel(f"{HOST}:{port}"))
    return auth_service_pb2_grpc.AuthServiceStub(channel)  # type: ignore[no-untyped-call]


async def _login(stub: Any, email: str) -> Any:
    return await stub.Login(auth_service_pb2.LoginRequest(email=email, password=PASSWORD), timeout=TIMEOUT_SECONDS)


async def _refresh(stub: Any, token: str) -> Any:
    return await stub.RefreshToken(auth_service_pb2.RefreshTokenRequest(refresh_token=token), timeout=TIMEOUT_SECONDS)


async def _refused(stub: Any, token: str) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _refresh(stub, token)
    error = of_rpc(refused.value)
    return (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED.value[0], "REFRESH_TOKEN_INVALID")


async def _require_refused(stubs: list[Any], client: httpx.AsyncClient, access_token: str, until: float) -> None:
    """Fails unless both replicas and task_service reject the token before `until`, a time of time.monotonic."""

    async def refused() -> None:
        for stub in stubs:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stub.ListSessions(
                    auth_service_pb2.ListSessionsRequest(), metadata=[("authorization", f"Bearer {access_token}")], timeout=TIMEOUT_SECONDS
                )
            assert of_rpc(failed.value).reason == "TOKEN_INVALID"
        answer = await client.get("/api/v1/tasks", headers={"authorization": f"Bearer {access_token}"})
        assert answer.status_code == httpx.codes.UNAUTHORIZED

    await eventually(_as_assertion(refused), within=max(0.0, until - time.monotonic()))


def _as_assertion(check: Any) -> Any:
    """Converts the failure of pytest.raises to an AssertionError, because `eventually` retries only after that."""

    async def checked() -> None:
        try:
            await check()
        except pytest.fail.Exception as error:
            raise AssertionError(str(error)) from None

    return checked


async def _age(sql: Connection, token: str, seconds: float = GRACE_SECONDS) -> None:
    """Moves the time of the token's use into the past by `seconds`."""
    query = "UPDATE auth.refresh_tokens SET used_at = used_at - make_interval(secs => $2) WHERE token_hash = $1"
    await sql.execute(query, _hash(token), seconds)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _claims(access_token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(access_token.split(".")[1] + "==")))


def _session_of(access_token: str) -> UUID:
    return UUID(_claims(access_token)["sid"])
