"""API tokens in real PostgreSQL: creation, listing and deletion, alone and concurrently with the end of sessions."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from auth_service.api_tokens.domain import MAX_API_TOKENS_PER_USER, NewApiToken
from auth_service.api_tokens.errors import ApiTokenNotFound, TooManyApiTokens
from auth_service.api_tokens.repository import REMOVALS, PostgresApiTokens
from auth_service.api_tokens.service import ApiTokenService
from auth_service.api_tokens.tokens import api_token_hash
from servicekit.access.revocations import EventKind
from servicekit.errors import TokenInvalid
from servicekit.identity import Identity
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Upkeep
from tests.auth_service.api_tokens.conftest import SCOPES, Create
from tests.auth_service.conftest import CLIENT, OTHER_PASSWORD, PASSWORD, Announcements, AuthService, Storage, column, identity_of, log_in, register

NEW = NewApiToken("A script", SCOPES, None)


async def test_a_new_token_is_as_its_user_chose_and_only_its_hash_is_stored(
    create: Create, database: Database, api_tokens: ApiTokenService, owner: Identity
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    token, text = await create("tasks:write", expires_at=at, name="später")
    assert (token.name, token.scopes, token.expires_at, token.last_used_at) == ("später", ("tasks:write",), at, None)
    assert abs(datetime.now(UTC) - token.created_at) < timedelta(seconds=10)
    assert list(await api_tokens.list(owner)) == [token]
    (row,) = await database.fetch("SELECT * FROM auth.api_tokens WHERE id = $1", token.id)
    assert row["token_hash"] == api_token_hash(text.encode())
    assert text not in str(dict(row))


async def test_without_an_expiry_it_lives_for_90_days_and_the_newest_comes_first(
    create: Create, api_tokens: ApiTokenService, owner: Identity
) -> None:
    first, second = [(await create())[0] for _ in range(2)]
    assert first.expires_at - first.created_at == timedelta(days=90)
    assert [token.id for token in await api_tokens.list(owner)] == [second.id, first.id]


async def test_there_are_at_most_50_also_of_many_at_once_and_expired_ones_do_not_count(
    create: Create, api_tokens: ApiTokenService, owner: Identity, database: Database
) -> None:
    results = await asyncio.gather(*(create() for _ in range(MAX_API_TOKENS_PER_USER + 5)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert {type(error) for error in refused} == {TooManyApiTokens}
    assert len(refused) == 5
    assert refused[0].metadata == {"limit": "50"}  # type: ignore[attr-defined]  # just checked
    (newest, *_) = await api_tokens.list(owner)
    await database.fetchrow("UPDATE auth.api_tokens SET expires_at = now() WHERE id = $1", newest.id)
    await create()
    with pytest.raises(TooManyApiTokens):
        await create()


async def test_a_deleted_token_is_an_event_and_told(
    create: Create, api_tokens: ApiTokenService, owner: Identity, storage: Storage, announcements: Announcements
) -> None:
    token, _ = await create()
    after = await storage.last_number()
    with capture_logs() as logs:
        await api_tokens.delete(owner, token.id, CLIENT)
    assert await storage.events(after) == [(EventKind.SESSION_REVOKED, owner.user_id, token.id)]
    assert announcements.count == 1
    assert [(line["security_event"], line["session_id"]) for line in logs] == [("api_token_deleted", str(token.id))]
    assert await api_tokens.list(owner) == []


async def test_no_other_token_can_be_deleted(
    create: Create, api_tokens: ApiTokenService, owner: Identity, storage: Storage, service: AuthService
) -> None:
    """Not a stranger's, not one that has expired, not one twice, and not a session."""
    token, _ = await create()
    expired, _ = await create()
    await storage.database.fetchrow("UPDATE auth.api_tokens SET expires_at = now() WHERE id = $1", expired.id)
    stranger = Identity(uuid7(), uuid7(), "jti", 0)
    after = await storage.last_number()
    for identity, token_id in ((stranger, token.id), (owner, expired.id), (owner, uuid7()), (owner, owner.session_id)):
        with pytest.raises(ApiTokenNotFound):
            await api_tokens.delete(identity, token_id, CLIENT)
    assert await storage.events(after) == []
    assert [each.id for each in await api_tokens.list(owner)] == [token.id]


@pytest.mark.parametrize("revoke", [False, True])
async def test_a_new_password_ends_api_tokens_only_if_told(
    *, revoke: bool, create: Create, api_tokens: ApiTokenService, owner: Identity, storage: Storage, service: AuthService
) -> None:
    ids = {(await create())[0].id for _ in range(2)}
    after = await storage.last_number()
    with capture_logs() as logs:
        await service.change_password(owner, current_password=PASSWORD, new_password=OTHER_PASSWORD, client=CLIENT, revoke_api_tokens=revoke)
    ended = {session for _, _, session in await storage.events(after)}
    assert ended == (ids if revoke else set())
    assert {token.id for token in await api_tokens.list(owner)} == (set() if revoke else ids)
    assert ("api_tokens_revoked" in [line["security_event"] for line in logs]) is revoke


async def test_the_deletion_of_the_account_deletes_them(create: Create, owner: Identity, service: AuthService, database: Database) -> None:
    _, text = await create()
    await service.delete_me(owner, PASSWORD, CLIENT)
    assert await column(database, "SELECT count(*) FROM auth.api_tokens WHERE user_id = $1", owner.user_id) == [0]
    assert await PostgresApiTokens(database).use_api_token(api_token_hash(text.encode())) is None


async def test_a_session_that_has_ended_gains_no_token(create: Create, owner: Identity, service: AuthService, storage: Storage) -> None:
    """Replicas accept its access token for up to 2 s more."""
    await service.revoke_session(owner, owner.session_id, CLIENT)
    with pytest.raises(TokenInvalid):
        await create()


async def test_a_session_that_has_expired_or_never_was_gains_none_either(
    create: Create, api_tokens: ApiTokenService, owner: Identity, storage: Storage
) -> None:
    await storage.expire(owner.session_id)
    for identity in (owner, Identity(owner.user_id, uuid7(), "jti", 0), Identity(uuid7(), owner.session_id, "jti", 0)):
        with pytest.raises(TokenInvalid):
            await api_tokens.create(identity, NEW, CLIENT)


async def test_of_a_creation_and_a_new_password_at_once_none_survives(api_tokens: ApiTokenService, service: AuthService, storage: Storage) -> None:
    """Whatever the order of the commits: a token that another session creates meanwhile is deleted, or never created."""
    for _ in range(10):
        user = await register(service)
        owner, thief = [identity_of(await log_in(service, user)) for _ in range(2)]
        change = service.change_password(owner, current_password=PASSWORD, new_password=OTHER_PASSWORD, client=CLIENT, revoke_api_tokens=True)
        await asyncio.gather(change, *(api_tokens.create(thief, NEW, CLIENT) for _ in range(4)), return_exceptions=True)
        assert await api_tokens.list(owner) == []


async def test_expired_tokens_are_removed(create: Create, database: Database) -> None:
    kept, _ = await create()
    gone, _ = await create()
    await database.fetchrow("UPDATE auth.api_tokens SET expires_at = now() - interval '1 second' WHERE id = $1", gone.id)
    await Upkeep(database, REMOVALS).round()
    assert await column(database, "SELECT id FROM auth.api_tokens WHERE id = ANY ($1)", [kept.id, gone.id]) == [kept.id]
