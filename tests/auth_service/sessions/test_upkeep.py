"""The cleanup deletes expired rows and keeps all others, in batches, and with several replicas at once."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from auth_service.client import Client
from auth_service.events import repository as event_rows
from auth_service.sessions import repository as session_rows
from auth_service.users.domain import Credentials
from servicekit.stores import upkeep
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Upkeep
from tests.auth_service.conftest import CLIENT, LIFETIME, Accounts, column


@pytest.fixture
def cleanup(database: Database) -> Upkeep:
    return Upkeep(database, (*session_rows.REMOVALS, *event_rows.REMOVALS))


@pytest.fixture(autouse=True)
async def _nothing_left(database: Database) -> AsyncIterator[None]:
    yield
    for table in ("users", "events"):
        await database.fetchrow(f"DELETE FROM auth.{table}")


async def begin(accounts: Accounts, credentials: Credentials, address: str = CLIENT.address) -> UUID:
    session = await accounts.insert_session(uuid7(), credentials, uuid4().bytes * 2, Client(address, "", ""), address, LIFETIME)
    assert session is not None
    return session.id


async def test_sessions_go_a_day_after_their_end(accounts: Accounts, database: Database, cleanup: Upkeep, credentials: Credentials) -> None:
    live, lately_ended, long_ended, lately_expired, long_expired = [await begin(accounts, credentials) for _ in range(5)]
    ended, expired = "UPDATE auth.sessions SET ended_at = now() - $2 * interval '1 hour' WHERE id = $1", "UPDATE auth.sessions SET expires_at"
    for session, hours in ((lately_ended, 23), (long_ended, 25)):
        await database.fetchrow(ended, session, hours)
    for session, hours in ((lately_expired, 23), (long_expired, 25)):
        await database.fetchrow(f"{expired} = now() - $2 * interval '1 hour' WHERE id = $1", session, hours)
    assert await cleanup.remove(100) == 2
    assert set(await column(database, "SELECT id FROM auth.sessions")) == {live, lately_ended, lately_expired}
    # The refresh tokens of the deleted sessions are deleted too.
    assert len(await column(database, "SELECT 1 FROM auth.refresh_tokens")) == 3
    assert await cleanup.remove(100) == 0


async def test_successors_go_after_the_grace_and_their_tokens_stay(
    accounts: Accounts, database: Database, cleanup: Upkeep, credentials: Credentials
) -> None:
    tokens = [uuid4().bytes * 2 for _ in range(2)]
    for token in tokens:
        await accounts.insert_session(uuid7(), credentials, token, CLIENT, CLIENT.address, LIFETIME)
        await accounts.use_refresh_token(token, uuid4().bytes, b"sealed", 3600)
    await database.fetchrow("UPDATE auth.refresh_tokens SET used_at = now() - interval '11 seconds' WHERE token_hash = $1", tokens[0])
    assert await cleanup.remove(100) == 1
    kept = await database.fetch("SELECT token_hash, sealed_successor FROM auth.refresh_tokens WHERE used_at IS NOT NULL")
    assert dict(map(tuple, kept)) == {tokens[0]: None, tokens[1]: b"sealed"}


async def test_addresses_go_when_they_are_known_no_more(accounts: Accounts, database: Database, cleanup: Upkeep, credentials: Credentials) -> None:
    for address in ("192.0.2.1", "192.0.2.2"):
        await begin(accounts, credentials, address)
    await database.fetchrow("UPDATE auth.login_networks SET last_login_at = now() - interval '31 days' WHERE network = '192.0.2.1'")
    assert await cleanup.remove(100) == 1
    assert await column(database, "SELECT network FROM auth.login_networks") == ["192.0.2.2"]


async def test_a_round_removes_all_a_batch_at_a_time_also_by_several_at_once(
    accounts: Accounts, database: Database, cleanup: Upkeep, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 3)
    sessions = [await begin(accounts, credentials) for _ in range(20)]
    await database.fetchrow("UPDATE auth.sessions SET ended_at = now() - interval '2 days' WHERE id = ANY ($1)", sessions[1:])
    await database.fetch("SELECT auth.log_event(1::smallint, $1, $1) FROM generate_series(1, 10)", uuid4())
    await database.fetchrow("UPDATE auth.events SET created_at = now() - interval '2 hours'")
    await asyncio.gather(*(cleanup.round() for _ in range(3)))
    # A concurrent round may skip rows that another round has locked. The next round deletes all that is left.
    await cleanup.round()
    assert await column(database, "SELECT id FROM auth.sessions") == sessions[:1]
    assert await column(database, "SELECT number FROM auth.events") == []
