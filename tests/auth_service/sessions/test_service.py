"""The use cases of sessions, on real storage, and what they have in common with those of accounts."""

import asyncio
import time
from dataclasses import replace
from uuid import uuid4

import jwt
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from auth_service.keys.domain import KeyPolicy
from auth_service.keys.errors import NoSigningKey
from auth_service.keys.ring import KeyRing
from auth_service.keys.seal import KeySeal
from auth_service.security_log import SecurityLog
from auth_service.sessions.domain import REFRESH_GRACE_SECONDS, Rotated
from auth_service.sessions.errors import InvalidCredentials, RefreshTokenInvalid, SessionNotFound
from auth_service.sessions.tokens import refresh_token_hash
from auth_service.users.domain import User
from auth_service.users.errors import WrongPassword
from auth_service.users.service import UserService
from servicekit.access.revocations import Revocations
from servicekit.access.tokens import REQUIRED_CLAIMS, TokenVerifier
from servicekit.stores.postgres import Database
from tests.auth_service.conftest import (
    AUDIENCE,
    CLIENT,
    ISSUER,
    LIFETIME,
    OTHER_PASSWORD,
    PASSWORD,
    Accounts,
    AllParts,
    Announcements,
    AuthService,
    change,
    claims_of,
    identity_of,
    log_in,
    register,
    service_of,
)


async def _pass_the_grace(database: Database, user: User) -> None:
    sql = "UPDATE auth.refresh_tokens SET used_at = used_at - make_interval(secs => $2) FROM auth.sessions WHERE session_id = id AND user_id = $1"
    await database.fetchrow(sql, user.id, REFRESH_GRACE_SECONDS)


async def test_a_registered_user_logs_in_and_is_shown(service: AuthService, users: UserService) -> None:
    user = await register(service)
    pair = await service.login(email=user.email.upper(), password=PASSWORD, client=CLIENT)
    assert pair.expires_in == 60
    assert await users.get_me(identity_of(pair)) == user


async def test_a_password_logs_in_however_it_is_typed(service: AuthService) -> None:
    user = await register(service, password="e\N{COMBINING ACUTE ACCENT}a horse e\N{COMBINING ACUTE ACCENT}")
    await log_in(service, user, "\N{LATIN SMALL LETTER E WITH ACUTE}a horse \N{LATIN SMALL LETTER E WITH ACUTE}")


async def test_wrong_password_and_unknown_user_are_the_same_answer(service: AuthService) -> None:
    user = await register(service)
    with pytest.raises(InvalidCredentials) as wrong:
        await log_in(service, user, "wrong horse battery")
    with pytest.raises(InvalidCredentials) as unknown:
        await service.login(email="nobody@example.com", password=PASSWORD, client=CLIENT)
    assert str(wrong.value) == str(unknown.value)


async def test_an_access_token_says_what_it_must(service: AuthService, ring: KeyRing, accounts: Accounts) -> None:
    user = await register(service)
    pair = await log_in(service, user)
    assert jwt.get_unverified_header(pair.access_token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": ring.current()[0]}
    claims = jwt.decode(pair.access_token, options={"verify_signature": False})
    assert set(claims) == set(REQUIRED_CLAIMS)
    assert claims["exp"] - claims["iat"] == 60
    assert abs(claims["iat"] - time.time()) < 5
    revocations = Revocations(accounts, CollectorRegistry())
    await revocations.refresh()
    identity = await TokenVerifier(ring, revocations, issuer=ISSUER, audience=AUDIENCE).verify(pair.access_token)
    assert (identity.user_id, identity.expires_at) == (user.id, claims["exp"])


async def test_an_access_token_does_not_outlive_its_session(service: AuthService) -> None:
    user = await register(service)
    short = AuthService(service._parts, service._access_tokens, replace(LIFETIME, absolute_seconds=20))
    pair = await log_in(short, user)
    assert 15 < pair.expires_in <= 20
    assert 15 < (await short.refresh_token(pair.refresh_token, CLIENT)).expires_in <= 20


async def test_a_refresh_carries_the_session_on(service: AuthService) -> None:
    first = await log_in(service, await register(service))
    second = await service.refresh_token(first.refresh_token, CLIENT)
    assert second.refresh_token != first.refresh_token
    assert identity_of(second).session_id == identity_of(first).session_id
    assert claims_of(second)["jti"] != claims_of(first)["jti"]
    await service.refresh_token(second.refresh_token, CLIENT)


async def test_of_many_refreshes_at_once_all_get_the_same_successor(service: AuthService) -> None:
    pair = await log_in(service, await register(service))
    pairs = await asyncio.gather(*(service.refresh_token(pair.refresh_token, CLIENT) for _ in range(8)))
    assert len({each.refresh_token for each in pairs}) == 1
    await service.refresh_token(pairs[0].refresh_token, CLIENT)


async def test_a_refresh_token_sent_again_later_ends_the_session(service: AuthService, database: Database, announcements: Announcements) -> None:
    user = await register(service)
    pair, other = [await log_in(service, user) for _ in range(2)]
    successor = await service.refresh_token(pair.refresh_token, CLIENT)
    await _pass_the_grace(database, user)
    before = announcements.count
    with capture_logs() as logs, pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(pair.refresh_token, CLIENT)
    assert announcements.count == before + 1
    (line,) = logs
    assert (line["security_event"], line["log_level"], line["user_id"]) == ("refresh_token_reused", "warning", str(user.id))
    for token, events in ((pair.refresh_token, ["refresh_token_reused"]), (successor.refresh_token, []), ("never was one", [])):
        with capture_logs() as logs, pytest.raises(RefreshTokenInvalid):
            await service.refresh_token(token, CLIENT)
        assert [line["security_event"] for line in logs] == events
    assert announcements.count == before + 1
    await service.refresh_token(other.refresh_token, CLIENT)


@pytest.mark.parametrize("over", ["logged out", "expired"])
async def test_a_reuse_is_logged_and_counted_also_when_the_session_is_over(parts: AllParts, ring: KeyRing, database: Database, over: str) -> None:
    registry = CollectorRegistry()
    service = service_of(replace(parts, security_log=SecurityLog(registry)), ring)
    user = await register(service)
    pair = await log_in(service, user)
    unused = await service.refresh_token(pair.refresh_token, CLIENT)
    if over == "expired":
        await database.fetchrow("UPDATE auth.sessions SET expires_at = now() WHERE user_id = $1", user.id)
    else:
        await service.logout(pair.refresh_token, CLIENT)

    async def logged(token: str) -> list[object]:
        with capture_logs() as logs, pytest.raises(RefreshTokenInvalid):
            await service.refresh_token(token, CLIENT)
        return [(line["security_event"], line["user_id"], line["session_id"]) for line in logs]

    # Within the grace, the client may have lost the answer and cannot know that the session has ended, so this is no reuse.
    assert await logged(pair.refresh_token) == []
    await _pass_the_grace(database, user)
    for _ in range(2):
        assert await logged(pair.refresh_token) == [("refresh_token_reused", str(user.id), str(identity_of(pair).session_id))]
    assert await logged(unused.refresh_token) == []
    assert registry.get_sample_value("auth_security_events_total", {"event": "refresh_token_reused"}) == 2


async def test_logout_ends_the_session_by_any_of_its_tokens_and_no_other(service: AuthService, announcements: Announcements) -> None:
    user = await register(service)
    ended, other = [await log_in(service, user) for _ in range(2)]
    successor = await service.refresh_token(ended.refresh_token, CLIENT)
    before = announcements.count
    await service.logout(ended.refresh_token, CLIENT)
    await service.logout(ended.refresh_token, CLIENT)
    await service.logout("never was one", CLIENT)
    assert announcements.count == before + 1
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(successor.refresh_token, CLIENT)
    await service.refresh_token(other.refresh_token, CLIENT)


async def test_an_expired_session_is_not_carried_on(service: AuthService, database: Database) -> None:
    user = await register(service)
    pair = await log_in(service, user)
    await database.fetchrow("UPDATE auth.sessions SET expires_at = now() WHERE user_id = $1", user.id)
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(pair.refresh_token, CLIENT)


async def test_sessions_are_shown_and_revoked_by_their_user_alone(service: AuthService, announcements: Announcements) -> None:
    user, stranger = [await register(service) for _ in range(2)]
    one, two = [identity_of(await log_in(service, user)) for _ in range(2)]
    theirs = identity_of(await log_in(service, stranger))
    assert [session.id for session in await service.list_sessions(one)] == [two.session_id, one.session_id]
    before = announcements.count
    for session_id in (theirs.session_id, uuid4()):
        with pytest.raises(SessionNotFound):
            await service.revoke_session(one, session_id, CLIENT)
    assert announcements.count == before
    await service.revoke_session(one, two.session_id, CLIENT)
    assert announcements.count == before + 1
    with pytest.raises(SessionNotFound):
        await service.revoke_session(one, two.session_id, CLIENT)
    assert [session.id for session in await service.list_sessions(one)] == [one.session_id]
    assert len(await service.list_sessions(theirs)) == 1


# --- changed passwords


async def test_no_login_by_the_old_password_outlives_the_change(service: AuthService, dearer: AllParts, ring: KeyRing) -> None:
    """The login comes before, during or after the change, and may also renew the hash of the old password."""
    late = service_of(dearer, ring)
    for i in range(12):
        user = await register(service)
        identity = identity_of(await log_in(service, user))
        which = service if i % 2 else late

        async def login(after: float, user: User = user, which: AuthService = which) -> None:
            await asyncio.sleep(after)
            await log_in(which, user)

        logins = [asyncio.create_task(login(delay / 1000)) for delay in range(0, 12, 2)]
        await change(service, identity)
        done = await asyncio.gather(*logins, return_exceptions=True)
        assert all(result is None or isinstance(result, InvalidCredentials) for result in done), done
        assert [session.id for session in await service.list_sessions(identity)] == [identity.session_id]
        with pytest.raises(InvalidCredentials):
            await log_in(service, user)
        await log_in(service, user, OTHER_PASSWORD)


# --- what is stored and what is logged


async def test_the_database_holds_no_password_and_no_token(service: AuthService, database: Database) -> None:
    user = await register(service)
    first = await log_in(service, user)
    pair = await service.refresh_token(first.refresh_token, CLIENT)
    tables = ("users", "sessions", "refresh_tokens", "login_networks", "events", "signing_keys")
    rows = [row for table in tables for row in await database.fetch(f"SELECT t::text FROM auth.{table} t")]
    text = "\n".join(row[0] for row in rows)
    assert str(user.id) in text
    for secret in (PASSWORD, pair.access_token, first.refresh_token, pair.refresh_token):
        assert secret not in text
        assert secret.encode().hex() not in text


async def test_the_security_log_tells_what_happened_and_no_secret(service: AuthService, users: UserService) -> None:
    with capture_logs() as logs:
        user = await register(service)
        pair = await log_in(service, user)
        with pytest.raises(InvalidCredentials):
            await log_in(service, user, "wrong horse battery")
        await service.logout((await log_in(service, user)).refresh_token, CLIENT)
        identity = identity_of(pair)
        with pytest.raises(WrongPassword):
            await change(service, identity, current="wrong horse battery")
        await change(service, identity)
        await service.revoke_session(identity, identity_of(await log_in(service, user, OTHER_PASSWORD)).session_id, CLIENT)
        await users.delete_me(identity, OTHER_PASSWORD, CLIENT)
    assert [line["security_event"] for line in logs] == [
        "account_created",
        "login_succeeded",
        "login_failed",
        "login_succeeded",
        "logged_out",
        "wrong_password",
        "password_changed",
        "login_succeeded",
        "session_revoked",
        "account_deleted",
    ]
    assert all((line["address"], line["request_id"]) == (CLIENT.address, CLIENT.request_id) for line in logs)
    # A failed login logs no user, because the account may be another user's or may not exist.
    assert ["user_id" in line for line in logs] == [line["security_event"] != "login_failed" for line in logs]
    assert not any(secret in str(logs) for secret in (PASSWORD, OTHER_PASSWORD, user.email, pair.access_token, pair.refresh_token))


async def test_without_a_key_to_sign_with_nothing_is_used_up(service: AuthService, parts: AllParts) -> None:
    user = await register(service)
    pair = await log_in(service, user)
    keyless = service_of(parts, KeyRing(KeySeal([bytes(32)]), KeyPolicy(rotation_seconds=2, lead_seconds=1, token_seconds=1)))
    with pytest.raises(NoSigningKey):
        await keyless.refresh_token(pair.refresh_token, CLIENT)
    with pytest.raises(NoSigningKey):
        await log_in(keyless, user)
    assert len(await service.list_sessions(identity_of(pair))) == 1
    assert (await parts.repository.use_refresh_token(refresh_token_hash(pair.refresh_token), b"new", b"sealed", 60)).__class__ is Rotated
