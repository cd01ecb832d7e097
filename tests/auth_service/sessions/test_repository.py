"""Sessions in real PostgreSQL: what each transaction does, alone and concurrently with others."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from uuid_utils.compat import uuid7

from auth_service.client import Client
from auth_service.sessions.domain import MAX_SESSIONS_PER_USER, REFRESH_GRACE_SECONDS, Repeated, Reused, Rotated, SessionLifetime
from auth_service.users.domain import Credentials
from servicekit.access.revocations import EventKind
from tests.auth_service.conftest import CLIENT, LIFETIME, CredentialsFactory, Storage, later, token_hash

REVOKED = EventKind.SESSION_REVOKED


async def test_a_session_begins_with_what_was_told_of_it(storage: Storage, credentials: Credentials) -> None:
    began = datetime.now(UTC)
    session = await storage.accounts.insert_session(uuid7(), credentials, token_hash(), CLIENT, CLIENT.address, LIFETIME)
    assert session is not None
    assert session.user_id == credentials.user_id
    assert abs(session.expires_at - began - timedelta(seconds=LIFETIME.idle_seconds)) < timedelta(seconds=5)
    (details,) = await storage.accounts.list_sessions(credentials.user_id)
    assert (details.id, details.user_agent, details.address) == (session.id, "tests", "203.0.113.7")
    assert details.created_at == details.last_used_at
    assert details.expires_at == session.expires_at


@pytest.mark.parametrize("version", [0, 2])
async def test_no_session_begins_by_another_password_than_was_checked(storage: Storage, credentials: Credentials, version: int) -> None:
    stale = Credentials(credentials.user_id, credentials.email, credentials.name, "hash", version)
    assert await storage.accounts.insert_session(uuid7(), stale, token_hash(), CLIENT, CLIENT.address, LIFETIME) is None
    gone = Credentials(uuid4(), "", "", "", 1)
    assert await storage.accounts.insert_session(uuid7(), gone, token_hash(), CLIENT, CLIENT.address, LIFETIME) is None
    assert await storage.live(credentials) == []
    _, known = await storage.accounts.find_login(credentials.email, CLIENT.address)
    assert not known


async def test_beyond_the_most_sessions_those_used_least_recently_end(storage: Storage, credentials: Credentials) -> None:
    tokens = [token_hash() for _ in range(MAX_SESSIONS_PER_USER)]
    sessions = [await storage.begin(credentials, token) for token in tokens]
    # The oldest session is used again, so the second one is now the least recently used. An expired session no longer counts.
    assert isinstance(await storage.use(tokens[0]), Rotated)
    after = await storage.last_number()
    newest = await storage.begin(credentials)
    assert await storage.events(after) == [(REVOKED, credentials.user_id, sessions[1])]
    assert await storage.live(credentials) == [newest, sessions[0], *reversed(sessions[2:])]
    await storage.expire(sessions[2])
    after = await storage.last_number()
    await storage.begin(credentials)
    assert await storage.events(after) == []
    assert await storage.use(tokens[1]) is None


async def test_sessions_that_begin_at_once_are_not_more_than_there_may_be(storage: Storage, credentials: Credentials) -> None:
    for _ in range(MAX_SESSIONS_PER_USER - 1):
        await storage.begin(credentials)
    await asyncio.gather(*(storage.begin(credentials) for _ in range(8)))
    row = await storage.database.fetchrow("SELECT count(*) FROM auth.sessions WHERE user_id = $1 AND ended_at IS NULL", credentials.user_id)
    assert row is not None
    assert row[0] == MAX_SESSIONS_PER_USER


async def test_an_address_is_known_after_a_login_and_for_so_long(storage: Storage, credentials: Credentials) -> None:
    assert await storage.accounts.find_login(credentials.email, CLIENT.address) == (credentials, False)
    await storage.begin(credentials)
    assert await storage.accounts.find_login(credentials.email, CLIENT.address) == (credentials, True)
    assert (await storage.accounts.find_login(credentials.email, "198.51.100.1"))[1] is False
    await storage.database.fetchrow("UPDATE auth.login_networks SET last_login_at = now() - interval '31 days'")
    assert (await storage.accounts.find_login(credentials.email, CLIENT.address))[1] is False
    await storage.begin(credentials)
    assert (await storage.accounts.find_login(credentials.email, CLIENT.address))[1] is True
    assert await storage.accounts.find_login("nobody@example.com", CLIENT.address) == (None, False)


async def test_long_texts_of_clients_are_kept_as_they_are(storage: Storage, credentials: Credentials) -> None:
    client = Client("x" * 64, "\N{GRINNING FACE}" * 256, "r")
    await storage.accounts.insert_session(uuid7(), credentials, token_hash(), client, client.address, LIFETIME)
    (details,) = await storage.accounts.list_sessions(credentials.user_id)
    assert (details.address, details.user_agent) == (client.address, client.user_agent)


# --- refresh tokens


async def test_a_refresh_token_is_used_up_for_its_successor(storage: Storage, credentials: Credentials) -> None:
    first, second = token_hash(), token_hash()
    session_id = await storage.begin(credentials, first)
    before = (await storage.accounts.list_sessions(credentials.user_id))[0]
    outcome = await storage.use(first, new=second)
    assert isinstance(outcome, Rotated)
    assert (outcome.session.id, outcome.session.user_id) == (session_id, credentials.user_id)
    after = (await storage.accounts.list_sessions(credentials.user_id))[0]
    assert after.last_used_at > before.last_used_at
    assert after.expires_at == outcome.session.expires_at > before.expires_at
    assert after.created_at == before.created_at
    assert isinstance(await storage.use(second), Rotated)


async def test_a_session_does_not_outlive_its_whole_lifetime(storage: Storage, credentials: Credentials) -> None:
    token = token_hash()
    session = await storage.accounts.insert_session(
        uuid7(), credentials, token, CLIENT, CLIENT.address, SessionLifetime(idle_seconds=3600, absolute_seconds=60)
    )
    assert session is not None
    outcome = await storage.use(token)
    assert isinstance(outcome, Rotated)
    assert outcome.session.expires_at == session.expires_at


async def test_used_tokens_that_are_far_behind_are_dropped(storage: Storage, credentials: Credentials) -> None:
    first, second, third = (token_hash() for _ in range(3))
    session_id = await storage.begin(credentials, first)
    await storage.use(first, new=second)
    # As after 10 000 refreshes.
    await storage.database.fetchrow("UPDATE auth.refresh_tokens SET generation = 10000 WHERE token_hash = $1", second)
    await storage.use(second, new=third)
    rows = await storage.database.fetch("SELECT token_hash FROM auth.refresh_tokens WHERE session_id = $1", session_id)
    assert {row[0] for row in rows} == {second, third}


async def test_a_token_sent_again_at_once_gets_the_successor_of_then(storage: Storage, credentials: Credentials) -> None:
    token, successor = token_hash(), token_hash()
    session_id = await storage.begin(credentials, token)
    await storage.use(token, new=successor, sealed=b"the successor")
    unused = token_hash()
    for _ in range(2):
        outcome = await storage.use(token, new=unused, sealed=b"another")
        assert isinstance(outcome, Repeated)
        assert (outcome.session.id, outcome.sealed_successor) == (session_id, b"the successor")
    assert await storage.use(unused) is None
    assert isinstance(await storage.use(successor), Rotated)
    # The first token is still within the grace, although its successor has been used.
    assert isinstance(await storage.use(token), Repeated)


async def test_of_many_uses_at_once_one_rotates_and_the_others_get_the_same(storage: Storage, credentials: Credentials) -> None:
    # Repeated, because the calls of a single round may not overlap.
    for _ in range(20):
        token = token_hash()
        session_id = await storage.begin(credentials, token)
        outcomes = await asyncio.gather(*(storage.use(token, sealed=str(i).encode()) for i in range(8)))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Repeated"] * 7 + ["Rotated"]
        assert len({outcome.sealed_successor for outcome in outcomes if isinstance(outcome, Repeated)}) == 1
        rows = await storage.database.fetch("SELECT FROM auth.refresh_tokens WHERE session_id = $1", session_id)
        assert len(rows) == 2


async def test_a_token_sent_again_later_ends_the_session_once(storage: Storage, credentials: Credentials) -> None:
    token, successor = token_hash(), token_hash()
    session_id, other = await storage.begin(credentials, token), await storage.begin(credentials)
    await storage.use(token, new=successor)
    await storage.age_token(token, REFRESH_GRACE_SECONDS)
    after = await storage.last_number()
    outcomes = await asyncio.gather(*(storage.use(token) for _ in range(4)))
    assert [outcome for outcome in outcomes if outcome is not None] == [Reused(session_id, credentials.user_id)]
    assert await storage.events(after) == [(REVOKED, credentials.user_id, session_id)]
    assert await storage.use(successor) is None
    assert await storage.live(credentials) == [other]


async def test_a_token_is_reused_when_its_successor_is_no_longer_there_to_be_repeated(storage: Storage, credentials: Credentials) -> None:
    token = token_hash()
    session_id = await storage.begin(credentials, token)
    await storage.use(token)
    await storage.database.fetchrow("UPDATE auth.refresh_tokens SET sealed_successor = NULL WHERE token_hash = $1", token)
    assert await storage.use(token) == Reused(session_id, credentials.user_id)


async def test_unknown_tokens_and_those_of_ended_and_expired_sessions_are_not_used(storage: Storage, credentials: Credentials) -> None:
    ended, expired = token_hash(), token_hash()
    ended_session, expired_session = await storage.begin(credentials, ended), await storage.begin(credentials, expired)
    await storage.accounts.end_session(credentials.user_id, ended_session)
    await storage.expire(expired_session)
    after = await storage.last_number()
    for token in (token_hash(), ended, expired):
        assert await storage.use(token) is None
    assert await storage.events(after) == []


# --- sessions end


async def test_a_user_ends_their_own_session_once_and_nobody_elses(storage: Storage, new_credentials: CredentialsFactory) -> None:
    ada, eve = await new_credentials(), await new_credentials()
    session_id, other = await storage.begin(ada), await storage.begin(ada)
    after = await storage.last_number()
    assert not await storage.accounts.end_session(eve.user_id, session_id)
    assert not await storage.accounts.end_session(ada.user_id, uuid4())
    results = await asyncio.gather(*(storage.accounts.end_session(ada.user_id, session_id) for _ in range(4)))
    assert sorted(results) == [False, False, False, True]
    assert await storage.events(after) == [(REVOKED, ada.user_id, session_id)]
    assert await storage.live(ada) == [other]


async def test_an_expired_session_is_none_to_end_or_to_show(storage: Storage, credentials: Credentials) -> None:
    session_id = await storage.begin(credentials)
    await storage.expire(session_id)
    assert await storage.live(credentials) == []
    assert not await storage.accounts.end_session(credentials.user_id, session_id)


async def test_any_token_of_a_session_ends_it_once(storage: Storage, credentials: Credentials) -> None:
    token = token_hash()
    session_id = await storage.begin(credentials, token)
    await storage.use(token)
    after = await storage.last_number()
    assert await storage.accounts.end_session_of(token) == (session_id, credentials.user_id)
    assert await storage.accounts.end_session_of(token) is None
    assert await storage.accounts.end_session_of(token_hash()) is None
    assert await storage.events(after) == [(REVOKED, credentials.user_id, session_id)]


# --- passwords and accounts


async def test_a_new_hash_of_the_same_password_ends_nothing(storage: Storage, credentials: Credentials) -> None:
    session_id = await storage.begin(credentials)
    await storage.accounts.update_hash(credentials, "hash 1, but dearer")
    found = await storage.accounts.find_credentials(credentials.user_id)
    assert found is not None
    assert (found.password_hash, found.password_version) == ("hash 1, but dearer", 1)
    assert await storage.live(credentials) == [session_id]


async def test_a_login_that_races_with_a_change_leaves_no_session_of_the_old_password(storage: Storage, new_credentials: CredentialsFactory) -> None:
    for _ in range(20):
        ada = await new_credentials()
        kept = await storage.begin(ada)
        logins = [storage.accounts.insert_session(uuid7(), ada, token_hash(), CLIENT, CLIENT.address, LIFETIME) for _ in range(6)]
        await asyncio.gather(*logins[:3], storage.accounts.change_password(ada, "hash 2", kept), *logins[3:])
        assert await storage.live(ada) == [kept]


async def test_everything_at_once_on_one_account_neither_locks_up_nor_fails(storage: Storage, new_credentials: CredentialsFactory) -> None:
    for _ in range(5):
        ada = await new_credentials()
        tokens = [token_hash() for _ in range(4)]
        sessions = [await storage.begin(ada, token) for token in tokens]
        deletions = [storage.accounts.delete_user(ada), storage.accounts.delete_user(later(ada))]
        *_, one, other = await asyncio.gather(
            *(storage.use(token) for token in tokens * 2),
            *(storage.accounts.insert_session(uuid7(), ada, token_hash(), CLIENT, CLIENT.address, LIFETIME) for _ in range(3)),
            *(storage.accounts.end_session(ada.user_id, session) for session in sessions),
            *(storage.accounts.end_session_of(token) for token in tokens),
            storage.accounts.change_password(ada, "hash 2", sessions[0]),
            *deletions,
        )
        # One deletion has the credentials from before the change of the password, the other those from after it. So at most one succeeds.
        assert not (one and other)
        assert (await storage.accounts.find_user(ada.user_id) is None) is (one or other)
