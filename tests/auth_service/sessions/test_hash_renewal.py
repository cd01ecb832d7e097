"""Hashes from before the cost was raised: a login renews them, and does not fail if the renewal fails."""

import pytest

from auth_service.keys.ring import KeyRing
from auth_service.sessions.errors import InvalidCredentials
from servicekit.errors import Overloaded
from servicekit.stores.postgres import Database
from tests.auth_service.conftest import OTHER_PASSWORD, Accounts, AllParts, identity_of, log_in, register, service_of


async def test_a_login_renews_a_hash_that_is_too_cheap_by_now(parts: AllParts, dearer: AllParts, ring: KeyRing, accounts: Accounts) -> None:
    user = await register(service_of(parts, ring))
    service = service_of(dearer, ring)
    with pytest.raises(InvalidCredentials):
        await log_in(service, user, OTHER_PASSWORD)
    before = await accounts.find_credentials(user.id)
    assert before is not None
    assert "$04$" in before.password_hash
    session = identity_of(await log_in(service, user))
    after = await accounts.find_credentials(user.id)
    assert after is not None
    assert "$05$" in after.password_hash
    # The password is the same, so no session ends. No later login changes the hash, not even one with the lower cost.
    assert after.password_version == before.password_version
    for each in (dearer, parts):
        await log_in(service_of(each, ring), user)
        assert await accounts.find_credentials(user.id) == after
    assert session.session_id in {details.id for details in await service.list_sessions(session)}


async def test_a_login_succeeds_when_there_is_no_time_to_renew_the_hash(
    parts: AllParts, dearer: AllParts, ring: KeyRing, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await register(service_of(parts, ring))

    async def overloaded(_: str) -> str:
        raise Overloaded

    monkeypatch.setattr(dearer.passwords, "hash", overloaded)
    await log_in(service_of(dearer, ring), user)
    found = await accounts.find_credentials(user.id)
    assert found is not None
    assert "$04$" in found.password_hash


async def test_a_login_does_not_fail_by_a_hash_that_cannot_be_renewed(parts: AllParts, dearer: AllParts, ring: KeyRing, database: Database) -> None:
    user = await register(service_of(parts, ring))
    await database.fetchrow(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'away' USING ERRCODE = 'admin_shutdown'; END $$"
    )
    await database.fetchrow(f"CREATE TRIGGER away BEFORE UPDATE ON auth.users FOR EACH ROW WHEN (OLD.id = '{user.id}') EXECUTE FUNCTION away()")
    service = service_of(dearer, ring)
    pair = await log_in(service, user)
    assert [session.id for session in await service.list_sessions(identity_of(pair))] == [identity_of(pair).session_id]
