"""Etags, batches, the bin and idempotency keys of a TaskRepository, tested with the repository in PostgreSQL and with the cache over it."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from servicekit.errors import TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.query.domain import Status
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import MAX_ANSWER_BYTES, Actor, Task, TaskFields
from task_service.tasks.errors import AnswerTooLarge, EtagMismatch, IdempotencyKeyReused, OperationRefused, TaskNotDeleted, TaskNotFound
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.service import TaskRepository
from task_service.tasks.writes import Creation, Deletion, Operations, Undeletion, Update
from tests.task_service.conftest import FIELDS, delete, find, insert, new_id, update

NEW = TaskFields(title="New")


@pytest.fixture(params=["postgres", "cache"])
def repository(request: pytest.FixtureRequest, tasks: PostgresTasks, cached: CachedTasks) -> TaskRepository:
    return cached if request.param == "cache" else tasks


def idempotency(key: str, request: str = "a request") -> Idempotency:
    return Idempotency(key, hashlib.sha256(request.encode()).digest())


async def log_of(database: Database, actor: Actor) -> list[tuple[int, int, int]]:
    """Returns the number, kind and version of each change. Fails if the numbers have a gap."""
    rows = await database.fetch("SELECT seq, kind, version FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    counter = await database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", actor.user_id)
    assert [row["seq"] for row in rows] == list(range(1, (counter["last_seq"] if counter else 0) + 1))
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("make", [lambda task, etags: Update(task, NEW, ["title"], etags), Deletion], ids=["update", "delete"])
async def test_a_write_with_another_etag_changes_nothing_and_tells_the_current_one(
    repository: TaskRepository, database: Database, actor: Actor, make: type[Deletion]
) -> None:
    made = await insert(repository, actor, FIELDS)
    await update(repository, actor, made.id, replace(FIELDS, title="Between"), ["title"])
    before = await log_of(database, actor)
    for etags in [('"1"',), (), ('W/"2"',), ('"02"',), ("2",), ('"3"', '"99999999999999999999"')]:
        with pytest.raises(EtagMismatch) as refused:
            await repository.write(actor, [make(made.id, etags)])
        assert refused.value.metadata == {"etag": '"2"'}
    assert await log_of(database, actor) == before
    assert (await repository.write(actor, [make(made.id, ('"1"', '"2"'))])).replayed is False


async def test_a_write_that_changes_nothing_asks_for_the_etag_all_the_same(repository: TaskRepository, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    with pytest.raises(EtagMismatch):
        await repository.write(actor, [Update(made.id, FIELDS, ["title"], ('"2"',))])


async def test_the_bin_keeps_a_task_until_it_is_brought_back(repository: TaskRepository, database: Database, actor: Actor) -> None:
    made = await insert(repository, actor, FIELDS)
    await delete(repository, actor, made.id)
    with pytest.raises(EtagMismatch) as refused:
        await repository.write(actor, [Undeletion(made.id, ('"1"',))])
    assert refused.value.metadata == {"etag": '"2"'}
    (back,) = (await repository.write(actor, [Undeletion(made.id, ('"2"',))])).tasks
    assert back == made._replace(version=3, updated_at=back.updated_at)
    assert await find(repository, actor.user_id, made.id) == back
    with pytest.raises(TaskNotDeleted):
        await repository.write(actor, [Undeletion(made.id)])
    with pytest.raises(TaskNotFound):
        await repository.write(Actor(uuid4(), uuid4(), ""), [Undeletion(made.id)])
    assert await log_of(database, actor) == [(1, 1, 1), (2, 3, 2), (3, 4, 3)]


async def test_a_batch_makes_its_tasks_in_its_order(repository: TaskRepository, database: Database, actor: Actor) -> None:
    fields = [replace(FIELDS, title=f"{n}", labels=(f"{n}",) * (n % 2), due_date=None if n % 3 else FIELDS.due_date) for n in range(1000)]
    fields[7] = replace(fields[7], status=Status.COMPLETED)
    written = await repository.write(actor, [Creation(new_id(), each) for each in fields])
    assert [_fields(task) for task in written.tasks] == fields
    assert {task.created_at for task in written.tasks} == {written.tasks[0].updated_at}
    assert [task.completed_at is not None for task in written.tasks] == [n == 7 for n in range(1000)]
    assert await repository.find_all(actor.user_id, [task.id for task in written.tasks]) == {task.id: task for task in written.tasks}
    assert await log_of(database, actor) == [(n, 1, 1) for n in range(1, 1001)]
    logged = await database.fetch("SELECT task_id FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id)
    assert [row["task_id"] for row in logged] == [task.id for task in written.tasks]


async def test_a_batch_changes_one_after_the_other_and_what_changes_nothing_takes_no_number(
    repository: TaskRepository, database: Database, actor: Actor
) -> None:
    first, second = [await insert(repository, actor, FIELDS) for _ in range(2)]
    await find(repository, actor.user_id, first.id)
    operations = [
        Update(first.id, replace(FIELDS, title="Once"), ["title"]),
        Update(second.id, FIELDS, ["title"]),
        Update(first.id, replace(FIELDS, title="Twice"), ["title"], ('"2"',)),
    ]
    written = await repository.write(actor, operations)
    assert [(task.id, task.title, task.version) for task in written.tasks] == [
        (first.id, "Once", 2),
        (second.id, FIELDS.title, 1),
        (first.id, "Twice", 3),
    ]
    assert await find(repository, actor.user_id, first.id) == written.tasks[2]
    assert await log_of(database, actor) == [(1, 1, 1), (2, 1, 1), (3, 2, 2), (4, 2, 3)]


async def test_a_batch_deletes_all(repository: TaskRepository, actor: Actor) -> None:
    made = [await insert(repository, actor, FIELDS) for _ in range(3)]
    for task in made:
        await find(repository, actor.user_id, task.id)
    assert (await repository.write(actor, [Deletion(task.id) for task in made])).tasks == []
    assert [await find(repository, actor.user_id, task.id) for task in made] == [None] * 3


@pytest.mark.parametrize("bad", [0, 2, 4])
async def test_one_refusal_refuses_the_batch_and_tells_its_index(repository: TaskRepository, database: Database, actor: Actor, bad: int) -> None:
    made = [await insert(repository, actor, FIELDS) for _ in range(5)]
    before = await log_of(database, actor)
    ids: list[UUID] = [task.id for task in made]
    missing = [*ids[:bad], uuid4(), *ids[bad + 1 :]]
    changed = [('"2"',) if n == bad else ('"1"',) for n in range(5)]
    batches: list[tuple[Operations, type[OperationRefused]]] = [
        ([Update(each, NEW, ["title"]) for each in missing], TaskNotFound),
        ([Deletion(each) for each in missing], TaskNotFound),
        ([Update(each, NEW, ["title"], etags) for each, etags in zip(ids, changed, strict=True)], EtagMismatch),
        ([Deletion(each, etags) for each, etags in zip(ids, changed, strict=True)], EtagMismatch),
    ]
    for operations, error in batches:
        with pytest.raises(error) as refused:
            await repository.write(actor, operations)
        assert refused.value.index == bad
    assert await log_of(database, actor) == before
    assert [await find(repository, actor.user_id, each) for each in ids] == made


async def test_an_answer_that_no_message_holds_is_refused_before_anything_is_done(
    repository: TaskRepository, database: Database, actor: Actor
) -> None:
    long = replace(FIELDS, description="\N{GRINNING FACE}" * 10_000)
    made = await repository.write(actor, [Creation(new_id(), long) for _ in range(70)])
    fits = MAX_ANSWER_BYTES // 40_100
    assert fits > 70
    more = await repository.write(actor, [Creation(new_id(), long) for _ in range(70)])
    every = [*made.tasks, *more.tasks]
    assert len((await repository.write(actor, [Update(task.id, NEW, ["title"]) for task in every[:fits]])).tasks) == fits
    before = await log_of(database, actor)
    with pytest.raises(AnswerTooLarge) as refused:
        await repository.write(actor, [Update(task.id, replace(NEW, title="Newer"), ["title"]) for task in every])
    assert refused.value.index == MAX_ANSWER_BYTES // (40_000 + len("Newer") + len("{a,b}"))
    assert await log_of(database, actor) == before


def _operations(task: Task) -> dict[str, Operations]:
    return {
        "create": [Creation(new_id(), FIELDS)],
        "update": [Update(task.id, replace(NEW, title=str(new_id())), ["title"])],
        "delete": [Deletion(task.id)],
        "undelete": [Undeletion(task.id)],
        "batch": [Creation(new_id(), FIELDS), Creation(new_id(), FIELDS)],
    }


@pytest.mark.parametrize("kind", ["create", "update", "delete", "undelete", "batch"])
async def test_the_same_request_under_its_key_is_answered_once_more_and_done_once(
    repository: TaskRepository, database: Database, actor: Actor, kind: str
) -> None:
    task = await insert(repository, actor, FIELDS)
    if kind == "undelete":
        await delete(repository, actor, task.id)
    first = await repository.write(actor, _operations(task)[kind], idempotency("key"))
    assert first.replayed is False
    before = await log_of(database, actor)
    # The second answer does not include what happens meanwhile. The second request has another id, as if the handler ran again.
    await insert(repository, actor, FIELDS)
    again = await repository.write(actor, _operations(task)[kind], idempotency("key"))
    assert again.replayed is True
    assert again.tasks == first.tasks
    assert len(await log_of(database, actor)) == len(before) + 1
    assert await find(repository, actor.user_id, task.id) == (
        None if kind == "delete" else first.tasks[0] if kind in {"update", "undelete"} else task
    )


async def test_a_replay_leaves_no_value_of_its_time_behind(repository: TaskRepository, actor: Actor) -> None:
    task = await insert(repository, actor, FIELDS)
    operations = [Update(task.id, NEW, ["title"])]
    await repository.write(actor, operations, idempotency("key"))
    newest = await update(repository, actor, task.id, replace(NEW, title="Newest"), ["title"])
    assert (await repository.write(actor, operations, idempotency("key"))).replayed
    assert await find(repository, actor.user_id, task.id) == newest
    assert await find(repository, actor.user_id, task.id) == newest


async def test_a_key_is_good_for_one_request_of_one_user(repository: TaskRepository, database: Database, actor: Actor) -> None:
    await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key", "one"))
    before = await log_of(database, actor)
    with pytest.raises(IdempotencyKeyReused):
        await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key", "another"))
    assert await log_of(database, actor) == before
    stranger = Actor(uuid4(), uuid4(), "")
    assert (await repository.write(stranger, [Creation(new_id(), FIELDS)], idempotency("key", "another"))).replayed is False


async def test_a_refusal_is_not_remembered(repository: TaskRepository, actor: Actor) -> None:
    task = await insert(repository, actor, FIELDS)
    with pytest.raises(TaskNotDeleted):
        await repository.write(actor, [Undeletion(task.id)], idempotency("key"))
    await delete(repository, actor, task.id)
    assert (await repository.write(actor, [Undeletion(task.id)], idempotency("key"))).replayed is False


async def test_two_at_once_under_one_key_are_one_write(repository: TaskRepository, database: Database, actor: Actor) -> None:
    """By several replicas, because one would send them together. The user is new, so that the writes also race to create the counter's row."""
    replicas = [repository, *(PostgresTasks(database) for _ in range(7))]
    answers = await asyncio.gather(*(replica.write(actor, [Creation(new_id(), FIELDS)], idempotency("key")) for replica in replicas))
    assert len({answer.tasks[0].id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
    assert await log_of(database, actor) == [(1, 1, 1)]


async def test_a_key_is_forgotten_after_a_day_swept_or_not(repository: TaskRepository, database: Database, actor: Actor) -> None:
    first = await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key", "one"))
    aged = "UPDATE task.idempotency_keys SET created_at = created_at - $2::interval WHERE user_id = $1"
    await database.fetchrow(aged, actor.user_id, timedelta(hours=23, minutes=59))
    assert (await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key", "one"))).tasks == first.tasks
    await database.fetchrow(aged, actor.user_id, timedelta(minutes=2))
    other = await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key", "two"))
    assert other.replayed is False
    assert (await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key", "two"))).tasks == other.tasks


async def test_a_closed_account_is_answered_nothing_not_even_once_more(repository: TaskRepository, database: Database, actor: Actor) -> None:
    await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key"))
    await database.fetchrow("SELECT task.close_account($1)", actor.user_id)
    with pytest.raises(TokenInvalid):
        await repository.write(actor, [Creation(new_id(), FIELDS)], idempotency("key"))
    removed = await database.fetchrow("SELECT task.remove_rows($1, 100)", actor.user_id)
    assert removed is not None
    assert removed[0] == 3
    assert await database.fetch("SELECT FROM task.idempotency_keys WHERE user_id = $1", actor.user_id) == []


def _fields(task: Task) -> TaskFields:
    return TaskFields(task.title, task.description, task.status, task.priority, task.due_date, task.labels)
