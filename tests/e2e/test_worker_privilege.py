"""The rights of the worker's role in the running system's database: it fires reminders, sends to webhooks, and can do nothing else."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from devstack.roles import WORKER
from devstack.stack import Stack
from tests.e2e.test_least_privilege import CREATIONS, OF_THE_SERVER, RIGHTS, Role, Table
from tests.support.databases import login

READABLE = {"task.reminders", "task.schema_migrations"}
SETTLING = ",".join(
    (
        *("uuid,uuid,uuid", "double precision", "bigint,bigint,smallint", "double precision", "boolean,uuid,text,text,integer"),
        *("timestamp with time zone", "integer,integer,text"),
    )
)
# What the worker calls, with the outcome if all arguments are NULL: no missing right, but NULL as the user's id, which no counter can have.
CALLABLE = {
    "task.fire_reminders(uuid,integer,boolean)": "23",
    **dict.fromkeys(
        (
            "task.due_webhooks(integer)",
            "task.take_webhook(uuid,uuid,uuid,double precision,integer,integer)",
            f"task.settle_webhook({SETTLING})",
            "task.renew_webhooks(uuid[],uuid[],uuid[],double precision)",
            "task.waiting_tests(integer)",
            "task.take_test(uuid,uuid,uuid)",
            "task.settle_test(uuid,uuid,uuid,timestamp with time zone,integer,boolean,integer,text)",
        ),
        "",
    ),
}


@pytest.fixture
async def worker(system: Stack) -> AsyncIterator[Role]:
    itself = await asyncpg.connect(login(system.state, WORKER))
    superuser = await asyncpg.connect(system.state.database_url)
    try:
        yield Role(WORKER, itself, superuser)
    finally:
        await itself.close()
        await superuser.close()


async def test_it_reads_the_reminders_and_no_task(worker: Role) -> None:
    tables = [table for schema in ("task", "auth") for table in await worker.tables(schema)]
    assert await worker.outcomes_but("", (table.read for table in tables if table.name in READABLE)) == {}
    assert len([table for table in tables if table.name in READABLE]) == len(READABLE)
    assert await worker.not_refused(table.read for table in tables if table.name not in READABLE) == {}


async def test_it_writes_no_table(worker: Role) -> None:
    tables: list[Table] = [table for schema in ("task", "auth") for table in await worker.tables(schema)]
    assert await worker.not_refused(attempt for table in tables for attempt in (*table.writes, *table.blind_writes, *table.changes)) == {}


async def test_it_fires_reminders_sends_to_webhooks_and_calls_nothing_else(worker: Role) -> None:
    routines = [routine for schema in ("task", "auth") for routine in await worker.routines(schema)]
    outcomes = {routine.signature: (await worker.outcome(routine.call))[:2] for routine in routines if routine.signature in CALLABLE}
    assert outcomes == CALLABLE
    assert await worker.not_refused(routine.call for routine in routines if routine.signature not in CALLABLE) == {}
    assert await worker.not_refused(change for routine in routines for change in routine.changes) == {}


@pytest.mark.parametrize("statement", CREATIONS)
async def test_it_can_make_nothing(worker: Role, statement: str) -> None:
    assert await worker.not_refused(statement.format(schema=schema) for schema in ("task", "auth", "public")) == {}


@pytest.mark.parametrize("statement", OF_THE_SERVER)
async def test_the_server_is_out_of_its_reach(worker: Role, statement: str) -> None:
    assert await worker.not_refused([statement.format(role=WORKER, other="task_service")]) == {}


async def test_its_rights_are_these_and_no_others(worker: Role) -> None:
    assert await worker.column(RIGHTS, "task", WORKER) == ["EXECUTE", "SELECT", "USAGE"]
    assert await worker.column(RIGHTS, "auth", WORKER) == []


async def test_the_worker_logs_in_as_its_role_alone(worker: Role) -> None:
    logins = "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE application_name = $1"
    assert await worker.column(logins, "task-worker") == [WORKER]
