"""Reminders in the running system: each is told once and in time, and none is lost while workers are killed and PostgreSQL restarts."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import grpc.aio
import httpx
import pytest

from devstack.stack import Stack
from tests.support.accounts import Account, make_account
from tests.support.observed import log_lines, log_size, metric
from tests.support.outage import replicas
from tests.support.waiting import eventually
from tests.support.watchers import Told, Watcher, over_grpc, over_sse

OUTAGE = pytest.mark.outage("kills workers and PostgreSQL under load")

USERS, EACH = 20, 500
# How many tasks a call creates. The calls of this system may take 2 s, also on a busy machine.
BATCH = 100
# On two quiet cores two workers need a few seconds for all reminders (docs/performance.md). Here a worker dies meanwhile, and others use the cores.
ALL_WITHIN_SECONDS = 120.0
HOUR = timedelta(hours=1)
REMINDER = 6


class Due:
    """Tasks of several users with one reminder each, and how often each was logged."""

    def __init__(self, database: asyncpg.Pool, tasks: Mapping[UUID, Sequence[UUID]]) -> None:
        self._database = database
        self._users = list(tasks)
        self._tasks = sorted(task for each in tasks.values() for task in each)

    async def at(self, moment: datetime, *, spread: timedelta = timedelta()) -> None:
        """Makes all of them due at this moment, or within `spread` from then on."""
        moved = "UPDATE task.reminders SET fire_at = $2::timestamptz + random() * $3::interval WHERE user_id = ANY ($1)"
        assert await self._database.execute(moved, self._users, moment, spread) == f"UPDATE {len(self._tasks)}"

    async def count(self) -> int:
        """Returns how many were logged."""
        count: int = await self._database.fetchval(f"SELECT count(*) FROM task.changes WHERE user_id = ANY ($1) AND kind = {REMINDER}", self._users)
        return count

    async def require_some(self) -> None:
        """Fails if none was logged."""
        assert await self.count() > 0

    async def require_each_once(self) -> None:
        """Fails unless each was logged once, and the numbers of each user's log have no gap."""
        logged = f"SELECT task_id FROM task.changes WHERE user_id = ANY ($1) AND kind = {REMINDER} ORDER BY task_id"
        assert [row[0] for row in await self._database.fetch(logged, self._users)] == self._tasks
        assert await self._database.fetchval("SELECT count(*) FROM task.reminders WHERE user_id = ANY ($1)", self._users) == 0
        gaps = """
            SELECT user_id FROM task.changes WHERE user_id = ANY ($1) GROUP BY user_id
            HAVING max(seq) <> count(*) OR max(seq) <> (SELECT last_seq FROM task.counters AS c WHERE c.user_id = changes.user_id)
        """
        assert await self._database.fetch(gaps, self._users) == []


@pytest.fixture
async def database(breakable: Stack) -> AsyncIterator[asyncpg.Pool]:
    """The database of the system that may be broken, as its superuser."""
    async with asyncpg.create_pool(breakable.state.database_url, min_size=0, max_size=4) as pool:
        yield pool


@pytest.fixture
async def due(breakable_rest: httpx.AsyncClient, database: asyncpg.Pool) -> Due:
    """10 000 reminders, of 500 tasks of each of 20 users."""
    accounts = [await make_account(breakable_rest) for _ in range(USERS)]
    return Due(database, {UUID(account.id): await _create(breakable_rest, account, EACH) for account in accounts})


async def _create(rest: httpx.AsyncClient, account: Account, count: int) -> Sequence[UUID]:
    """Creates tasks with a reminder that is due in a year."""
    at = (datetime.now(UTC) + timedelta(days=365)).isoformat()
    requests = [{"task": {"title": f"{number}", "reminders": [{"at": at}]}} for number in range(BATCH)]
    tasks: list[UUID] = []
    while len(tasks) < count:
        answer = await rest.post("/api/v1/tasks:batchCreate", json={"requests": requests}, headers=account.headers)
        assert answer.is_success, answer.text
        tasks += [UUID(task["id"]) for task in answer.json()["tasks"]]
    return tasks


async def test_a_reminder_is_told_once_and_in_time(rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, account: Account) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    async with Watcher(over_sse(rest), account) as sse, Watcher(over_grpc(gateway_channel), account) as grpc_watch:
        answer = await rest.post("/api/v1/tasks", json={"title": "Call", "reminders": [{"at": at.isoformat()}]}, headers=account.headers)
        assert answer.is_success, answer.text
        for watcher in (sse, grpc_watch):
            await watcher.changed(2)
        await asyncio.sleep(1.5)
        for watcher in (sse, grpc_watch):
            assert [(told.kind, told.task["id"]) for told in watcher.changes] == [(kind, answer.json()["id"]) for kind in ("CREATED", "REMINDER")]
            assert _lateness(watcher.changes[1], at) < 5


def _lateness(told: Told, at: datetime) -> float:
    late = told.at - at.timestamp()
    assert late >= 0
    return late


@OUTAGE
async def test_each_fires_once_though_a_worker_is_killed(breakable: Stack, due: Due) -> None:
    await due.at(datetime.now(UTC) + timedelta(seconds=1))
    await eventually(due.require_some, within=ALL_WITHIN_SECONDS, every=0.005)
    await breakable.kill("task-worker-1")
    assert await due.count() < USERS * EACH, "all were logged before the worker was killed"
    await eventually(due.require_each_once, within=ALL_WITHIN_SECONDS)


@pytest.mark.alone("with less of the processors a worker has no time for all that is due, and says so")
async def test_a_worker_that_is_told_to_stop_stops_in_time_and_leaves_the_rest_to_the_other(breakable: Stack, due: Due) -> None:
    since = log_size(breakable, "task-worker-1")
    await due.at(datetime.now(UTC) + timedelta(seconds=1))
    await eventually(due.require_some, within=ALL_WITHIN_SECONDS, every=0.005)
    began = time.monotonic()
    await breakable.kill("task-worker-1", signal.SIGTERM)
    assert time.monotonic() - began < 10
    lines = list(log_lines(breakable, "task-worker-1", since))
    assert lines[-1]["event"] == "stopped"
    assert [line for line in lines if line["level"] in {"warning", "error"}] == []
    await eventually(due.require_each_once, within=ALL_WITHIN_SECONDS)


@OUTAGE
async def test_none_is_lost_while_postgresql_restarts(breakable: Stack, due: Due) -> None:
    await due.at(datetime.now(UTC) + timedelta(seconds=1), spread=timedelta(seconds=4))
    await eventually(due.require_some, within=ALL_WITHIN_SECONDS, every=0.005)
    await breakable.kill("postgres")
    await asyncio.sleep(1)
    await breakable.start_process("postgres")
    await eventually(due.require_each_once, within=ALL_WITHIN_SECONDS)


@OUTAGE
async def test_after_an_outage_of_an_hour_each_fires_once_late(breakable: Stack, due: Due) -> None:
    for worker in replicas(breakable, "task-worker"):
        await breakable.stop_process(worker)
    await due.at(datetime.now(UTC) - HOUR, spread=timedelta(minutes=59))
    for worker in replicas(breakable, "task-worker"):
        await breakable.start_process(worker)
    await eventually(due.require_each_once, within=ALL_WITHIN_SECONDS)
    late = [await metric(breakable, worker, "task_reminder_late_seconds_sum") for worker in replicas(breakable, "task-worker")]
    assert sum(late) > 60
    fired = [await metric(breakable, worker, "task_reminders_fired_total") for worker in replicas(breakable, "task-worker")]
    assert sum(fired) == USERS * EACH
