"""The event log in PostgreSQL: its numbers are gapless and in commit order, and events are read in pages."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from auth_service.events.repository import MAX_EVENTS
from auth_service.users.domain import Credentials
from servicekit.access.revocations import Event, EventKind
from servicekit.stores.postgres import Database
from tests.auth_service.conftest import CredentialsFactory, Storage, later

REVOKED, DELETED = EventKind.SESSION_REVOKED, EventKind.USER_DELETED


@pytest.mark.slow("many writers at once, for seconds")
async def test_a_reader_never_misses_an_event_of_writers_at_once(storage: Storage, new_credentials: CredentialsFactory) -> None:
    """A later commit has a higher number, so a reader that continues after the last number it has seen misses no event."""
    start = await storage.last_number()
    writing, seen = True, list[Event]()

    async def write(rounds: int = 12) -> int:
        written = 0
        for _ in range(rounds):
            ada = await new_credentials()
            kept, one, *_ = [await storage.begin(ada) for _ in range(4)]
            written += await storage.accounts.end_session(ada.user_id, one)
            written += 2 * await storage.accounts.change_password(ada, "hash 2", kept)
            written += await storage.accounts.delete_user(later(ada))
        return written

    async def read() -> None:
        last = start
        while True:
            finished = not writing
            page = await storage.accounts.list_events(after=last)
            numbers = [event.number for event in page.events]
            assert numbers == list(range(last + 1, page.last_number + 1))
            seen.extend(page.events)
            last = page.last_number
            if finished:
                return

    reading = [asyncio.create_task(read()) for _ in range(2)]
    written = sum(await asyncio.gather(*(write() for _ in range(8))))
    writing = False
    await asyncio.gather(*reading)
    assert written == 8 * 12 * 4
    assert len(seen) == 2 * written
    assert await storage.last_number() == start + written


async def test_what_is_rolled_back_leaves_no_gap(storage: Storage, database: Database, credentials: Credentials) -> None:
    start = await storage.last_number()
    session_id = await storage.begin(credentials)

    async def failing(connection: object) -> None:
        await connection.execute("SELECT auth.log_event(1::smallint, $1, $2)", credentials.user_id, session_id)  # type: ignore[attr-defined]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.transact(failing)
    assert await storage.last_number() == start
    await storage.accounts.end_session(credentials.user_id, session_id)
    assert await storage.last_number() == start + 1


async def _log(storage: Storage, kind: EventKind, count: int) -> None:
    session = uuid4() if kind is REVOKED else None
    await storage.database.fetch("SELECT auth.log_event($1, $2, $3) FROM generate_series(1, $4)", kind, uuid4(), session, count)


async def _pages(storage: Storage, after: int, **wanted: object) -> tuple[list[int], list[int]]:
    """Returns the numbers of the events, and the last number of each page."""
    numbers, ends = [], []
    while True:
        page = await storage.accounts.list_events(after=after, **wanted)  # type: ignore[arg-type]
        numbers += [event.number for event in page.events]
        ends.append(after := page.last_number)
        if not page.more:
            return numbers, ends


async def test_events_come_in_pages(storage: Storage) -> None:
    start = await storage.last_number()
    await _log(storage, REVOKED, 2 * MAX_EVENTS + 1)
    numbers, ends = await _pages(storage, start)
    assert numbers == list(range(start + 1, start + 2 * MAX_EVENTS + 2))
    assert ends == [start + MAX_EVENTS, start + 2 * MAX_EVENTS, start + 2 * MAX_EVENTS + 1]
    # If exactly one full page is left, it is the last one.
    page = await storage.accounts.list_events(after=start + MAX_EVENTS + 1)
    assert (len(page.events), page.more) == (MAX_EVENTS, False)
    page = await storage.accounts.list_events(after=ends[-1])
    assert (page.events, page.last_number, page.more) == ([], ends[-1], False)
    # A reader that is ahead of the log gets the log's last number.
    assert (await storage.accounts.list_events(after=ends[-1] + 100)).last_number == ends[-1]


async def test_events_of_one_kind_are_not_held_up_by_the_others(storage: Storage) -> None:
    start = await storage.last_number()
    kinds: Sequence[tuple[EventKind, int]] = ((REVOKED, 3), (DELETED, 1), (REVOKED, MAX_EVENTS), (DELETED, MAX_EVENTS), (REVOKED, 5))
    for kind, count in kinds:
        await _log(storage, kind, count)
    numbers, ends = await _pages(storage, start, kind=DELETED)
    assert numbers == [start + 4, *range(start + 5 + MAX_EVENTS, start + 5 + 2 * MAX_EVENTS)]
    # The last page ends at the log's last number, which is an event of the other kind.
    assert ends[-1] == await storage.last_number() == start + 9 + 2 * MAX_EVENTS


async def test_events_are_told_up_to_an_age(storage: Storage) -> None:
    start = await storage.last_number()
    await _log(storage, REVOKED, 3)
    await storage.database.fetchrow("UPDATE auth.events SET created_at = now() - interval '100 seconds' WHERE number <= $1", start + 2)
    assert await _pages(storage, start, max_age_seconds=90) == ([start + 3], [start + 3])
    assert (await _pages(storage, start, max_age_seconds=110))[0] == [start + 1, start + 2, start + 3]
    assert (await _pages(storage, start))[0] == [start + 1, start + 2, start + 3]
    assert await _pages(storage, start, max_age_seconds=90, kind=DELETED) == ([], [start + 3])


async def test_an_event_says_what_happened_and_when(storage: Storage, credentials: Credentials) -> None:
    start = await storage.last_number()
    session_id = await storage.begin(credentials)
    await storage.accounts.end_session(credentials.user_id, session_id)
    (event,) = (await storage.accounts.list_events(after=start)).events
    assert (event.number, event.kind, event.user_id, event.session_id) == (start + 1, REVOKED, credentials.user_id, session_id)
    assert abs(event.created_at - datetime.now(UTC).timestamp()) < 5


async def test_after_a_failover_the_log_has_another_epoch(storage: Storage, database: Database) -> None:
    """The row that names the server is older than the promotion. Several replicas notice it at once."""
    before = await storage.accounts.list_events(after=0)
    assert (await storage.accounts.list_events(after=0)).epoch == before.epoch
    await database.fetchrow("UPDATE auth.event_counter SET server = 'of before'")
    with capture_logs() as logs:
        pages = await asyncio.gather(*(storage.accounts.list_events(after=0) for _ in range(8)))
    assert {line["event"] for line in logs} == {"database_failover"}
    (epoch,) = {page.epoch for page in pages}
    assert epoch != before.epoch
    with capture_logs() as logs:
        assert await storage.accounts.list_events(after=0) == pages[0]
    assert logs == []
