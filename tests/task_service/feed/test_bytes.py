"""A read of the change log is limited by its size, so that a stream whose client does not read holds little memory."""

from dataclasses import replace

from servicekit.stores.postgres import Database
from task_service.feed.repository import MAX_CHANGES_BYTES, PostgresChanges
from task_service.tasks.domain import Actor
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation
from tests.task_service.conftest import FIELDS, insert, new_id

LONGEST = replace(FIELDS, description="ж" * 10_000)


async def test_a_read_returns_as_many_changes_as_fit_and_the_next_goes_on(database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    await tasks.write(actor, [Creation(new_id(), LONGEST) for _ in range(20)])
    await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(20)])
    log, after, reads = PostgresChanges(database), 0, []
    while found := (await log.list(actor.user_id, after, 100)).changes:
        assert sum(change.subject.text_bytes for change in found) <= MAX_CHANGES_BYTES
        assert [change.seq for change in found] == list(range(after + 1, after + 1 + len(found)))
        after = found[-1].seq
        reads.append(len(found))
    assert after == 40
    assert reads[0] == 6
    assert len(reads) <= 5


async def test_a_change_that_is_larger_than_the_limit_comes_alone(database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    for _ in range(2):
        await insert(tasks, actor, FIELDS)
    large = "UPDATE task.changes SET snapshot = snapshot || jsonb_build_object('description', repeat('x', 200000)) WHERE user_id = $1 AND seq = 1"
    await database.fetchrow(large, actor.user_id)
    assert [change.seq for change in (await PostgresChanges(database).list(actor.user_id, 0, 100)).changes] == [1]
