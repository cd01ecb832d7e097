"""A restore of a running system loses nothing that the backup contains, and revives no credential or deleted account."""

import asyncio
import functools
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc.aio
import httpx
import pytest
import redis.asyncio

from devstack.config import StackConfig
from devstack.keys import load_or_create
from devstack.postgres import DATABASE
from devstack.roles import MIGRATOR, PROGRAMS, ensure_database, ensure_roles
from devstack.stack import Stack
from tests.deploy.restored import (
    BACK_WITHIN_SECONDS,
    list_tasks,
    log_in_again,
    next_of,
    require_no_tasks,
    require_revocations_bite,
    require_rights,
    require_session_over,
    require_told_to_list_again,
    watch,
    without_set_anew,
)
from tests.support.accounts import PASSWORD, Account, make_account, make_api_token
from tests.support.backups import Operator, rows_of, sum_of, superuser
from tests.support.clients import channel_of, rest_of
from tests.support.errors import of_response, of_rpc
from tests.support.load import Client, Load
from tests.support.outage import replicas, require_whole
from tests.support.receivers import Receiver, listening
from tests.support.task_api import GrpcTasks, RestTasks
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow("it restores whole systems from backups")

# With these, auth_service reads its keys every second and the gateway fetches them every second, instead of every 15 s and 30 s.
ENVIRONMENT = {
    "BCRYPT_COST": "4",
    "KEY_LEAD_SECONDS": "6",
    "JWKS_REFRESH_SECONDS": "1",
    "LOGIN_ADDRESS_BURST": "10000",
    "REGISTER_ADDRESS_BURST": "10000",
}
WRITING_SECONDS = 0.5
TASKS = 20
BEYOND_ALL_EVENTS = 999_999_999
SESSIONS = "SELECT (to_jsonb(one) - 'ended_at')::text FROM auth.sessions AS one ORDER BY 1"


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
def operator(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(stack, tmp_path_factory.mktemp("backups"))


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through the gateway."""
    await eventually(lambda: require_whole(stack), within=BACK_WITHIN_SECONDS)
    async with rest_of(stack) as client:
        yield client


@pytest.fixture
async def channel(stack: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, through the gateway."""
    async with channel_of(stack) as channel:
        yield channel


@pytest.fixture
async def account(client: httpx.AsyncClient) -> Account:
    """A user who is logged in."""
    return await make_account(client)


@pytest.fixture(scope="module")
async def _good(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    async with rest_of(stack) as client:
        await eventually(lambda: make_account(client), within=BACK_WITHIN_SECONDS)
    return await Operator(stack, tmp_path_factory.mktemp("good")).backup()


@pytest.fixture
def good(_good: Path, operator: Operator) -> Path:
    """A backup, to be damaged."""
    for file in (_good, sum_of(_good)):
        shutil.copy(file, operator.folder)
    return operator.folder / _good.name


async def test_all_is_lost_and_comes_back_as_it_was(
    stack: Stack, operator: Operator, client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account
) -> None:
    tasks = RestTasks(client, account)
    first = await tasks.create("as it was", "setup")
    await make_api_token(client, account, "tasks:read")
    async with Load(_writers(client, channel, account)) as load:
        await eventually(lambda: _require_written(load, TASKS), within=BACK_WITHIN_SECONDS)
        async with superuser(stack) as sql, sql.transaction(isolation="repeatable_read", readonly=True):
            snapshot = await sql.fetchval("SELECT pg_export_snapshot()")
            rows, sessions = await rows_of(sql), await sql.fetch(SESSIONS)
            backup = await operator.backup(f"--snapshot={snapshot}")
        await asyncio.sleep(WRITING_SECONDS)
    assert load.failures() == [], "a backup is in nobody's way"
    assert len(rows["task.changes"]) > TASKS
    schema = await operator.schema()
    await tasks.rename(first.id, "what must not be seen any more", "after the backup")
    assert (await tasks.get(first.id, "into the cache")).title != first.title
    resume_token = (await next_of(watch(channel, account))).resume_token
    await tasks.create("what was told", "after the token")

    await _lose_everything(stack)
    await eventually(lambda: _require_unavailable(client, account), within=BACK_WITHIN_SECONDS)
    await _make_roles_and_database(stack)
    restored = await operator.restore(backup)
    assert restored.status == 0, restored.output

    async with superuser(stack) as sql:
        assert without_set_anew(await rows_of(sql)) == without_set_anew(rows)
        assert await sql.fetch(SESSIONS) == sessions
        assert await sql.fetchval("SELECT count(*) FROM auth.sessions WHERE ended_at IS NULL") == 0
        assert await sql.fetchval("SELECT count(*) FROM auth.api_tokens") == 0
        assert await sql.fetchval("SELECT epoch::text FROM task.feed") not in str(rows["task.feed"])
        assert await sql.fetchval("SELECT last_number FROM auth.event_counter") > BEYOND_ALL_EVENTS
    assert await operator.schema() == schema, "owners and rights among it"
    await require_rights(stack)
    await eventually(lambda: require_whole(stack), within=BACK_WITHIN_SECONDS)
    again = await eventually(lambda: log_in_again(client, account), within=BACK_WITHIN_SECONDS)
    await require_session_over(client, account)
    seen = await RestTasks(client, again).get(first.id, "afterwards")
    assert (seen.title, seen.version) == (first.title, first.version), "not what was cached"
    await require_told_to_list_again(client, channel, again, resume_token)


async def test_in_the_place_of_a_database_in_use(
    stack: Stack, operator: Operator, client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account
) -> None:
    leaver = await make_account(client)
    await RestTasks(client, leaver).create("to go with its owner", "setup")
    await RestTasks(client, account).create("to stay", "setup")
    backup = await operator.backup()
    newcomer = await make_account(client)
    assert (await client.post("/api/v1/users/me:delete", json={"password": PASSWORD}, headers=leaver.headers)).is_success
    async with Load(_writers(client, channel, account)) as load:
        await asyncio.sleep(WRITING_SECONDS)
        stream = watch(channel, account)
        await next_of(stream)
        refused = await operator.restore(backup)
        assert refused.status == 1, refused.output
        assert "--replace" in refused.output
        assert "nothing was changed" in refused.output
        assert load.failures() == []
        restored = await operator.restore("--replace", backup)
        restored_at = time.monotonic()
        assert restored.status == 0, restored.output
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(_to_the_end(stream), BACK_WITHIN_SECONDS)
        assert of_rpc(ended.value).reason in {"RESUME_TOKEN_EXPIRED", "TOKEN_INVALID"}
        again = await eventually(lambda: log_in_again(client, account), within=BACK_WITHIN_SECONDS)
        await require_session_over(client, account)
        await asyncio.sleep(WRITING_SECONDS)
    # Only calls after the restore: a write that waited for a dropped table failed with INTERNAL during it, and has written nothing.
    after = {outcome.code for outcome in load.between(restored_at, time.monotonic())}
    assert after <= {"OK", "UNAVAILABLE", "NOT_FOUND", "UNAUTHENTICATED"}, load.codes()
    await eventually(lambda: require_whole(stack), within=BACK_WITHIN_SECONDS)
    # An account that is not in the backup is gone, and an account that was deleted after the backup stays deleted.
    for gone in (newcomer, leaver):
        answer = await client.post("/api/v1/auth/login", json={"email": gone.email, "password": PASSWORD})
        assert of_response(answer).reason == "INVALID_CREDENTIALS"
    await eventually(lambda: require_no_tasks(stack, leaver), within=BACK_WITHIN_SECONDS)
    await require_revocations_bite(client, again)
    # --with-deleted-accounts restores it. The services are stopped for this, because replicas remember a deletion for the lifetime of a token.
    await asyncio.gather(*map(stack.stop_process, replicas(stack, "auth", "task")))
    restored = await operator.restore("--replace", "--with-deleted-accounts", backup)
    assert restored.status == 0, restored.output
    await asyncio.gather(*map(stack.start_process, replicas(stack, "auth", "task")))
    back = await eventually(lambda: log_in_again(client, leaver), within=BACK_WITHIN_SECONDS)
    assert [task.title for task in await eventually(lambda: list_tasks(client, back), within=BACK_WITHIN_SECONDS)] == ["to go with its owner"]


async def test_webhooks_wait_for_their_owners(stack: Stack, operator: Operator, client: httpx.AsyncClient, account: Account) -> None:
    receiver = Receiver("/hook")
    async with listening(receiver) as url:
        created = (await client.post("/api/v1/webhooks", json={"url": f"{url}/hook"}, headers=account.headers)).json()
        receiver.secret, path = created["secret"], f"/api/v1/webhooks/{created['webhook']['id']}"

        async def require_sent(*tasks: str) -> None:
            assert [arrival.subject[0] for arrival in receiver.got] == [*tasks]

        first = await RestTasks(client, account).create("before the backup", "setup")
        await eventually(lambda: require_sent(first.id), within=BACK_WITHIN_SECONDS)
        backup = await operator.backup()
        lost = await RestTasks(client, account).create("after the backup", "setup")
        await eventually(lambda: require_sent(first.id, lost.id), within=BACK_WITHIN_SECONDS)
        restored = await operator.restore("--replace", backup)
        assert restored.status == 0, restored.output
        again = await eventually(lambda: log_in_again(client, account), within=BACK_WITHIN_SECONDS)
        waiting = await RestTasks(client, again).create("while it is disabled", "setup")
        found = (await client.get(path, headers=again.headers)).json()
        assert (found["state"], found["disabled_reason"]) == ("DISABLED", "The database was restored from a backup.")
        assert found["etag"] != created["webhook"]["etag"]
        await asyncio.sleep(WRITING_SECONDS)
        await require_sent(first.id, lost.id)
        assert (await client.patch(path, json={"state": "ACTIVE"}, headers=again.headers)).is_success
        await eventually(lambda: require_sent(first.id, lost.id, waiting.id), within=BACK_WITHIN_SECONDS)
        # The change that is lost and the one that now has its number are two messages.
        assert len({arrival.message_id for arrival in receiver.got}) == 3


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut_and_sum(path: Path) -> None:
    """Truncates the file and writes a checksum that matches the rest."""
    _cut(path)
    sum_of(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


def _without_sum(path: Path) -> None:
    sum_of(path).unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "a bit": _flip,
    "cut, with its sum": _cut_and_sum,
    "no sum": _without_sum,
    "nothing": _empty,
    "not there": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_damaged_is_refused_and_nothing_is_touched(stack: Stack, operator: Operator, good: Path, damage: str) -> None:
    DAMAGES[damage](good)
    async with superuser(stack) as sql:
        before = await rows_of(sql)
        refused = await operator.restore("--replace", good)
        assert refused.status == 1
        assert "restore failed" in refused.output
        assert await rows_of(sql) == before


@pytest.mark.parametrize(
    "breaks",
    ['case $* in *=-*) "$REAL" "$@" | head -c 60000; exit 1 ;; esac; exec "$REAL" "$@"', 'case $* in *=-*) exit 1 ;; esac; exec "$REAL" "$@"'],
    ids=["half-way", "at once"],
)
async def test_a_restore_that_breaks_off_leaves_nothing_behind(stack: Stack, operator: Operator, good: Path, tmp_path: Path, breaks: str) -> None:
    path = operator.with_program("pg_restore", breaks, tmp_path)
    async with superuser(stack) as sql:
        before = await rows_of(sql)
        refused = await operator.restore("--replace", good, PATH=path)
        assert refused.status == 1
        assert "nothing was changed" in refused.output
        assert await rows_of(sql) == before


async def test_a_database_that_was_recovered_by_other_means(stack: Stack, operator: Operator, client: httpx.AsyncClient, account: Account) -> None:
    await RestTasks(client, account).create("recovered", "setup")
    _, token = await make_api_token(client, account, "tasks:read")
    with_token = {"authorization": f"Bearer {token}"}
    assert (await client.get("/api/v1/tasks", headers=with_token)).is_success
    async with superuser(stack) as sql:
        before, epoch = await rows_of(sql), await sql.fetchval("SELECT epoch FROM task.feed")
        generation = await sql.fetchval("SELECT generation FROM task.cache_state")
        followed = await operator.restore("--recovered")
        assert followed.status == 0, followed.output
        assert without_set_anew(await rows_of(sql)) == without_set_anew(before)
        assert await sql.fetchval("SELECT epoch FROM task.feed") != epoch
        assert await sql.fetchval("SELECT generation FROM task.cache_state") != generation
        assert await sql.fetchval("SELECT count(*) FROM auth.sessions WHERE ended_at IS NULL") == 0
        assert await sql.fetchval("SELECT count(*) FROM auth.api_tokens") == 0

    async def refused() -> None:
        assert (await client.get("/api/v1/tasks", headers=with_token)).status_code == httpx.codes.UNAUTHORIZED

    # auth_service keeps an access token for it until it has read that the signing keys are withdrawn.
    await eventually(refused, within=BACK_WITHIN_SECONDS)


async def test_a_restore_says_when_redis_was_not_emptied(operator: Operator, good: Path) -> None:
    restored = await operator.restore("--replace", good, REDIS_PORT="1")
    assert restored.status == 1
    assert "Redis was not emptied" in restored.output


async def test_redis_holds_nothing_of_before(stack: Stack, operator: Operator) -> None:
    async with redis.asyncio.Redis.from_url(stack.state.redis_url) as valkey:
        await valkey.set("task:of:before", "old")
        emptied = await operator.script("flush-redis.sh")
        assert (emptied.status, emptied.output) == (0, "Redis is empty\n")
        assert await valkey.get("task:of:before") is None


def _writers(client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account) -> list[Client]:
    """Returns clients that create, rename and delete tasks."""

    async def through_its_life(api: GrpcTasks | RestTasks, request_id: str) -> None:
        task = await api.create("written while a backup is made", request_id)
        await api.rename(task.id, str(uuid4()), request_id)
        if task.id < "8":
            await api.delete(task.id, request_id)

    apis = (GrpcTasks(channel, account), RestTasks(client, account))
    return [[("write", functools.partial(through_its_life, api))] for api in apis for _ in range(2)]


async def _require_written(load: Load, count: int) -> None:
    assert len(load.outcomes) > count


async def _to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def _lose_everything(stack: Stack) -> None:
    async with superuser(stack, "postgres") as sql:
        await sql.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        await sql.execute(f"DROP ROLE {MIGRATOR}, {', '.join(PROGRAMS)}")


async def _make_roles_and_database(stack: Stack) -> None:
    async with superuser(stack, "postgres") as sql:
        await ensure_roles(sql, load_or_create(Path(stack.state.data_dir) / "secrets").passwords)
        await ensure_database(sql, DATABASE)


async def _require_unavailable(client: httpx.AsyncClient, account: Account) -> None:
    answer = await client.get("/api/v1/tasks", headers=account.headers)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
