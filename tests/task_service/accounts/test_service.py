"""Deleted accounts: every write for them is rejected, and all their rows are deleted, whatever fails meanwhile."""

import asyncio
from collections.abc import Iterable
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from servicekit.errors import DependencyUnavailable, TokenInvalid
from servicekit.stores.postgres import Database
from task_service.accounts import service as deleted_accounts
from task_service.accounts.domain import Left, Removed
from task_service.accounts.service import DeletedAccounts
from task_service.tasks.domain import Actor, TaskFields
from tests.task_service.accounts.conftest import Events, Removal, Rows
from tests.task_service.conftest import FIELDS, delete, insert, new_id, update


async def refused(removal: Removal, actor: Actor, tasks: Iterable[UUID] = ()) -> None:
    """Fails unless every kind of write is rejected."""
    with pytest.raises(TokenInvalid):
        await insert(removal.tasks, actor, FIELDS)
    for task_id in (new_id(), *tasks):
        with pytest.raises(TokenInvalid):
            await update(removal.tasks, actor, task_id, TaskFields(title="Mine still"), ["title"])
        with pytest.raises(TokenInvalid):
            await delete(removal.tasks, actor, task_id)


async def test_everything_of_a_deleted_account_goes_and_nothing_of_another(removal: Removal) -> None:
    ada, bob = await removal.user(), await removal.user()
    await removal.delete(ada)
    with capture_logs() as logs:
        await removal.work.round()
    assert await removal.left(ada) == (0, 0)
    assert await removal.left(bob) == (3, 3)
    await refused(removal, ada)
    await insert(removal.tasks, bob, FIELDS)
    assert [(line["event"], line["user_id"], line["rows"]) for line in logs] == [("account_removed", str(ada.user_id), 6)]


async def test_a_closed_account_is_not_written_to_before_its_rows_are_gone_either(removal: Removal) -> None:
    ada = await removal.user(0)
    task = await insert(removal.tasks, ada, FIELDS)
    for _ in range(2):
        await removal.rows.close_account(ada.user_id)
        await refused(removal, ada, [task.id])
    assert await removal.left(ada) == (1, 1)
    assert await removal.tasks.find(ada.user_id, task.id) == task


async def test_an_account_that_never_wrote_is_closed_as_well(removal: Removal) -> None:
    ada = await removal.user(0)
    await removal.delete(ada)
    await removal.work.round()
    await refused(removal, ada)


async def test_rows_of_an_account_that_was_not_deleted_are_never_removed(removal: Removal) -> None:
    ada = await removal.user()
    assert await removal.rows.remove_account(ada.user_id, 100) == Removed(0, Left.ELSEWHERE)
    assert await removal.left(ada) == (3, 3)


async def test_closing_waits_for_writes_under_way_and_their_rows_go_too(removal: Removal, connection: asyncpg.Connection) -> None:
    ada = await removal.user(1)
    transaction = connection.transaction()
    await transaction.start()
    insert = """
SELECT o_replayed FROM task.write($1, 1::smallint, jsonb_build_array(jsonb_build_object(
           'n', 0, 'id', $2::uuid, 'title', 'Late', 'description', '', 'status', 1, 'priority', 3, 'labels', '[]'::jsonb)),
       ROW($1::uuid, $1::uuid, '')::task.actor, NULL, NULL, 0, NULL, NULL)
"""
    await connection.execute(insert, ada.user_id, new_id())
    await removal.delete(ada)
    working = asyncio.create_task(removal.work.round())
    await asyncio.sleep(0.2)
    assert not working.done()
    assert await removal.left(ada) == (1, 1)
    await transaction.commit()
    await working
    assert await removal.left(ada) == (0, 0)


async def test_a_write_that_comes_while_the_account_is_closed_is_refused(removal: Removal, connection: asyncpg.Connection) -> None:
    ada = await removal.user(1)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT task.close_account($1)", ada.user_id)
    writing = asyncio.create_task(insert(removal.tasks, ada, FIELDS))
    await asyncio.sleep(0.2)
    assert not writing.done()
    await transaction.commit()
    with pytest.raises(TokenInvalid):
        await writing
    assert await removal.left(ada) == (1, 1)


async def test_writes_at_once_leave_nothing_behind(removal: Removal) -> None:
    ada = await removal.user(5)

    async def write() -> None:
        for _ in range(20):
            await insert(removal.tasks, ada, FIELDS)

    writing = [asyncio.create_task(write()) for _ in range(4)]
    await removal.delete(ada)
    await removal.work.round()
    assert await removal.left(ada) == (0, 0)
    done = await asyncio.gather(*writing, return_exceptions=True)
    assert {type(result) for result in done} <= {TokenInvalid, type(None)}
    await removal.delete(ada)
    await removal.work.round()
    assert await removal.left(ada) == (0, 0)


async def test_rows_go_some_at_a_time(removal: Removal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleted_accounts, "ROWS_AT_ONCE", 3)
    ada = await removal.user(8)
    task = await insert(removal.tasks, ada, FIELDS)
    await delete(removal.tasks, ada, task.id)
    assert await removal.left(ada) == (9, 10)
    await removal.delete(ada)
    await removal.work.round()
    # Nine tasks and ten changes, three of each at a time.
    assert removal.rows.removed == [6, 6, 6, 1, 0]
    assert await removal.left(ada) == (0, 0)


async def test_the_position_is_kept_and_another_replica_goes_on_from_there(removal: Removal, database: Database) -> None:
    await removal.delete(await removal.user())
    await removal.work.round()
    assert await removal.position() == await removal.last_number()
    ada = await removal.user()
    await removal.delete(ada)
    before = await removal.position()
    events, rows = Events(database), Rows(database)
    await DeletedAccounts(events, rows).round()
    assert events.asked == [before]
    assert await removal.left(ada) == (0, 0)
    assert rows.removed == [6, 0]
    assert await rows.list_removals(None, 1) == []
    assert (await rows.get_deletions())[0] == await removal.last_number()


async def test_the_position_moves_over_events_of_the_other_kind(removal: Removal) -> None:
    await removal.work.round()
    before = await removal.position()
    await removal.database.fetchrow("SELECT auth.log_event(1::smallint, $1, $1)", uuid4())
    await removal.work.round()
    assert await removal.position() == before + 1


async def test_events_are_carried_out_a_page_at_a_time(removal: Removal) -> None:
    users = [await removal.user(1) for _ in range(5)]
    await removal.delete(*users)
    removal.events.page = 2
    before = await removal.position()
    await removal.work.round()
    assert [await removal.left(user) for user in users] == [(0, 0)] * 5
    assert removal.events.asked == [before, before + 3, before + 7]
    assert await removal.position() == await removal.last_number() == before + 10


@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 5])
async def test_each_account_goes_at_least_once_wherever_a_round_breaks_off(removal: Removal, fail_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleted_accounts, "ROWS_AT_ONCE", 2)
    users = [await removal.user() for _ in range(2)]
    await removal.delete(*users)
    removal.rows.fail_at = fail_at
    with pytest.raises(DependencyUnavailable):
        await removal.work.round()
    waiting = await removal.rows.list_removals(None, 10)
    assert [user.user_id in waiting for user in users].count(True) == len(waiting) >= 1
    # Some rows may be left, but no write can add to them.
    for user in users:
        await refused(removal, user)
    removal.rows.fail_at = None
    await removal.work.round()
    assert [await removal.left(user) for user in users] == [(0, 0)] * 2
    assert await removal.position() == await removal.last_number()


async def test_two_replicas_at_once_do_no_harm(removal: Removal, database: Database) -> None:
    users = [await removal.user() for _ in range(6)]
    await removal.delete(*users)
    other = DeletedAccounts(Events(database, page=2), Rows(database))
    await asyncio.gather(removal.work.round(), other.round())
    assert [await removal.left(user) for user in users] == [(0, 0)] * 6
    await removal.work.round()
    assert await removal.position() == await removal.last_number()


async def test_a_log_that_was_restored_is_carried_out_once_more(removal: Removal) -> None:
    ada = await removal.user()
    await removal.delete(ada)
    await removal.rows.queue_removals([], await removal.last_number() + 100, await removal.epoch())
    await removal.work.round()
    assert removal.events.asked[1] == 0
    assert await removal.left(ada) == (0, 0)
    assert await removal.position() == await removal.last_number()


async def test_a_log_with_another_epoch_is_carried_out_once_more(removal: Removal) -> None:
    """auth_service's database has lost events, and their numbers belong to other events by now."""
    ada = await removal.user()
    await removal.delete(ada)
    await removal.rows.queue_removals([], await removal.last_number(), "of the log from before")
    await removal.work.round()
    assert removal.events.asked[1] == 0
    assert await removal.left(ada) == (0, 0)
    assert await removal.rows.get_deletions() == (await removal.last_number(), await removal.epoch())


async def test_the_first_epoch_that_is_known_is_stored(removal: Removal) -> None:
    await removal.rows.queue_removals([], before := await removal.last_number(), "")
    await removal.work.round()
    assert removal.events.asked == [before]
    assert await removal.rows.get_deletions() == (before, await removal.epoch())
