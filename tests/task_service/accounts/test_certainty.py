"""No row of a deleted account stays, whoever else removes or writes rows at the same moment, and no account delays another."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit.errors import DependencyUnavailable, ServiceError, TokenInvalid
from servicekit.stores.postgres import Database
from task_service.accounts import service as deleted_accounts
from task_service.accounts.domain import Left, Removed
from task_service.accounts.service import DeletedAccounts
from task_service.tasks.domain import Actor
from task_service.tasks.repository import SWEEP, PostgresTasks
from task_service.tasks.writes import Creation, Deletion
from tests.servicekit.stores import databases
from tests.task_service.accounts.conftest import Events, Removal, Rows
from tests.task_service.conftest import FIELDS, insert, new_id

AT_ONCE = 20
# All tables of the schema with rows of a user. The counter stays, closed; account_removals is the queue itself.
TABLES = """
SELECT relname FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = 'task' AND relkind IN ('r', 'p') AND attname = 'user_id' AND NOT attisdropped AND relname <> 'counters'
"""


async def _left(database: Database, users: Sequence[Actor]) -> dict[str, int]:
    """Returns the numbers of the users' rows by table. Tables without rows are omitted."""
    left = {}
    for (table,) in await database.fetch(TABLES):
        row = await database.fetchrow(f"SELECT count(*) FROM task.{table} WHERE user_id = ANY ($1)", [user.user_id for user in users])
        assert row is not None
        left[table] = row[0]
    assert {"tasks", "changes", "task_labels", "idempotency_keys", "account_removals"} <= left.keys()
    return {table: count for table, count in left.items() if count}


async def test_rows_that_the_sweep_removes_at_the_same_moment_hide_no_others(
    removal: Removal, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleted_accounts, "ROWS_AT_ONCE", 2)
    ada = await removal.user(5)
    await removal.rows.close_account(ada.user_id)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("DELETE FROM task.changes WHERE user_id = $1", ada.user_id)
    oldest = "SELECT id FROM task.tasks WHERE user_id = $1 ORDER BY id LIMIT 4"
    await connection.execute(f"DELETE FROM task.tasks WHERE user_id = $1 AND id IN ({oldest})", ada.user_id)
    working = asyncio.create_task(removal.work.round())
    await asyncio.sleep(0.2)
    await transaction.commit()
    await working
    assert await _left(removal.database, [ada]) == {}


async def test_what_another_replica_removes_when_it_dies_is_removed_later(removal: Removal, connection: asyncpg.Connection) -> None:
    ada = await removal.user(5)
    await removal.rows.close_account(ada.user_id)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT task.remove_account($1, 2)", ada.user_id)
    assert await removal.rows.remove_account(ada.user_id, 2) == Removed(0, Left.ELSEWHERE)
    with capture_logs() as logs:
        await removal.work.round()
    assert logs == []
    await transaction.rollback()
    await removal.work.round()
    assert await _left(removal.database, [ada]) == {}


async def test_labels_without_a_task_go_too(removal: Removal) -> None:
    ada = await removal.user(1)
    stray = "INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id) VALUES ($1, 'stray', false, now(), $1)"
    await removal.database.fetchrow(stray, ada.user_id)
    await removal.delete(ada)
    await removal.work.round()
    assert await _left(removal.database, [ada]) == {}


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[Database]:
    """A database whose statements time out early."""
    database = Database(databases.options(database_url, seconds=0.5), CollectorRegistry())
    await database.start()
    yield database
    await database.close()


@pytest.mark.parametrize("locked", ["tasks", "counters"], ids=["cannot_be_removed", "cannot_be_closed"])
async def test_an_account_that_fails_delays_no_other(locked: str, removal: Removal, impatient: Database, connection: asyncpg.Connection) -> None:
    ada, bob = await removal.user(), await removal.user()
    work = DeletedAccounts(Events(removal.database), Rows(impatient))
    await removal.delete(ada, bob)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"SELECT FROM task.{locked} WHERE user_id = $1 FOR UPDATE", ada.user_id)
    with capture_logs() as logs:
        with pytest.raises(ServiceError):
            await work.round()
        # PostgreSQL may still execute the statement of the first round, and then the account is left to it.
        with contextlib.suppress(ServiceError):
            await work.round()
    assert await _left(removal.database, [bob]) == {}
    failed = [line["user_id"] for line in logs if line["event"] == "account_removal_failed"]
    assert failed == [str(ada.user_id)], "the failure is logged once"
    await transaction.rollback()
    await removal.work.round()
    assert await _left(removal.database, [ada]) == {}


async def test_what_is_queued_needs_no_events(removal: Removal) -> None:
    ada = await removal.user()
    await removal.delete(ada)
    removal.rows.fail_at = 0
    with pytest.raises(DependencyUnavailable):
        await removal.work.round()
    removal.rows.fail_at = None
    removal.events.fail = True
    with pytest.raises(DependencyUnavailable):
        await removal.work.round()
    assert await _left(removal.database, [ada]) == {}
    removal.events.fail = False


async def _race(removal: Removal, stores: Sequence[PostgresTasks], choose: random.Random) -> None:
    """Deletes AT_ONCE accounts while two replicas write for them, two remove them, of which one dies, and the sweep empties their bins."""
    users = [await removal.user(0) for _ in range(AT_ONCE)]
    for user in users:
        made = [Creation(new_id(), replace(FIELDS, labels=(f"{n}",))) for n in range(3)]
        await stores[0].write(user, made)
        await stores[0].write(user, [Deletion(made[0].id)])

    async def write(store: PostgresTasks, user: Actor) -> None:
        with contextlib.suppress(TokenInvalid):
            while True:
                await insert(store, user, FIELDS)
                await asyncio.sleep(0.03)

    writing = [asyncio.create_task(write(store, user)) for store in stores for user in users]
    await asyncio.sleep(choose.random() * 0.02)
    await removal.delete(*users)
    dying = asyncio.create_task(DeletedAccounts(Events(removal.database), Rows(removal.database)).round())
    other = asyncio.create_task(removal.work.round())
    sweeping = asyncio.create_task(removal.database.fetchrow(SWEEP, timedelta(0), timedelta(0), 7))
    await asyncio.sleep(choose.random() * 0.05)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await asyncio.gather(other, sweeping, *writing)
    # Another replica's next round, for what the replica that died had begun.
    await DeletedAccounts(Events(removal.database), Rows(removal.database)).round()
    assert await _left(removal.database, users) == {}


@pytest.mark.parametrize("accounts", [100, pytest.param(1000, marks=pytest.mark.slow("the same a thousand times"))])
async def test_a_race_leaves_no_row(accounts: int, removal: Removal, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleted_accounts, "ROWS_AT_ONCE", 2)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failed run
    choose = random.Random(seed)
    stores = [PostgresTasks(database), PostgresTasks(database)]
    for _ in range(accounts // AT_ONCE):
        await _race(removal, stores, choose)
