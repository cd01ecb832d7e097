"""Accounts in real PostgreSQL: what a change of the password and a deletion do, alone and several at once."""

import asyncio

from auth_service.users.domain import Credentials
from servicekit.access.revocations import EventKind
from tests.auth_service.conftest import CredentialsFactory, Storage, later, token_hash

REVOKED, DELETED = EventKind.SESSION_REVOKED, EventKind.USER_DELETED


async def test_a_change_of_the_password_ends_all_sessions_but_one(storage: Storage, new_credentials: CredentialsFactory) -> None:
    ada, bob = await new_credentials(), await new_credentials()
    kept, *others = [await storage.begin(ada) for _ in range(4)]
    bobs = await storage.begin(bob)
    after = await storage.last_number()
    assert await storage.accounts.change_password(ada, "hash 2", kept)
    assert await storage.live(ada) == [kept]
    assert await storage.live(bob) == [bobs]
    events = await storage.events(after)
    assert {kind for kind, _, _ in events} == {REVOKED}
    assert {session for _, _, session in events} == set(others)
    changed = await storage.accounts.find_credentials(ada.user_id)
    assert changed == later(ada)
    # Credentials that were read before the change no longer work.
    assert not await storage.accounts.change_password(ada, "hash 3", kept)
    assert not await storage.accounts.delete_user(ada)
    await storage.accounts.update_hash(ada, "hash 4")
    assert await storage.accounts.find_credentials(ada.user_id) == changed
    assert await storage.accounts.change_password(later(ada), "hash 5", kept)


async def test_of_two_changes_at_once_one_is_made(storage: Storage, credentials: Credentials) -> None:
    kept = await storage.begin(credentials)
    results = await asyncio.gather(*(storage.accounts.change_password(credentials, f"hash {i}", kept) for i in range(8)))
    assert sorted(results) == [False] * 7 + [True]


async def test_a_deleted_account_leaves_one_event_and_nothing_else(storage: Storage, credentials: Credentials) -> None:
    token = token_hash()
    session_id = await storage.begin(credentials, token)
    after = await storage.last_number()
    results = await asyncio.gather(*(storage.accounts.delete_user(credentials) for _ in range(4)))
    assert sorted(results) == [False, False, False, True]
    assert await storage.events(after) == [(DELETED, credentials.user_id, None)]
    assert await storage.accounts.find_user(credentials.user_id) is None
    assert await storage.accounts.find_credentials(credentials.user_id) is None
    assert await storage.use(token) is None
    for table, column, value in (
        ("sessions", "user_id", credentials.user_id),
        ("login_networks", "user_id", credentials.user_id),
        ("refresh_tokens", "session_id", session_id),
    ):
        assert await storage.database.fetch(f"SELECT FROM auth.{table} WHERE {column} = $1", value) == []
