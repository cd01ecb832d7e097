"""Signing keys: no valid token is rejected during a rotation under load, private keys are stored encrypted, and a replica that cannot decrypt them
creates none.
"""

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import grpc.aio
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from taskmanager.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from auth_service.keys.domain import StoredKey
from auth_service.keys.seal import KeySeal
from devstack.config import HOST, PROJECT_ROOT, StackConfig
from devstack.stack import Stack
from servicekit.access.seal import parse_key_encryption_keys
from tests.support.accounts import PASSWORD, Account, make_account
from tests.support.databases import login
from tests.support.errors import of_rpc
from tests.support.replica import Replica, replica_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.outage("the module's system rotates keys under load, in real lead times of seconds")

TASK_REPLICAS = ("task-1", "task-2")
LEAD_SECONDS, TOKEN_SECONDS = 3, 5
ENVIRONMENT = {
    "BCRYPT_COST": "4",
    "LOG_LEVEL": "INFO",
    "JWKS_REFRESH_SECONDS": "1",
    "KEY_LEAD_SECONDS": str(LEAD_SECONDS),
    "ACCESS_TOKEN_TTL_SECONDS": str(TOKEN_SECONDS),
    "LOGIN_ADDRESS_BURST": "10000",
    "REGISTER_ADDRESS_BURST": "10000",
}
# For the replica that rotates automatically. Longer than the lead; otherwise there would always be a next key.
ROTATION_SECONDS = 5
# The lifetime of a token that must not expire during the test.
LONG_SECONDS = 300
# The replicas read the keys every half second, and the gateway every second.
KNOWN_WITHIN_SECONDS = 5.0
SLACK_SECONDS = 3.0
OLD_TOKEN_SECONDS = 2.5
PAUSE_SECONDS = 0.02
CLIENTS = 6

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(auth_replicas=2, task_replicas=2, environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
async def sql(stack: Stack) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.state.database_url)
    yield connection
    await connection.close()


@dataclass(frozen=True, slots=True)
class Listed:
    """A line in the output of `keys list`."""

    kid: str
    state: str
    signs_from: datetime


@dataclass(slots=True)
class Seen:
    """What the clients under load observed."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    # By key id: the time when a token first had the key, and the time when the key was last published.
    kids: dict[str, float] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)


async def test_two_rotations_under_load_refuse_nobody(stack: Stack, client: httpx.AsyncClient) -> None:
    (first,) = await _keys(stack, "list")
    assert first.state == "active"
    assert await _published(client) == {first.kid}
    seen, stopping = Seen(), asyncio.Event()
    loads = [asyncio.create_task(_load(client, await make_account(client), seen, stopping)) for _ in range(CLIENTS)]
    watching = asyncio.create_task(_watch(client, seen, stopping))
    try:
        await asyncio.sleep(1)
        second = await _rotated(stack, client, [first], seen)
        third = await _rotated(stack, client, [first, second], seen)
        over = third.signs_from.timestamp() + TOKEN_SECONDS + LEAD_SECONDS
        await eventually(lambda: _require_withdrawn(client, second.kid), within=over - time.time() + SLACK_SECONDS)
    finally:
        stopping.set()
        await asyncio.gather(watching, *loads)
    for old, following in ((first, second), (second, third)):
        # The old key stays published until its last token has expired, plus the lead time.
        kept = seen.published[old.kid] - following.signs_from.timestamp()
        assert TOKEN_SECONDS <= kept <= TOKEN_SECONDS + LEAD_SECONDS + SLACK_SECONDS
    assert await _published(client) == {third.kid}
    assert list(seen.kids) == [first.kid, second.kid, third.kid], "each key must have signed tokens, in this order"
    assert seen.refused == []
    assert {status for _, status in seen.statuses} == {httpx.codes.OK}, seen.statuses
    assert all(seen.statuses[name, httpx.codes.OK] > CLIENTS for name in ("login", "refresh", "me", "tasks"))


async def test_no_private_key_lies_open_in_the_database(stack: Stack, sql: Connection) -> None:
    rows = await sql.fetch("SELECT id, public_key, sealed_key, active_from FROM auth.signing_keys")
    assert rows
    seal = KeySeal(parse_key_encryption_keys(_secret(stack, "key_encryption_key")))
    kept = [row[0] for row in await sql.fetch("SELECT row::text FROM auth.signing_keys AS row")]
    for row in rows:
        private = seal.open(StoredKey(*row))
        assert private.public_key().public_bytes_raw() == row["public_key"]
        forms = [private.private_bytes_raw(), private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())]
        for text in kept:
            assert not any(form.hex() in text or base64.b64encode(form).decode() in text for form in forms)
    # The logs contain no more than the key ids.
    logs = b"".join(log.read_bytes() for log in stack.log_dir.iterdir())
    assert _secret(stack, "key_encryption_key").encode() not in logs
    assert b"PRIVATE KEY" not in logs


@pytest.mark.parametrize("rotation_seconds", [2_592_000, LEAD_SECONDS + 1], ids=["no key is due", "a key is due"])
async def test_a_replica_that_cannot_open_the_keys_is_not_ready_and_makes_none(
    rotation_seconds: int, stack: Stack, client: httpx.AsyncClient, sql: Connection
) -> None:
    account = await make_account(client)
    await _settled(stack)
    before = await _ids(sql)
    told = {"KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(), "KEY_ROTATION_SECONDS": str(rotation_seconds)}
    async with replica_of(stack, "auth-foreign", settings=told, until="/livez") as own, httpx.AsyncClient(base_url=own.ops_url, timeout=5) as foreign:
        began = time.monotonic()
        while time.monotonic() - began < 2:
            answer = await foreign.get("/readyz")
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            # Expired keys may be removed meanwhile, but no key may be added.
            assert await _ids(sql) <= before
            await asyncio.sleep(PAUSE_SECONDS)
        assert "signing keys" in answer.json()["failing"]
        # The replica can publish the public keys without decrypting anything.
        published = await foreign.get("/.well-known/jwks.json")
        assert {key["kid"] for key in published.json().get("keys", [])} <= before
    # The other replicas are not affected.
    refreshed = await client.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token})
    assert refreshed.status_code == httpx.codes.OK


async def test_a_rotation_with_another_key_encryption_key_is_refused(stack: Stack, sql: Connection) -> None:
    await _settled(stack)
    before = await _ids(sql)
    status, output = await _keys_command(stack, "rotate", {"KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode()})
    assert await _ids(sql) <= before, "the replicas could not sign with the new key"
    assert status != 0
    assert "KEY_ENCRYPTION_KEY" in output
    assert "Traceback" not in output


async def test_keys_are_rotated_in_time_by_themselves(stack: Stack, client: httpx.AsyncClient) -> None:
    made: dict[str, datetime] = {}
    before = {key.kid for key in await _keys(stack, "list")}
    async with replica_of(stack, "auth-rotating", settings={"KEY_ROTATION_SECONDS": str(ROTATION_SECONDS)}):

        async def two() -> None:
            made.update({key.kid: key.signs_from for key in await _keys(stack, "list") if key.kid not in before})
            assert len(made) >= 2

        await eventually(two, within=2 * ROTATION_SECONDS + LEAD_SECONDS, every=0.5)
    first, second = sorted(made.values())[:2]
    # The replica checks for rotation every 0.7 s.
    assert ROTATION_SECONDS <= (second - first).total_seconds() <= ROTATION_SECONDS + SLACK_SECONDS
    account = await make_account(client)
    assert (await client.get("/api/v1/tasks", headers=account.headers)).status_code == httpx.codes.OK


async def test_replacing_the_keys_ends_all_access_tokens_at_once_and_no_session(stack: Stack, client: httpx.AsyncClient) -> None:
    user = await make_account(client)
    async with replica_of(stack, "auth-patient", settings={"ACCESS_TOKEN_TTL_SECONDS": str(LONG_SECONDS)}) as own:
        old = await _login_at(own, user)
    for replica in TASK_REPLICAS:
        assert await _answer(stack, replica, old) == "OK"
    before = {key.kid for key in await _keys(stack, "list")}
    (replacement,) = await _keys(stack, "replace")
    assert replacement.state == "active"
    assert replacement.kid not in before

    async def signed_anew() -> Account:
        answer = await client.post("/api/v1/auth/refresh", json={"refresh_token": user.refresh_token})
        assert answer.status_code == httpx.codes.OK, answer.text
        new = Account(user.id, user.email, answer.json()["access_token"], answer.json()["refresh_token"])
        assert _kid(new.access_token) == replacement.kid
        # Through the gateway, which must also have fetched the new key.
        assert (await client.get("/api/v1/users/me", headers=new.headers)).status_code == httpx.codes.OK
        for replica in TASK_REPLICAS:
            # A token of the new key makes the replica fetch the key set. Without such a token it does so within a minute.
            assert await _answer(stack, replica, new) == "OK"
        return new

    await eventually(signed_anew, within=KNOWN_WITHIN_SECONDS)
    for replica in TASK_REPLICAS:
        assert await _answer(stack, replica, old) == "TOKEN_INVALID"
    for path in ("/api/v1/users/me", "/api/v1/tasks"):
        assert (await client.get(path, headers=old.headers)).status_code == httpx.codes.UNAUTHORIZED
    assert await _published(client) == {replacement.kid}
    assert (await client.post("/api/v1/auth/login", json={"email": user.email, "password": PASSWORD})).status_code == httpx.codes.OK


async def _rotated(stack: Stack, client: httpx.AsyncClient, before: Sequence[Listed], seen: Seen) -> Listed:
    """Rotates the keys by command. Returns the new key once it signs."""
    asked = time.time()
    # Of two commands at once, one creates the key and the other finds it. One after the other, the second could come after the key's lead time.
    (*old, following), repeated = await asyncio.gather(_keys(stack, "rotate"), _keys(stack, "rotate"))
    assert [key.kid for key in old] == [key.kid for key in before if key.kid in {one.kid for one in old}]
    assert [key.state for key in old][-1] == "active"
    assert following.state == "next"
    assert asked + LEAD_SECONDS - 1 <= following.signs_from.timestamp() <= time.time() + LEAD_SECONDS + 1
    assert repeated[-1].kid == following.kid
    # The new key is published long before it signs.
    await eventually(lambda: _require_published(client, following.kid), within=LEAD_SECONDS / 2)
    assert old[-1].kid in await _published(client)
    assert following.kid not in seen.kids
    await eventually(lambda: _require_signing(seen, following.kid), within=LEAD_SECONDS + SLACK_SECONDS + OLD_TOKEN_SECONDS)
    assert seen.kids[following.kid] >= following.signs_from.timestamp() - 0.5
    listed = await _keys(stack, "list")
    assert [key.state for key in listed] == ["retired"] * (len(listed) - 1) + ["active"]
    return listed[-1]


async def _load(client: httpx.AsyncClient, account: Account, seen: Seen, stopping: asyncio.Event) -> None:
    """A well-behaved client, which never sends a token that may have expired."""

    async def send(name: str, verb: str, path: str, headers: dict[str, str] | None = None, body: object = None) -> Any:
        answer = await client.request(verb, path, headers=headers, json=body)
        seen.statuses[name, answer.status_code] += 1
        if not answer.is_success:
            seen.refused.append(f"{name}: {answer.status_code} {answer.text}")
        return answer.json()

    while not stopping.is_set():
        tokens = await send("login", "POST", "/api/v1/auth/login", body={"email": account.email, "password": PASSWORD})
        for _ in range(2):
            began = time.monotonic()
            headers = {"authorization": f"Bearer {tokens['access_token']}"}
            seen.kids.setdefault(_kid(tokens["access_token"]), time.time())
            while time.monotonic() - began < OLD_TOKEN_SECONDS and not stopping.is_set():
                await send("me", "GET", "/api/v1/users/me", headers)
                await send("tasks", "GET", "/api/v1/tasks", headers)
                await asyncio.sleep(PAUSE_SECONDS)
            tokens = await send("refresh", "POST", "/api/v1/auth/refresh", body={"refresh_token": tokens["refresh_token"]})


async def _watch(client: httpx.AsyncClient, seen: Seen, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        for kid in await _published(client):
            seen.published[kid] = time.time()
        await asyncio.sleep(0.1)


async def _settled(stack: Stack) -> None:
    """Waits until no key has the state `next`."""

    async def check() -> None:
        assert all(key.state != "next" for key in await _keys(stack, "list"))

    await eventually(check, within=LEAD_SECONDS + SLACK_SECONDS, every=0.5)


async def _keys(stack: Stack, action: str) -> list[Listed]:
    """Runs `python -m auth_service keys …` with the service's role and secrets, and parses its output."""
    status, output = await _keys_command(stack, action)
    assert status == 0, output
    heading, *lines = output.splitlines()
    assert heading.split() == ["KID", "STATE", "SIGNS", "FROM"]
    return [Listed(kid, state, datetime.fromisoformat(signs_from)) for kid, state, signs_from in map(str.split, lines)]


async def _keys_command(stack: Stack, action: str, told: dict[str, str] | None = None) -> tuple[int, str]:
    environment = {
        **ENVIRONMENT,
        "DATABASE_URL": login(stack.state, "auth_service"),
        "KEY_ENCRYPTION_KEY": _secret(stack, "key_encryption_key"),
        **(told or {}),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth_service", "keys", action),
        env=environment,
        cwd=PROJECT_ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def _ids(sql: Connection) -> set[str]:
    return {row[0] for row in await sql.fetch("SELECT id FROM auth.signing_keys")}


async def _published(client: httpx.AsyncClient) -> set[str]:
    answer = await client.get("/.well-known/jwks.json")
    assert answer.status_code == httpx.codes.OK
    assert all(key.keys() == {"kty", "crv", "x", "kid", "alg", "use"} for key in answer.json()["keys"]), "the key set must contain no private key"
    return {key["kid"] for key in answer.json()["keys"]}


async def _require_published(client: httpx.AsyncClient, kid: str) -> None:
    assert kid in await _published(client)


async def _require_withdrawn(client: httpx.AsyncClient, kid: str) -> None:
    assert kid not in await _published(client)


async def _require_signing(seen: Seen, kid: str) -> None:
    assert kid in seen.kids


async def _login_at(replica: Replica, account: Account) -> Account:
    """Logs in at one replica of auth_service."""
    async with grpc.aio.insecure_channel(replica.target) as channel:
        stub: Any = auth_service_pb2_grpc.AuthServiceStub(channel)  # type: ignore[no-untyped-call]
        tokens = await stub.Login(auth_service_pb2.LoginRequest(email=account.email, password=PASSWORD), timeout=5)
        return Account(account.id, account.email, tokens.access_token, tokens.refresh_token)


async def _answer(stack: Stack, replica: str, account: Account) -> str:
    """Calls a replica of task_service directly with the account's token. Returns OK or the error's reason."""
    async with grpc.aio.insecure_channel(f"{HOST}:{stack.state.processes[replica].grpc_port}") as channel:
        stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            await stub.ListTasks(task_service_pb2.ListTasksRequest(), metadata=account.metadata, timeout=5)
        except grpc.aio.AioRpcError as error:
            return of_rpc(error).reason
        return "OK"


def _kid(access_token: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(access_token.partition(".")[0] + "=="))["kid"])


def _secret(stack: Stack, name: str) -> str:
    return (Path(stack.state.data_dir) / "secrets" / name).read_text()
