"""The use cases of accounts and sessions, on real storage."""

import asyncio
import time
from uuid import uuid4

import jwt
import pytest

from auth_service.domain import User
from auth_service.errors import EmailTaken, InvalidCredentials, RefreshTokenInvalid, UserNotFound
from auth_service.keys import SigningKeys
from auth_service.service import AuthService
from servicekit.errors import InvalidField
from servicekit.postgres import Database
from servicekit.tokens import REQUIRED_CLAIMS, TokenVerifier
from tests.auth_service.conftest import AUDIENCE, ISSUER

PASSWORD = "correct horse battery"


async def _register(service: AuthService, email: str | None = None, password: str = PASSWORD) -> User:
    return await service.register(email=email or f"{uuid4().hex}@example.com", password=password, name="Ada")


async def test_a_registered_user_logs_in_and_is_shown(service: AuthService) -> None:
    user = await _register(service)
    pair = await service.login(email=user.email.upper(), password=PASSWORD)
    assert pair.expires_in == 60
    assert await service.get_me(user.id) == user


async def test_an_email_is_taken_in_any_case_also_by_one_of_many_at_once(service: AuthService) -> None:
    email = f"{uuid4().hex}@example.com"
    results = await asyncio.gather(*(_register(service, variant) for variant in (email, email.upper(), email.title())), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["EmailTaken", "EmailTaken", "User"]
    with pytest.raises(EmailTaken):
        await _register(service, email)


@pytest.mark.parametrize("password", ["1234567", "x" * 129, "e\N{COMBINING ACUTE ACCENT}" * 7])
async def test_a_password_of_wrong_length_is_refused_with_the_bound(service: AuthService, password: str) -> None:
    with pytest.raises(InvalidField, match="8 to 128") as caught:
        await _register(service, password=password)
    assert caught.value.violations[0].field == "password"


@pytest.mark.parametrize("password", ["12345678", "x" * 128, "e\N{COMBINING ACUTE ACCENT}" * 128, "\N{GRINNING FACE}" * 8])
async def test_a_password_at_the_bound_counted_after_nfc_is_taken(service: AuthService, password: str) -> None:
    user = await _register(service, password=password)
    await service.login(email=user.email, password=password)


async def test_wrong_password_and_unknown_user_are_the_same_answer(service: AuthService) -> None:
    user = await _register(service)
    with pytest.raises(InvalidCredentials) as wrong:
        await service.login(email=user.email, password="wrong horse battery")
    with pytest.raises(InvalidCredentials) as unknown:
        await service.login(email="nobody@example.com", password=PASSWORD)
    assert str(wrong.value) == str(unknown.value)


async def test_an_access_token_says_what_it_must(service: AuthService, signing_keys: SigningKeys) -> None:
    user = await _register(service)
    token = (await service.login(email=user.email, password=PASSWORD)).access_token
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": signing_keys.current_id}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == set(REQUIRED_CLAIMS)
    assert claims["exp"] - claims["iat"] == 60
    assert abs(claims["iat"] - time.time()) < 5
    identity = await TokenVerifier(signing_keys, issuer=ISSUER, audience=AUDIENCE).verify(token)
    assert (identity.user_id, identity.expires_at) == (user.id, claims["exp"])


async def test_a_refresh_token_is_good_once_and_carries_the_session_on(service: AuthService) -> None:
    user = await _register(service)
    first = await service.login(email=user.email, password=PASSWORD)
    second = await service.refresh_token(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    sessions = [jwt.decode(pair.access_token, options={"verify_signature": False})["sid"] for pair in (first, second)]
    assert sessions[0] == sessions[1]
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(first.refresh_token)
    await service.refresh_token(second.refresh_token)


async def test_of_many_refreshes_at_once_one_wins(service: AuthService) -> None:
    user = await _register(service)
    pair = await service.login(email=user.email, password=PASSWORD)
    results = await asyncio.gather(*(service.refresh_token(pair.refresh_token) for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, RefreshTokenInvalid) for result in results if isinstance(result, BaseException))


async def test_logout_ends_the_session_by_any_of_its_tokens_and_no_other(service: AuthService) -> None:
    user = await _register(service)
    ended, other = [await service.login(email=user.email, password=PASSWORD) for _ in range(2)]
    successor = await service.refresh_token(ended.refresh_token)
    await service.logout(ended.refresh_token)
    await service.logout(ended.refresh_token)
    await service.logout("never was one")
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(successor.refresh_token)
    await service.refresh_token(other.refresh_token)


async def test_an_expired_refresh_token_is_refused(service: AuthService, database: Database) -> None:
    user = await _register(service)
    pair = await service.login(email=user.email, password=PASSWORD)
    await database.fetchrow(
        "UPDATE auth.refresh_tokens SET expires_at = now() WHERE session_id IN (SELECT id FROM auth.sessions WHERE user_id = $1)", user.id
    )
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(pair.refresh_token)


async def test_who_is_no_more_is_not_found(service: AuthService) -> None:
    with pytest.raises(UserNotFound):
        await service.get_me(uuid4())


async def test_the_database_holds_no_password_and_no_token(service: AuthService, database: Database) -> None:
    user = await _register(service)
    pair = await service.login(email=user.email, password=PASSWORD)
    pair = await service.refresh_token(pair.refresh_token)
    rows = [row for table in ("users", "sessions", "refresh_tokens") for row in await database.fetch(f"SELECT t::text FROM auth.{table} t")]
    text = "\n".join(row[0] for row in rows)
    assert str(user.id) in text
    for secret in (PASSWORD, pair.access_token, pair.refresh_token, pair.refresh_token.encode().hex()):
        assert secret not in text
