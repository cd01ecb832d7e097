"""The cleanup deletes old events, except those of deleted accounts."""

from uuid import uuid4

import pytest

from auth_service.events.repository import REMOVALS
from servicekit.access.revocations import LOOK_BACK_SECONDS, EventKind
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Upkeep
from tests.auth_service.conftest import Accounts, column


@pytest.fixture
def cleanup(database: Database) -> Upkeep:
    return Upkeep(database, REMOVALS)


async def test_events_go_when_no_token_is_alive_for_them_but_deletions_are_kept_for_good(
    accounts: Accounts, database: Database, cleanup: Upkeep
) -> None:
    for kind, session in ((EventKind.SESSION_REVOKED, uuid4()), (EventKind.USER_DELETED, None), (EventKind.SESSION_REVOKED, uuid4())):
        await database.fetchrow("SELECT auth.log_event($1, $2, $3)", kind, uuid4(), session)
    first, second, third = await column(database, "SELECT number FROM auth.events ORDER BY number")
    await database.fetchrow("UPDATE auth.events SET created_at = now() - interval '1 year' WHERE number < $1", third)
    await database.fetchrow("UPDATE auth.events SET created_at = now() - make_interval(secs => $2) WHERE number = $1", third, LOOK_BACK_SECONDS + 60)
    assert await cleanup.remove(100) == 1
    assert await column(database, "SELECT number FROM auth.events ORDER BY number") == [second, third]
    page = await accounts.list_events(after=first - 1)
    assert ([event.number for event in page.events], page.last_number) == ([second, third], third)
