"""Both services, their migrations and commands behind a real PgBouncer in transaction mode."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import httpx
import pytest

from devstack.roles import SERVICES
from devstack.stack import Stack
from tests.support.accounts import make_account
from tests.support.load import OK, Client, Load
from tests.support.observed import log_lines, log_size
from tests.support.outage import require_whole
from tests.support.task_api import RestTasks
from tests.support.waiting import eventually
from tests.support.watchers import Watcher, over_sse

pytestmark = pytest.mark.slow("starts a system for each way to use PgBouncer")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# Together the pools of two replicas have 22 connections. PgBouncer has 5 sessions for each role (devstack.pgbouncer).
CLIENTS, SESSIONS = 24, 5
LOAD_SECONDS = 2.0
OUTAGE_SECONDS = 0.5
# PgBouncer waits 15 s after a failed login to PostgreSQL (server_login_retry), and then a service's next attempt succeeds.
RECOVERED_WITHIN_SECONDS = 30.0
COUNT_SESSIONS = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename = ANY ($1::text[]) GROUP BY usename"


@pytest.fixture
async def postgres(breakable: Stack) -> AsyncIterator[Connection]:
    """PostgreSQL itself, as its superuser."""
    connection = await asyncpg.connect(breakable.state.database_url)
    yield connection
    await connection.close()


async def test_calls_succeed_on_shared_sessions(breakable: Stack, breakable_rest: httpx.AsyncClient, postgres: Connection) -> None:
    # Sessions whose statements are being cancelled do not count for PgBouncer, so that after other tests it can have more of them.
    await breakable.restart("pgbouncer")
    await eventually(lambda: require_whole(breakable), within=RECOVERED_WITHIN_SECONDS)
    since = {name: log_size(breakable, name) for name in ("auth-1", "task-1", "task-2")}
    most: Counter[str] = Counter()
    async with Load([await _client(breakable_rest) for _ in range(CLIENTS)]) as load:
        for _ in range(int(LOAD_SECONDS / 0.1)):
            await asyncio.sleep(0.1)
            for role, count in await postgres.fetch(COUNT_SESSIONS, SERVICES):
                most[role] = max(most[role], count)
    assert set(load.codes()) == {OK}
    assert {operation.operation for operation in load.outcomes} == {"create", "list", "rename", "delete"}
    assert 1 < most["task_service"] <= SESSIONS
    assert 1 <= most["auth_service"] <= SESSIONS
    for name, size in since.items():
        assert [line for line in log_lines(breakable, name, size) if line["level"] in {"warning", "error"}] == []


async def test_a_watch_tells_every_change(breakable_rest: httpx.AsyncClient) -> None:
    account = await make_account(breakable_rest)
    tasks = RestTasks(breakable_rest, account)
    async with Watcher(over_sse(breakable_rest), account) as watcher:
        made = await tasks.create("one", "watched")
        await tasks.rename(made.id, "two", "watched")
        await tasks.delete(made.id, "watched")
        assert [told.kind for told in await watcher.changed(3)] == ["CREATED", "UPDATED", "DELETED"]


async def test_a_migration_that_finds_nothing_to_do_may_run_twice_at_once(pooled_migrator_url: str) -> None:
    environment = {"DATABASE_URL": pooled_migrator_url, "SERVICE_ROLE": "task_service"}
    ended = await asyncio.gather(*(_run("task_service", "migrate", environment=environment) for _ in range(2)))
    assert [status for status, _ in ended] == [0, 0], ended
    assert all('"applied":[]' in output for _, output in ended), ended


async def test_the_keys_are_listed(breakable: Stack) -> None:
    pid = breakable.state.processes["auth-1"].pid
    variables = dict(entry.split("=", 1) for entry in (await asyncio.to_thread(Path(f"/proc/{pid}/environ").read_text)).split("\0") if entry)
    environment = {name: variables[name] for name in ("DATABASE_URL", "DATABASE_POOLER", "KEY_ENCRYPTION_KEY")}
    status, output = await _run("auth_service", "keys", "list", environment=environment)
    assert status == 0, output
    assert "active" in output


@pytest.mark.parametrize("process", ["pgbouncer", "postgres"])
async def test_an_outage_makes_calls_unavailable_and_ends_by_itself(process: str, breakable: Stack, breakable_rest: httpx.AsyncClient) -> None:
    clients = [await _client(breakable_rest) for _ in range(CLIENTS)]
    since = {name: log_size(breakable, name) for name in ("auth-1", "task-1", "task-2")}
    async with Load(clients) as load:
        await asyncio.sleep(OUTAGE_SECONDS)
        await breakable.kill(process)
        await asyncio.sleep(OUTAGE_SECONDS)
        await breakable.start_process(process)
        await eventually(lambda: require_whole(breakable), within=RECOVERED_WITHIN_SECONDS)
    assert set(load.codes()) <= {OK, "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert load.codes()["UNAVAILABLE"] > 0
    assert load.outcomes[-1].code == OK
    for name, size in since.items():
        assert [line for line in log_lines(breakable, name, size) if line["level"] == "error"] == []


async def _client(rest: httpx.AsyncClient) -> Client:
    """Returns the operations of a new user: each of them leaves the user with no task."""
    account = await make_account(rest)
    tasks = RestTasks(rest, account)

    async def rename(request_id: str) -> None:
        for task in await tasks.list(request_id):
            await tasks.rename(task.id, "renamed", request_id)

    async def delete(request_id: str) -> None:
        for task in await tasks.list(request_id):
            await tasks.delete(task.id, request_id)

    async def create(request_id: str) -> None:
        await tasks.create("made", request_id)

    return [("create", create), ("list", tasks.list), ("rename", rename), ("delete", delete)]


async def _run(service: str, *arguments: str, environment: dict[str, str]) -> tuple[int | None, str]:
    """Runs `python -m SERVICE …` with these variables only. Returns its exit status and output."""
    variables = {"PATH": os.environ["PATH"], **environment}
    command = (sys.executable, "-m", service, *arguments)
    ended = await asyncio.create_subprocess_exec(*command, env=variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await ended.communicate()
    return ended.returncode, output.decode()
