"""Writes of one user that are sent together: each has its own answer, error and deadline, as if it were sent alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import asyncpg
import pytest

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, DependencyUnavailable, TimeLimitExceeded, TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.query.domain import Status
from task_service.tasks.domain import Actor
from task_service.tasks.errors import EtagMismatch, IdempotencyKeyReused, TaskNotDeleted, TaskNotFound
from task_service.tasks.joined import MAX_OPERATIONS, MAX_WRITES, JoinedWrites
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation, Deletion, Operation, Operations, Undeletion, Update, Written
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, find, insert, new_id

Hold = Callable[[UUID], contextlib.AbstractAsyncContextManager["asyncpg.Connection[asyncpg.Record]"]]


@pytest.fixture
def hold(database_url: str) -> Hold:
    """Locks the counter of a user, so that the user's first write waits for it, and further writes for the first one. Yields the connection."""

    @contextlib.asynccontextmanager
    async def hold(user_id: UUID) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        connection = await asyncpg.connect(database_url)
        try:
            async with connection.transaction():
                await connection.fetchval("SELECT task.take_seqs($1, 0)", user_id)
                yield connection
        finally:
            await connection.close()

    return hold


@pytest.fixture
def statements(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements with several rows that were sent, as they are sent."""
    sent: list[str] = []
    fetch = database.fetch

    async def overheard(sql: str, *args: object, on_failed: Callable[[], None] | None = None) -> Sequence[asyncpg.Record]:
        sent.append(sql)
        return await fetch(sql, *args, on_failed=on_failed)

    monkeypatch.setattr(database, "fetch", overheard)
    return sent


async def begun(*writes: Awaitable[Written]) -> list[asyncio.Future[Written]]:
    """Starts the writes, in this order. The first is sent, the others wait for it."""
    started = [asyncio.ensure_future(write) for write in writes]
    for _ in range(3):
        await asyncio.sleep(0)
    return started


def renamed(task_id: UUID, title: str, *etags: str) -> Update:
    return Update(task_id, replace(FIELDS, title=title), ["title"], etags or None)


@dataclass(frozen=True, slots=True)
class Together:
    """Thirteen writes that were sent in two statements: the first alone, then all others together."""

    kept: UUID
    created: Sequence[UUID]
    answers: Sequence[Written | BaseException]


@pytest.fixture
async def together(tasks: PostgresTasks, actor: Actor, hold: Hold, statements: list[str]) -> Together:
    """Executes the writes of a session and of an API token of one user, who has two tasks."""
    kept, gone = [await insert(tasks, actor, FIELDS) for _ in range(2)]
    other = Actor(actor.user_id, new_id(), "request-2", by_api_token=True, name="script")
    ids = [new_id() for _ in range(4)]
    key, same_key = Idempotency("key", b"hash"), Idempotency("key", b"another")
    statements.clear()
    async with hold(actor.user_id):
        writing = await begun(
            tasks.write(actor, [renamed(kept.id, "First")]),
            tasks.write(other, [renamed(kept.id, "Second", '"2"')]),
            tasks.write(actor, [renamed(kept.id, "Late", '"2"')]),
            tasks.write(actor, [Creation(ids[0], FIELDS)], key),
            tasks.write(actor, [Creation(ids[1], FIELDS)], key),
            tasks.write(actor, [Creation(ids[1], FIELDS)], same_key),
            tasks.write(actor, [Creation(task_id, replace(FIELDS, status=Status.COMPLETED)) for task_id in ids[2:]]),
            tasks.write(actor, [Deletion(gone.id)]),
            tasks.write(actor, [renamed(kept.id, "Not", '"3"'), renamed(gone.id, "Not")]),
            tasks.write(actor, [Undeletion(kept.id)]),
            # An id that is taken, which no client can cause.
            tasks.write(actor, [Creation(kept.id, FIELDS)]),
            tasks.write(actor, [renamed(kept.id, "Second")]),
            tasks.write(other, [renamed(kept.id, "Last", '"3"')]),
        )
    answers = await asyncio.gather(*writing, return_exceptions=True)
    assert len(statements) == 2
    return Together(kept.id, ids, answers)


async def test_each_write_has_its_own_answer_or_error(together: Together, tasks: PostgresTasks, actor: Actor) -> None:
    first, second, late, created, again, reused, batch, deleted, refused, undeleted, taken, unchanged, last = together.answers
    assert isinstance(first, Written)
    assert isinstance(second, Written)
    assert isinstance(unchanged, Written)
    assert isinstance(last, Written)
    assert [(written.tasks[0].title, written.tasks[0].version) for written in (first, second, unchanged, last)] == [
        ("First", 2),
        ("Second", 3),
        ("Second", 3),
        ("Last", 4),
    ]
    assert isinstance(late, EtagMismatch)
    assert late.metadata == {"etag": '"3"'}
    assert isinstance(created, Written)
    assert again == replace(created, replayed=True)
    assert created.tasks[0].id == together.created[0]
    assert isinstance(reused, IdempotencyKeyReused)
    assert isinstance(batch, Written)
    assert [task.id for task in batch.tasks] == together.created[2:]
    assert deleted == Written([])
    assert isinstance(refused, TaskNotFound)
    assert refused.index == 1
    assert isinstance(undeleted, TaskNotDeleted)
    assert isinstance(taken, asyncpg.PostgresError)
    assert await find(tasks, actor.user_id, together.kept) == last.tasks[0]


@pytest.mark.usefixtures("together")
async def test_the_log_has_no_gap_after_writes_that_were_refused_and_the_counts_are_exact(database: Database, actor: Actor) -> None:
    logged = await database.fetch(
        "SELECT seq, kind, version, request_id, actor_name FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id
    )
    counter = await database.fetchrow("SELECT last_seq, pending + in_progress, completed FROM task.counters WHERE user_id = $1", actor.user_id)
    assert [tuple(row) for row in logged[2:]] == [
        (3, 2, 2, "request-1", None),
        (4, 2, 3, "request-2", "script"),
        (5, 1, 1, "request-1", None),
        (6, 1, 1, "request-1", None),
        (7, 1, 1, "request-1", None),
        (8, 3, 2, "request-1", None),
        (9, 2, 4, "request-2", "script"),
    ]
    assert counter is not None
    assert tuple(counter) == (9, 2, 2)


async def test_writes_of_other_users_do_not_wait(tasks: PostgresTasks, actor: Actor, hold: Hold) -> None:
    stranger = Actor(new_id(), new_id(), "")
    async with hold(actor.user_id):
        writing = await begun(*(tasks.write(actor, [Creation(new_id(), FIELDS)]) for _ in range(30)))
        assert (await tasks.write(stranger, [Creation(new_id(), FIELDS)])).tasks
        assert not any(write.done() for write in writing)
    assert len({written.tasks[0].id for written in await asyncio.gather(*writing)}) == 30


async def test_a_caller_that_leaves_before_its_write_is_sent_has_written_nothing(
    tasks: PostgresTasks, database: Database, actor: Actor, hold: Hold
) -> None:
    failed: list[str] = []
    async with hold(actor.user_id):
        writing = await begun(
            tasks.write(actor, [Creation(new_id(), FIELDS)]),
            tasks.write(actor, [Creation(new_id(), FIELDS)], on_failed=lambda: failed.append("left")),
            _within(0.05, tasks.write(actor, [Creation(new_id(), FIELDS)], on_failed=lambda: failed.append("late"))),
            tasks.write(actor, [Creation(new_id(), FIELDS)], on_failed=lambda: failed.append("stayed")),
        )
        writing[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing[1]
        with pytest.raises(DeadlineExceeded):
            await writing[2]
        assert failed == ["left", "late"]
    await asyncio.gather(writing[0], writing[3])
    assert failed == ["left", "late"]
    assert len(await database.fetch("SELECT FROM task.tasks WHERE user_id = $1", actor.user_id)) == 2


async def _within(seconds: float, write: Awaitable[Written]) -> Written:
    deadline.begin(seconds)
    return await write


async def test_a_call_whose_deadline_has_passed_does_not_wait(tasks: PostgresTasks, actor: Actor, hold: Hold) -> None:
    failed: list[str] = []
    async with hold(actor.user_id):
        first, late = await begun(
            tasks.write(actor, [Creation(new_id(), FIELDS)]),
            _within(-1, tasks.write(actor, [Creation(new_id(), FIELDS)], on_failed=lambda: failed.append("late"))),
        )
        with pytest.raises(DeadlineExceeded):
            await late
        assert failed == ["late"]
    await first


async def test_a_caller_that_leaves_while_its_write_runs_does_not_end_the_writes_of_others(
    tasks: PostgresTasks, database: Database, actor: Actor, hold: Hold
) -> None:
    """Its write is done, and that nothing is running any more is reported when all are done."""
    failed: list[str] = []
    async with hold(actor.user_id):
        first, left, stayed, refused = await begun(
            tasks.write(actor, [Creation(new_id(), FIELDS)]),
            tasks.write(actor, [Creation(new_id(), FIELDS)], on_failed=lambda: failed.append("left")),
            tasks.write(actor, [Creation(new_id(), FIELDS)], on_failed=lambda: failed.append("stayed")),
            tasks.write(actor, [Deletion(new_id())], on_failed=lambda: failed.append("refused")),
        )
        # The others are sent, and wait for the lock.
        first.cancel()
        await eventually(lambda: _require_waiting(database, "task.write_all"), within=5)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert failed == []
    assert (await stayed).tasks
    with pytest.raises(TaskNotFound):
        await refused
    assert failed == ["left", "refused"]
    assert len(await database.fetch("SELECT FROM task.tasks WHERE user_id = $1", actor.user_id)) >= 2


async def _require_waiting(database: Database, words: str) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1 AND datname = current_database()"
    assert await database.fetch(waiting, f"%{words}%")


async def test_of_a_deleted_account_none_is_done(tasks: PostgresTasks, actor: Actor, hold: Hold) -> None:
    await insert(tasks, actor, FIELDS)
    async with hold(actor.user_id) as connection:
        writing = await begun(*(tasks.write(actor, [Creation(new_id(), FIELDS)]) for _ in range(4)))
        await connection.fetchval("SELECT task.close_account($1)", actor.user_id)
    answers = await asyncio.gather(*writing, return_exceptions=True)
    assert {type(answer) for answer in answers} == {TokenInvalid}


# The limits, without PostgreSQL:


@dataclass(frozen=True)
class Request:
    """A write of some operations."""

    operations: Operations


class Store:
    """Executes nothing, and notes what is sent together. The statements wait for `go`, and raise `error` if there is one."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def write_one(self, user_id: UUID, write: Request, on_failed: Callable[[], None]) -> Written:
        return (await self.write_all(user_id, [write], on_failed))[0]

    async def write_all(self, _: UUID, writes: Sequence[Request], on_failed: Callable[[], None]) -> list[Written]:
        self.sent.append(len(writes))
        await self.go.wait()
        if self.error is not None:
            on_failed()
            raise self.error
        return [Written([])] * len(writes)


def _request(operations: int = 1) -> Request:
    each: Sequence[Operation] = [Deletion(new_id())] * operations
    return Request(each)


@pytest.mark.parametrize(
    ("sizes", "sent"),
    [([1] * (2 * MAX_WRITES + 2), [1, MAX_WRITES, MAX_WRITES, 1]), ([1, 1, MAX_OPERATIONS - 1, 1], [1, 2, 1]), ([1, 1, 1000, 1, 1], [1, 1, 1, 2])],
)
async def test_a_statement_has_a_limit(sizes: Sequence[int], sent: Sequence[int]) -> None:
    store = Store()
    joined: JoinedWrites[Request] = JoinedWrites(store.write_one, store.write_all, 5)
    user_id = new_id()
    writing = await begun(*(joined.execute(user_id, _request(size), lambda: None) for size in sizes))
    store.go.set()
    await asyncio.gather(*writing)
    assert store.sent == sent


async def test_an_outage_is_told_to_every_caller_and_forgotten() -> None:
    store, failed = Store(), list[int]()
    store.error = DependencyUnavailable("PostgreSQL")
    joined: JoinedWrites[Request] = JoinedWrites(store.write_one, store.write_all, 5)
    user_id = new_id()
    writing = await begun(*(joined.execute(user_id, _request(), lambda n=n: failed.append(n)) for n in range(4)))  # type: ignore[misc]  # a default
    store.go.set()
    answers = await asyncio.gather(*writing, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DependencyUnavailable}
    assert failed == [0, 1, 2, 3]
    store.error = None
    assert await joined.execute(user_id, _request(), lambda: None) == Written([])


async def test_a_caller_without_a_deadline_waits_only_as_long_as_a_statement_may_take() -> None:
    store, failed = Store(), list[int]()
    joined: JoinedWrites[Request] = JoinedWrites(store.write_one, store.write_all, 0.05)
    user_id = new_id()
    first, waiting = await begun(*(joined.execute(user_id, _request(), lambda: failed.append(1)) for _ in range(2)))
    with pytest.raises(TimeLimitExceeded):
        await waiting
    assert failed == [1]
    store.go.set()
    await first


async def test_writes_whose_callers_leave_in_the_same_turn_are_not_sent() -> None:
    """A client that disconnects, or a deadline that several calls share, cancels the running write and the waiting ones together."""
    sent: list[Operations] = []
    failed: list[int] = []

    async def write_one(_: UUID, write: Request, __: Callable[[], None]) -> Written:
        sent.append(write.operations)
        await asyncio.Event().wait()
        raise AssertionError("nobody ended it")

    async def write_all(_: UUID, writes: Sequence[Request], __: Callable[[], None]) -> Sequence[Written | Exception]:
        sent.extend(write.operations for write in writes)
        return [Written([]) for _ in writes]

    joined: JoinedWrites[Request] = JoinedWrites(write_one, write_all, 10.0)
    user_id = new_id()
    writes = [Request([Deletion(new_id())]) for _ in range(5)]
    writing = await begun(*(joined.execute(user_id, write, partial(failed.append, n)) for n, write in enumerate(writes)))
    for call in writing:
        call.cancel()
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in await asyncio.gather(*writing, return_exceptions=True))
    await asyncio.sleep(0.01)
    assert sent == [writes[0].operations]
    # The first one is `write_one`'s to report.
    assert failed == [1, 2, 3, 4]
    assert not joined._lines
