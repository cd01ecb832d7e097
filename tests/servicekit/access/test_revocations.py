"""Revocations: no token is accepted before the first read, no event is missed, and no entry is kept longer than needed."""

from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from servicekit.access.revocations import LOOK_BACK_SECONDS, Event, EventKind, EventPage, Revocations
from servicekit.errors import DependencyUnavailable, TokenInvalid
from servicekit.identity import Identity

PAGE = 3


class Log:
    """An EventSource in memory that returns `PAGE` events at a time. It is unavailable for events after number `away_from`, if that is set."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away_from: int | None = None
        self.asked: list[tuple[int, float | None]] = []
        self.epoch = "one"

    def add(self, identity: Identity, kind: EventKind = EventKind.SESSION_REVOKED) -> None:
        session_id = identity.session_id if kind is EventKind.SESSION_REVOKED else None
        self.events.append(Event(len(self.events) + 1, kind, identity.user_id, session_id, 0.0))

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        assert kind is None
        self.asked.append((after, max_age_seconds))
        if self.away_from is not None and after >= self.away_from:
            raise DependencyUnavailable("auth_service")
        found = [event for event in self.events if event.number > after]
        more = len(found) > PAGE
        page: Sequence[Event] = found[:PAGE]
        return EventPage(page, page[-1].number if more else len(self.events), more, self.epoch)


class Clock:
    """A clock that moves only when the test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """Revocations with their event log, clock and metrics, and a record of their callbacks."""

    def __init__(self) -> None:
        self.log, self.clock, self.registry, self.woken = Log(), Clock(), CollectorRegistry(), 0
        self.changes: list[int] = []
        self.revocations = Revocations(self.log, self.registry, on_user_deleted=self._wake, on_change=self._change, clock=self.clock)

    def refuses(self, identity: Identity) -> bool:
        try:
            self.revocations.check(identity)
        except TokenInvalid:
            return True
        return False

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(name)

    def _wake(self) -> None:
        self.woken += 1

    def _change(self) -> None:
        """Records the number of known revocations: when `on_change` is called, the change must be visible."""
        self.changes.append(int(self.metric("revocations") or 0))


@pytest.fixture
def replica() -> Replica:
    return Replica()


def someone(user_id: UUID | None = None) -> Identity:
    return Identity(user_id or uuid4(), uuid4(), "t", 2**31)


async def test_before_the_first_reading_nobody_is_let_in(replica: Replica) -> None:
    with pytest.raises(DependencyUnavailable):
        replica.revocations.check(someone())
    with pytest.raises(DependencyUnavailable):
        await replica.revocations.ready()
    await replica.revocations.refresh()
    replica.revocations.check(someone())
    await replica.revocations.ready()


async def test_a_first_reading_counts_when_it_is_whole(replica: Replica) -> None:
    everybody = [someone() for _ in range(PAGE * 2 + 1)]
    for each in everybody:
        replica.log.add(each)
    replica.log.away_from = PAGE * 2
    with pytest.raises(DependencyUnavailable):
        await replica.revocations.refresh()
    with pytest.raises(DependencyUnavailable):
        await replica.revocations.ready()
    with pytest.raises(DependencyUnavailable):
        replica.revocations.check(someone())
    replica.log.away_from = None
    await replica.revocations.refresh()
    assert all(map(replica.refuses, everybody))
    assert replica.log.asked == [(after, LOOK_BACK_SECONDS) for after in (0, 3, 6, 0, 3, 6)]
    assert replica.metric("revocations") == len(everybody)


async def test_a_revoked_session_is_refused_and_no_other_of_the_user(replica: Replica) -> None:
    await replica.revocations.refresh()
    ended = someone()
    replica.log.add(ended)
    assert not replica.refuses(ended)
    await replica.revocations.refresh()
    assert replica.refuses(ended)
    assert not replica.refuses(someone(ended.user_id))
    assert replica.log.asked[-1][0] == 0
    await replica.revocations.refresh()
    assert replica.log.asked[-1][0] == 1


async def test_a_deleted_account_is_refused_in_all_its_sessions_and_wakes_who_follows(replica: Replica) -> None:
    gone = someone()
    replica.log.add(gone, EventKind.USER_DELETED)
    await replica.revocations.refresh()
    assert replica.refuses(gone)
    assert replica.refuses(someone(gone.user_id))
    assert replica.woken == 1
    replica.log.add(someone())
    await replica.revocations.refresh()
    assert replica.woken == 1
    for _ in range(PAGE + 1):
        replica.log.add(someone(), EventKind.USER_DELETED)
    await replica.revocations.refresh()
    assert replica.woken == 2


async def test_who_follows_is_told_of_each_reading_that_brought_something_new(replica: Replica) -> None:
    await replica.revocations.refresh()
    assert replica.changes == []
    for _ in range(PAGE + 1):
        replica.log.add(someone())
    await replica.revocations.refresh()
    assert replica.changes == [PAGE + 1]
    await replica.revocations.refresh()
    replica.log.add(someone(), EventKind.USER_DELETED)
    await replica.revocations.refresh()
    assert replica.changes == [PAGE + 1, PAGE + 2]


async def test_what_is_read_again_is_nothing_new(replica: Replica) -> None:
    for _ in range(3):
        replica.log.add(someone())
    await replica.revocations.refresh()
    del replica.log.events[2:]
    await replica.revocations.refresh()
    assert replica.changes == [3]


async def test_while_the_log_is_away_what_is_known_holds(replica: Replica) -> None:
    ended = someone()
    replica.log.add(ended)
    await replica.revocations.refresh()
    replica.log.away_from = 0
    replica.clock.now += 5
    with pytest.raises(DependencyUnavailable):
        await replica.revocations.refresh()
    assert replica.refuses(ended)
    assert not replica.refuses(someone())
    await replica.revocations.ready()
    assert replica.metric("revocations_age_seconds") == 5


async def test_a_log_that_was_restored_is_read_from_its_beginning(replica: Replica) -> None:
    known = [someone() for _ in range(PAGE + 2)]
    for each in known:
        replica.log.add(each)
    await replica.revocations.refresh()
    fresh = someone()
    del replica.log.events[2:]
    replica.log.add(fresh)
    with capture_logs() as logs:
        await replica.revocations.refresh()
    assert [line["event"] for line in logs] == ["events_begin_again"]
    # The restored log lacks some events, but their tokens may still be valid, so the replica must keep rejecting them.
    assert all(map(replica.refuses, [*known, fresh]))
    await replica.revocations.refresh()
    assert replica.log.asked[-1][0] == 3


async def test_a_log_with_another_epoch_is_read_from_its_beginning(replica: Replica) -> None:
    """The database has lost events, and their numbers belong to other events by now."""
    known = [someone() for _ in range(PAGE + 2)]
    for each in known:
        replica.log.add(each)
    await replica.revocations.refresh()
    fresh = [someone() for _ in range(PAGE)]
    del replica.log.events[2:]
    for each in fresh:
        replica.log.add(each)
    assert len(replica.log.events) == len(known)
    replica.log.epoch = "two"
    with capture_logs() as logs:
        await replica.revocations.refresh()
    assert [line["event"] for line in logs] == ["events_begin_again"]
    assert replica.metric("revocations_restarts_total") == 1
    assert all(map(replica.refuses, [*known, *fresh]))
    await replica.revocations.refresh()
    assert replica.log.asked[-1][0] == len(replica.log.events)


async def test_a_source_of_an_older_version_does_not_name_the_epoch(replica: Replica) -> None:
    """During a rollout, replicas of both versions answer in turn."""
    replica.log.add(someone())
    for epoch in ("", "one", "", "one"):
        replica.log.epoch = epoch
        await replica.revocations.refresh()
    assert [after for after, _ in replica.log.asked] == [0, 1, 1, 1]
    replica.log.epoch = ""
    await replica.revocations.refresh()
    replica.log.epoch = "two"
    await replica.revocations.refresh()
    assert replica.log.asked[-1][0] == 0


async def test_what_no_token_can_be_alive_for_is_forgotten(replica: Replica) -> None:
    early, late = someone(), someone()
    replica.log.add(early)
    await replica.revocations.refresh()
    replica.clock.now += LOOK_BACK_SECONDS - 1
    replica.log.add(late)
    await replica.revocations.refresh()
    assert replica.refuses(early)
    replica.clock.now += 1
    await replica.revocations.refresh()
    assert not replica.refuses(early)
    assert replica.refuses(late)
    assert replica.metric("revocations") == 1


async def test_an_event_that_is_read_again_is_remembered_from_then_on(replica: Replica) -> None:
    """The replica forgets an entry some time after its last read, not after its first."""
    both = [someone(), someone()]
    for each in both:
        replica.log.add(each)
    await replica.revocations.refresh()
    replica.clock.now += LOOK_BACK_SECONDS - 1
    replica.log.events.pop()
    await replica.revocations.refresh()
    replica.clock.now += 1
    await replica.revocations.refresh()
    assert [replica.refuses(each) for each in both] == [True, False]
