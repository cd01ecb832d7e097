"""Streams of the change log in PostgreSQL: what a stream sends, when it reads again, and what ends it. The tests call the wake-ups themselves."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from servicekit.errors import ServiceError, TokenInvalid
from servicekit.identity import Identity
from servicekit.rpc.paging import PlaceTokens, page_tokens
from servicekit.stores.postgres import Database
from task_service.feed import watching
from task_service.feed.domain import ChangeKind, WatchEvent
from task_service.feed.errors import InvalidResumeToken, ResumeTokenExpired, ServiceStopping, TooManyWatches
from task_service.feed.repository import PostgresChanges
from task_service.feed.service import CHANGES_AT_ONCE, FeedService
from task_service.feed.watching import MAX_WATCHES_PER_USER, UNKNOWN, Watches, channel_of
from task_service.tasks.domain import Actor, Task
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation, Undeletion
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, delete, insert, new_id, update

SECRET = "a key for the tests of watching, long enough"
# Far longer than any step takes.
WITHIN_SECONDS = 5.0
FAR = 2**31


class Channels:
    """Stands in for Redis's channels, and records who subscribes to which."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callable[[], None]]] = {}

    def subscribe(self, channel: str, callback: Callable[[], None]) -> None:
        self.callbacks.setdefault(channel, []).append(callback)

    def unsubscribe(self, channel: str, callback: Callable[[], None]) -> None:
        self.callbacks[channel].remove(callback)
        if not self.callbacks[channel]:
            del self.callbacks[channel]

    def say(self, user_id: UUID) -> None:
        for callback in self.callbacks[channel_of(user_id)]:
            callback()


class Feed:
    """The feed of one replica."""

    def __init__(self, database: Database) -> None:
        self.ended: set[UUID] = set()
        self.channels = Channels()
        log = PostgresChanges(database)
        self.registry = CollectorRegistry()
        self.watches = Watches(log, self.channels, self._check, self.registry)
        self.service = FeedService(log, self.watches, PlaceTokens(SECRET, "resume token", InvalidResumeToken), page_tokens(SECRET))

    def _check(self, identity: Identity) -> None:
        if identity.session_id in self.ended:
            raise TokenInvalid

    def watch(self, actor: Actor, token: str = "", *, expires_at: float = FAR) -> "contextlib.aclosing[AsyncIterator[WatchEvent]]":
        identity = Identity(actor.user_id, actor.session_id, "t", expires_at)  # type: ignore[arg-type]  # a token has whole seconds
        return contextlib.aclosing(self.service.watch_tasks(identity, token))


class Clock:
    """The clock by which tokens expire. It stands still until a test starts it."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._began: float | None = None

    def __call__(self) -> float:
        return self.ahead + (0.0 if self._began is None else time.monotonic() - self._began)

    def start(self) -> None:
        self._began = time.monotonic()

    def stop(self) -> None:
        self._began = None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watching, "time", SimpleNamespace(time=clock))
    return clock


@pytest.fixture
def feed(database: Database) -> Feed:
    return Feed(database)


async def _next(events: AsyncIterator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(WITHIN_SECONDS):
        return await anext(events)


async def _told(events: AsyncIterator[WatchEvent], count: int) -> list[tuple[ChangeKind, Task]]:
    """Returns the next changes. Fails unless each of them has a resume token of its own."""
    found = [await _next(events) for _ in range(count)]
    assert len({event.resume_token for event in found}) == count
    return [(event.change.kind, event.change.subject) for event in found if event.change is not None]


async def _ended(events: AsyncIterator[WatchEvent], error: type[ServiceError]) -> None:
    with pytest.raises(error):
        await _all(events)


async def _all(events: AsyncIterator[WatchEvent]) -> None:
    async with asyncio.timeout(60):
        while True:
            await _next(events)


async def _all_read(feed: Feed, *actors: Actor) -> None:
    """Waits until each stream of these users has made the read that follows its checkpoint."""

    async def require_read() -> None:
        for actor in actors:
            assert all(watch.last_seq != UNKNOWN for watch in feed.watches._users[actor.user_id].watches)

    await eventually(require_read, within=WITHIN_SECONDS, every=0.01)


async def _silent(events: AsyncIterator[WatchEvent]) -> None:
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_from_now_on_it_tells_what_comes(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    await insert(tasks, actor, FIELDS)
    async with feed.watch(actor) as events:
        first = await _next(events)
        assert first.change is None
        made = await insert(tasks, actor, FIELDS)
        changed = await update(tasks, actor, made.id, replace(FIELDS, title="New"), ["title"])
        await delete(tasks, actor, made.id)
        (back,) = (await tasks.write(actor, [Undeletion(made.id)])).tasks
        feed.watches.changed(actor.user_id)
        told = await _told(events, 4)
        assert [kind.name for kind, _ in told] == ["CREATED", "UPDATED", "DELETED", "RESTORED"]
        assert (told[0][1], told[1][1], told[3][1]) == (made, changed, back)
        deleted = told[2][1]
        assert (deleted.version, deleted.deleted_at) == (3, deleted.updated_at)
        await _silent(events)


async def test_from_a_token_it_tells_all_that_came_after(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    count = CHANGES_AT_ONCE * 2 + 10
    async with feed.watch(actor) as events:
        token = (await _next(events)).resume_token
    made = await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(count)])
    async with feed.watch(actor, token) as events:
        assert (await _next(events)).change is None
        told = [await _next(events) for _ in range(count)]
        assert [event.change.subject for event in told if event.change] == made.tasks
        await insert(tasks, actor, FIELDS)
        feed.channels.say(actor.user_id)
        assert (await _told(events, 1))[0][0] is ChangeKind.CREATED
    # A stream can be resumed after each of the changes.
    for place in (0, CHANGES_AT_ONCE - 1, CHANGES_AT_ONCE, count - 1):
        async with feed.watch(actor, told[place].resume_token) as events:
            await _next(events)
            rest = [await _next(events) for _ in range(count - place)]
            assert [event.change.seq for event in rest if event.change] == list(range(place + 2, count + 2))


async def test_a_change_that_nobody_tells_of_is_found_by_polling(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    """For a user with earlier changes, and for a user without a counter."""
    other = Actor(uuid4(), uuid4(), "")
    await insert(tasks, actor, FIELDS)
    async with feed.watch(actor) as events, feed.watch(other) as others:
        await _next(events)
        await _next(others)
        await feed.watches.round()
        await _silent(events)
    async with feed.watch(actor) as events, feed.watch(other) as others:
        await _next(events)
        await _next(others)
        waiting = [asyncio.ensure_future(_next(each)) for each in (events, others)]
        await _all_read(feed, actor, other)
        for who in (actor, other):
            await insert(tasks, who, FIELDS)
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        await feed.watches.round()
        for event in await asyncio.gather(*waiting):
            assert event.change is not None


async def test_a_change_that_another_stream_of_the_user_has_read_is_told_all_the_same(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    """The other stream begins after the change, and nobody has announced the change."""
    async with feed.watch(actor) as events, feed.watch(actor) as later:
        await _next(events)
        waiting = asyncio.ensure_future(_next(events))
        await _all_read(feed, actor)
        await insert(tasks, actor, FIELDS)
        await _next(later)
        looking = asyncio.ensure_future(_next(later))
        await _all_read(feed, actor)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await feed.watches.round()
        assert (await waiting).change is not None
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def test_another_users_changes_are_not_told(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    async with feed.watch(actor) as events:
        await _next(events)
        await insert(tasks, Actor(uuid4(), uuid4(), ""), FIELDS)
        await feed.watches.round()
        await _silent(events)


async def test_a_token_is_its_users_alone(feed: Feed, actor: Actor) -> None:
    async with feed.watch(actor) as events:
        token = (await _next(events)).resume_token
    page_token = page_tokens(SECRET).seal(["epoch", 1], ["WatchTasks", str(actor.user_id)])
    for who, given in [(Actor(uuid4(), uuid4(), ""), token), (actor, token[:-2]), (actor, "x"), (actor, page_token)]:
        async with feed.watch(who, given) as events:
            await _ended(events, InvalidResumeToken)


async def test_a_place_that_the_log_does_not_have_is_expired(feed: Feed, database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    tokens = []
    async with feed.watch(actor) as events:
        tokens.append((await _next(events)).resume_token)
        for _ in range(4):
            await insert(tasks, actor, FIELDS)
            feed.watches.changed(actor.user_id)
            tokens.append((await _next(events)).resume_token)
    await database.fetchrow("DELETE FROM task.changes WHERE user_id = $1 AND seq <= 2", actor.user_id)
    for gone in tokens[:2]:
        async with feed.watch(actor, gone) as events:
            await _ended(events, ResumeTokenExpired)
    async with feed.watch(actor, tokens[2]) as events:
        await _next(events)
        assert len(await _told(events, 2)) == 2
    await database.fetchrow("DELETE FROM task.changes WHERE user_id = $1", actor.user_id)
    async with feed.watch(actor, tokens[3]) as events:
        await _ended(events, ResumeTokenExpired)
    # After the last change there is nothing to miss.
    async with feed.watch(actor, tokens[4]) as events:
        await _next(events)
        await _silent(events)


async def test_after_a_restore_every_token_is_expired(feed: Feed, database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    for _ in range(2):
        await insert(tasks, actor, FIELDS)
    async with feed.watch(actor) as events:
        token = (await _next(events)).resume_token
        await database.fetchrow("UPDATE task.counters SET last_seq = last_seq - 1 WHERE user_id = $1", actor.user_id)
        async with feed.watch(actor, token) as late:
            await _ended(late, ResumeTokenExpired)
        await feed.watches.round()
        await _ended(events, ResumeTokenExpired)
    await database.fetchrow("UPDATE task.counters SET last_seq = last_seq + 1 WHERE user_id = $1", actor.user_id)
    async with feed.watch(actor) as events:
        await _next(events)
        await database.fetchrow("UPDATE task.feed SET epoch = gen_random_uuid()")
        async with feed.watch(actor, token) as late:
            await _ended(late, ResumeTokenExpired)
        feed.watches.changed(actor.user_id)
        await _ended(events, ResumeTokenExpired)


async def test_a_stream_ends_with_its_session(feed: Feed, actor: Actor) -> None:
    async with feed.watch(actor) as events, feed.watch(replace(actor, session_id=uuid4())) as other:
        await _next(events)
        await _next(other)
        waiting = asyncio.ensure_future(_ended(events, TokenInvalid))
        await asyncio.sleep(0)
        feed.ended.add(actor.session_id)
        feed.watches.check()
        await waiting
        await _silent(other)


async def test_a_stream_ends_with_its_token(feed: Feed, actor: Actor, clock: Clock) -> None:
    # The shortest of a few, because a stall of the machine makes one of them late.
    late: list[float] = []
    while not late or (len(late) < 5 and min(late) >= 1):
        clock.stop()
        async with feed.watch(actor, expires_at=0.4) as events:
            await _next(events)
            clock.start()
            await _ended(events, TokenInvalid)
            late.append(clock() - 0.4)
    assert 0 <= min(late) < 1, late


@pytest.mark.parametrize("why", ["session", "token", "drain"])
async def test_a_stream_that_has_much_to_tell_ends_as_soon(feed: Feed, tasks: PostgresTasks, actor: Actor, clock: Clock, why: str) -> None:
    async with feed.watch(actor) as events:
        token = (await _next(events)).resume_token
    await tasks.write(actor, [Creation(new_id(), FIELDS) for _ in range(CHANGES_AT_ONCE // 2)])
    async with feed.watch(actor, token, expires_at=60) as events:
        await _next(events)
        assert len(await _told(events, 2)) == 2
        if why == "session":
            feed.ended.add(actor.session_id)
            feed.watches.check()
        elif why == "drain":
            await feed.watches.drain()
        else:
            clock.ahead = 60
        with pytest.raises(ServiceStopping if why == "drain" else TokenInvalid):
            await _next(events)


async def test_a_service_that_stops_ends_its_streams_and_begins_none(feed: Feed, actor: Actor) -> None:
    async with feed.watch(actor) as events:
        await _next(events)
        await feed.watches.drain()
        await _ended(events, ServiceStopping)
    async with feed.watch(actor) as events:
        await _ended(events, ServiceStopping)


async def test_while_nothing_happens_there_is_a_checkpoint_now_and_then(feed: Feed, actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "HEARTBEAT_SECONDS", 0.05)
    async with feed.watch(actor) as events:
        for _ in range(3):
            assert (await _next(events)).change is None


async def test_a_user_can_have_so_many_streams(feed: Feed, actor: Actor) -> None:
    async with contextlib.AsyncExitStack() as streams:
        for _ in range(MAX_WATCHES_PER_USER):
            await _next(await streams.enter_async_context(feed.watch(actor)))
        async with feed.watch(actor) as events:
            await _ended(events, TooManyWatches)
        async with feed.watch(Actor(uuid4(), uuid4(), "")) as events:
            await _next(events)
        assert list(feed.channels.callbacks) == [channel_of(actor.user_id)]
        assert len(feed.channels.callbacks[channel_of(actor.user_id)]) == 1
    assert feed.channels.callbacks == {}


async def test_a_write_between_two_looks_is_not_missed(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    """A wake-up that comes while a stream reads the log, or sends what it has read, makes the stream read again."""
    async with feed.watch(actor) as events:
        await _next(events)
        await insert(tasks, actor, FIELDS)
        feed.watches.changed(actor.user_id)
        assert (await _next(events)).change is not None
        await insert(tasks, actor, FIELDS)
        feed.watches.changed(actor.user_id)
        assert (await _next(events)).change is not None


async def test_old_changes_are_told_with_what_came_to_tasks_since(feed: Feed, database: Database, tasks: PostgresTasks, actor: Actor) -> None:
    """A snapshot from before a column was added does not have the column."""
    async with feed.watch(actor) as events:
        token = (await _next(events)).resume_token
    made = await insert(tasks, actor, replace(FIELDS, due_date=None))
    await database.fetchrow(
        "UPDATE task.changes SET snapshot = snapshot - 'due_date', at = at - $2::interval WHERE user_id = $1", actor.user_id, timedelta(days=1)
    )
    async with feed.watch(actor, token) as events:
        await _next(events)
        assert await _told(events, 1) == [(ChangeKind.CREATED, made)]


async def test_what_wakes_streams_is_counted(feed: Feed, tasks: PostgresTasks, actor: Actor) -> None:
    def figures() -> tuple[float | None, ...]:
        return tuple(feed.registry.get_sample_value("task_watch_wakeups_total", {"by": by}) for by in ("process", "redis", "poll"))

    async with feed.watch(actor) as events, feed.watch(actor) as others:
        await _next(events)
        await _next(others)
        assert figures() == (0, 0, 0)
        feed.watches.changed(actor.user_id)
        feed.channels.say(actor.user_id)
        assert figures() == (2, 2, 0)
        await insert(tasks, actor, FIELDS)
        await feed.watches.round()
        assert figures() == (2, 2, 2)
