"""Backup and restore of a running system: nothing is lost of what a backup is of, and nothing comes back that must not."""

import asyncio
import functools
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import httpx
import jwt
import pytest
import redis.asyncio
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.backup import SCRIPTS
from devstack.config import StackConfig
from devstack.keys import load_or_create
from devstack.postgres import DATABASE
from devstack.roles import MIGRATOR, SERVICES, ensure_database, ensure_roles
from devstack.stack import Stack
from tests.support.accounts import PASSWORD, Account, log_in, make_account
from tests.support.backups import Operator, Rows, rows_of, superuser
from tests.support.databases import login
from tests.support.errors import of_response, of_rpc
from tests.support.load import Client, Load
from tests.support.outage import replicas, require_whole
from tests.support.task_api import GrpcTasks, RestTasks
from tests.support.waiting import eventually

# Keys are read each second, and the gateway fetches them as often; by default it takes 15 and 30.
ENVIRONMENT = {"BCRYPT_COST": "4", "KEY_LEAD_SECONDS": "6", "JWKS_REFRESH_SECONDS": "1", "LOGIN_ADDRESS_BURST": "10000"}
BACK_WITHIN_SECONDS = 15.0
# The contract's two, and a little for a machine that does other things too.
REVOKED_WITHIN_SECONDS = 2.5
WRITING_SECONDS = 0.5
TASKS = 20
DAY_SECONDS = 86_400
BEYOND_ALL_EVENTS = 999_999_999
# What a restore sets by itself; the tests look at each.
SET_ANEW = {"auth.sessions", "auth.signing_keys", "auth.event_counter", "task.feed"}
SESSIONS = "SELECT (to_jsonb(one) - 'ended_at')::text FROM auth.sessions AS one ORDER BY 1"


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    folder = tmp_path / "backups"
    folder.mkdir()
    return Operator(stack, folder)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through the gateway."""
    await eventually(lambda: require_whole(stack), within=BACK_WITHIN_SECONDS)
    async with httpx.AsyncClient(base_url=stack.state.url, timeout=20) as client:
        yield client


@pytest.fixture
async def channel(stack: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, through the gateway."""
    async with grpc.aio.insecure_channel(stack.state.url.removeprefix("http://")) as channel:
        yield channel


@pytest.fixture
async def account(client: httpx.AsyncClient) -> Account:
    """A user who is logged in."""
    return await make_account(client)


@pytest.fixture(scope="module")
async def _good(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    async with httpx.AsyncClient(base_url=stack.state.url, timeout=20) as client:
        await eventually(lambda: make_account(client), within=BACK_WITHIN_SECONDS)
    return await Operator(stack, tmp_path_factory.mktemp("good")).backup()


@pytest.fixture
def good(_good: Path, operator: Operator) -> Path:
    """A backup, to be damaged."""
    for file in (_good, _sum_of(_good)):
        shutil.copy(file, operator.folder)
    return operator.folder / _good.name


async def test_all_is_lost_and_comes_back_as_it_was(
    stack: Stack, operator: Operator, client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account
) -> None:
    tasks = RestTasks(client, account)
    first = await tasks.create("as it was", "setup")
    async with Load(_writers(client, channel, account)) as load:
        await asyncio.sleep(WRITING_SECONDS)
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
    resume_token = (await _next(_watch(channel, account))).resume_token
    await tasks.create("what was told", "after the token")

    await _lose_everything(stack)
    await eventually(lambda: _require_unavailable(client, account), within=BACK_WITHIN_SECONDS)
    await _make_roles_and_database(stack)
    restored = await operator.restore(backup)
    assert restored.status == 0, restored.output

    async with superuser(stack) as sql:
        assert _without_set_anew(await rows_of(sql)) == _without_set_anew(rows)
        assert await sql.fetch(SESSIONS) == sessions
        assert await sql.fetchval("SELECT count(*) FROM auth.sessions WHERE ended_at IS NULL") == 0
        assert await sql.fetchval("SELECT epoch::text FROM task.feed") not in str(rows["task.feed"])
        assert await sql.fetchval("SELECT last_number FROM auth.event_counter") > BEYOND_ALL_EVENTS
    assert await operator.schema() == schema, "owners and rights among it"
    await _require_rights(stack)
    await eventually(lambda: require_whole(stack), within=BACK_WITHIN_SECONDS)
    again = await eventually(lambda: _log_in(client, account), within=BACK_WITHIN_SECONDS)
    await _require_session_over(client, account)
    seen = await RestTasks(client, again).get(first.id, "afterwards")
    assert (seen.title, seen.version) == (first.title, first.version), "not what was cached"
    await _require_told_to_list_again(client, channel, again, resume_token)


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
        stream = _watch(channel, account)
        await _next(stream)
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
        again = await eventually(lambda: _log_in(client, account), within=BACK_WITHIN_SECONDS)
        await _require_session_over(client, account)
        await asyncio.sleep(WRITING_SECONDS)
    # Those that waited within a function for a table that is no more are INTERNAL, and nothing was written.
    after = {outcome.code for outcome in load.between(restored_at, time.monotonic())}
    assert after <= {"OK", "UNAVAILABLE", "NOT_FOUND", "UNAUTHENTICATED"}, load.codes()
    await eventually(lambda: require_whole(stack), within=BACK_WITHIN_SECONDS)
    # An account that is not in the backup is not there, and one that was deleted since stays so.
    for gone in (newcomer, leaver):
        answer = await client.post("/api/v1/auth/login", json={"email": gone.email, "password": PASSWORD})
        assert of_response(answer).reason == "INVALID_CREDENTIALS"
    await eventually(lambda: _require_no_tasks(stack, leaver), within=BACK_WITHIN_SECONDS)
    await _require_revocations_bite(client, again)
    # Unless that is what is meant. Replicas remember for a token's lifetime who is gone, so this one is for when the services are stopped.
    await asyncio.gather(*map(stack.stop_process, replicas(stack, "auth", "task")))
    restored = await operator.restore("--replace", "--with-deleted-accounts", backup)
    assert restored.status == 0, restored.output
    await asyncio.gather(*map(stack.start_process, replicas(stack, "auth", "task")))
    back = await eventually(lambda: _log_in(client, leaver), within=BACK_WITHIN_SECONDS)
    assert [task.title for task in await eventually(lambda: _list(client, back), within=BACK_WITHIN_SECONDS)] == ["to go with its owner"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut_and_sum(path: Path) -> None:
    """As if it had been cut off before it was ever summed up."""
    _cut(path)
    _sum_of(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


def _without_sum(path: Path) -> None:
    _sum_of(path).unlink()


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
    async with superuser(stack) as sql:
        before, epoch = await rows_of(sql), await sql.fetchval("SELECT epoch FROM task.feed")
        followed = await operator.restore("--recovered")
        assert followed.status == 0, followed.output
        assert _without_set_anew(await rows_of(sql)) == _without_set_anew(before)
        assert await sql.fetchval("SELECT epoch FROM task.feed") != epoch
        assert await sql.fetchval("SELECT count(*) FROM auth.sessions WHERE ended_at IS NULL") == 0


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


FAILURES = {
    "a wrong password": ("", {"PGPASSWORD": "wrong"}),
    "no such database": ("", {"PGDATABASE": "nowhere"}),
    "killed half-way": ('echo PGDMP > "${2#--file=}"; kill -9 $$', {}),
    "says that all is well": ('echo PGDMP > "${2#--file=}"', {}),
    "writes a part": ('"$REAL" "$@" && head -c -3000 "${2#--file=}" > "${2#--file=}.part" && mv "${2#--file=}.part" "${2#--file=}"', {}),
    "of one table": ('"$REAL" --format=custom "$2" --table=task.feed', {}),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_backup_that_fails_leaves_nothing_that_looks_good_and_what_there_was(operator: Operator, tmp_path: Path, failure: str) -> None:
    old = _old_backup(operator.folder, "task-manager-20200101T000000Z.dump", days=1000)
    text, told = FAILURES[failure]
    if text:
        told = {"PATH": operator.with_program("pg_dump", text, tmp_path)}
    failed = await operator.script("backup.sh", str(operator.folder), **told)
    assert failed.status == 1, failed.output
    assert "backup failed" in failed.output
    assert sorted(operator.folder.iterdir()) == sorted([old, _sum_of(old)])


async def test_backups_are_kept_as_long_as_is_said(operator: Operator) -> None:
    young = _old_backup(operator.folder, "task-manager-20260102T000000Z.dump", days=2.9)
    old = _old_backup(operator.folder, "task-manager-20260101T000000Z.dump", days=3.1)
    strange = _old_backup(operator.folder, "precious.dump", days=1000)
    draft = _old_backup(operator.folder, ".task-manager-20260101T000000Z.dump.7.draft", days=1.1)
    ran = await operator.script("backup.sh", str(operator.folder), BACKUP_RETENTION_DAYS="3")
    assert ran.status == 0, ran.output
    kept = {path.name for path in operator.folder.iterdir()}
    assert {young.name, f"{young.name}.sha256", strange.name} <= kept
    assert not {old.name, f"{old.name}.sha256", draft.name} & kept
    (new,) = set(operator.folder.glob("task-manager-*.dump")) - {young}
    assert new.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("days", ["0", "-1", "some", ""])
async def test_a_wrong_number_of_days_is_refused(operator: Operator, days: str) -> None:
    ran = await operator.script("backup.sh", str(operator.folder), BACKUP_RETENTION_DAYS=days or " ")
    assert ran.status == 2
    assert "BACKUP_RETENTION_DAYS" in ran.output


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
async def test_shellcheck_finds_nothing(operator: Operator, script: str) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        assert not os.environ.get("CI"), "shellcheck must be installed in CI"
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    found = await operator.program(program, str(SCRIPTS / script))
    assert (found.status, found.output) == (0, "")


def _sum_of(backup: Path) -> Path:
    return backup.with_name(f"{backup.name}.sha256")


def _old_backup(folder: Path, name: str, days: float) -> Path:
    path = folder / name
    written = time.time() - days * DAY_SECONDS
    for file in (path, _sum_of(path)):
        file.write_text("of old")
        os.utime(file, (written, written))
    return path


def _writers(client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account) -> list[Client]:
    """Who makes, changes and deletes tasks."""

    async def through_its_life(api: GrpcTasks | RestTasks, request_id: str) -> None:
        task = await api.create("written while a backup is made", request_id)
        await api.rename(task.id, str(uuid4()), request_id)
        if task.id < "8":
            await api.delete(task.id, request_id)

    apis = (GrpcTasks(channel, account), RestTasks(client, account))
    return [[("write", functools.partial(through_its_life, api))] for api in apis for _ in range(2)]


def _watch(channel: grpc.aio.Channel, account: Account, resume_token: str = "") -> Any:
    stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]
    return stub.WatchTasks(task_service_pb2.WatchTasksRequest(resume_token=resume_token), metadata=account.metadata)


async def _next(stream: Any) -> Any:
    return await asyncio.wait_for(stream.read(), BACK_WITHIN_SECONDS)


async def _to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def _lose_everything(stack: Stack) -> None:
    async with superuser(stack, "postgres") as sql:
        await sql.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        await sql.execute(f"DROP ROLE {MIGRATOR}, {', '.join(SERVICES)}")


async def _make_roles_and_database(stack: Stack) -> None:
    async with superuser(stack, "postgres") as sql:
        await ensure_roles(sql, load_or_create(Path(stack.state.data_dir) / "secrets").passwords)
        await ensure_database(sql, DATABASE)


async def _require_unavailable(client: httpx.AsyncClient, account: Account) -> None:
    answer = await client.get("/api/v1/tasks", headers=account.headers)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text


async def _log_in(client: httpx.AsyncClient, account: Account) -> Account:
    """Logged in, with a token that the gateway and task_service take, by a key that is not one of before: auth_service has noticed."""
    again = await log_in(client, account)
    assert jwt.get_unverified_header(again.access_token)["kid"] != jwt.get_unverified_header(account.access_token)["kid"]
    await _list(client, again)
    return again


async def _list(client: httpx.AsyncClient, account: Account) -> Any:
    answer = await client.get("/api/v1/tasks", headers=account.headers)
    assert answer.is_success, answer.text
    return [type("Task", (), task) for task in answer.json()["tasks"]]


async def _require_rights(stack: Stack) -> None:
    """The services may do what they might before, and no more."""
    for role, own, other in (("auth_service", "auth.users", "task.tasks"), ("task_service", "task.tasks", "auth.users")):
        connection = await asyncpg.connect(login(stack.state, role))
        try:
            assert await connection.fetchval(f"SELECT count(*) FROM {own}") > 0
            for statement in (f"SELECT FROM {other}", f"ALTER TABLE {own} ADD COLUMN mine integer", f"TRUNCATE {own}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()


async def _require_session_over(client: httpx.AsyncClient, account: Account) -> None:
    """Neither token of before is good for anything."""

    async def require_refused() -> None:
        for path in ("/api/v1/tasks", "/api/v1/users/me"):
            answer = await client.get(path, headers=account.headers)
            assert answer.status_code == httpx.codes.UNAUTHORIZED, answer.text

    await eventually(require_refused, within=BACK_WITHIN_SECONDS)
    refreshed = await client.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token})
    assert of_response(refreshed).reason == "REFRESH_TOKEN_INVALID"


async def _require_told_to_list_again(client: httpx.AsyncClient, channel: grpc.aio.Channel, account: Account, resume_token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _next(_watch(channel, account, resume_token))
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert of_rpc(refused.value).reason == "RESUME_TOKEN_EXPIRED"
    listed = (await client.get("/api/v1/tasks", headers=account.headers)).json()
    stream = _watch(channel, account, listed["resume_token"])
    await _next(stream)
    made = await RestTasks(client, account).create("after the restore", "told")
    assert (await _next(stream)).task.id == made.id
    stream.cancel()


async def _require_no_tasks(stack: Stack, account: Account) -> None:
    async with superuser(stack) as sql:
        assert await sql.fetchval("SELECT count(*) FROM task.tasks WHERE user_id = $1", UUID(account.id)) == 0


async def _require_revocations_bite(client: httpx.AsyncClient, account: Account) -> None:
    """The replicas have read further in the log of before than the backup had it; they miss nothing of the new one."""
    logged_out = await client.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})
    assert logged_out.is_success

    async def require_refused() -> None:
        answer = await client.get("/api/v1/tasks", headers=account.headers)
        assert answer.status_code == httpx.codes.UNAUTHORIZED

    await eventually(require_refused, within=REVOKED_WITHIN_SECONDS)


def _without_set_anew(rows: Rows) -> Rows:
    return {table: found for table, found in rows.items() if table not in SET_ANEW}
