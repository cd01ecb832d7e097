"""The use cases of accounts, on real storage: registration, names, changes of the password, deletion, and the limits of failed confirmations."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from auth_service.keys.ring import KeyRing
from auth_service.passwords.errors import TooManyAttempts
from auth_service.passwords.login_guard import LoginGuard, LoginLimits
from auth_service.sessions.errors import InvalidCredentials, RefreshTokenInvalid
from auth_service.users.errors import EmailTaken, UserNotFound, WrongPassword
from auth_service.users.service import UserService
from servicekit.access.rate_limit import Limit, RateLimiter
from servicekit.errors import InvalidField
from tests.auth_service.conftest import (
    CLIENT,
    OTHER_PASSWORD,
    PASSWORD,
    PLENTY,
    AllParts,
    Announcements,
    AuthService,
    change,
    identity_of,
    log_in,
    register,
    service_of,
)


async def test_an_email_is_taken_in_any_case_also_by_one_of_many_at_once(service: AuthService) -> None:
    email = f"{uuid4().hex}@example.com"
    results = await asyncio.gather(*(register(service, variant) for variant in (email, email.upper(), email.title())), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["EmailTaken", "EmailTaken", "User"]
    with pytest.raises(EmailTaken):
        await register(service, email)


@pytest.mark.parametrize("password", ["1234567", "x" * 129, "password"])
async def test_a_password_that_is_not_good_is_refused_for_its_field(service: AuthService, password: str) -> None:
    with pytest.raises(InvalidField) as caught:
        await register(service, password=password)
    assert caught.value.violations[0].field == "password"
    user = await register(service)
    with pytest.raises(InvalidField) as caught:
        await change(service, identity_of(await log_in(service, user)), new=password)
    assert caught.value.violations[0].field == "new_password"


async def test_a_password_that_is_the_users_own_name_is_refused_when_it_is_changed(service: AuthService) -> None:
    user = await register(service)
    with pytest.raises(InvalidField, match="email or your name"):
        await change(service, identity_of(await log_in(service, user)), new=user.email.upper())


async def test_a_changed_password_is_the_only_one_and_ends_the_other_sessions(service: AuthService, announcements: Announcements) -> None:
    user = await register(service)
    kept, other = [await log_in(service, user) for _ in range(2)]
    before = announcements.count
    with pytest.raises(WrongPassword):
        await change(service, identity_of(kept), current=OTHER_PASSWORD)
    assert announcements.count == before
    await change(service, identity_of(kept))
    assert announcements.count == before + 1
    with pytest.raises(InvalidCredentials):
        await log_in(service, user)
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(other.refresh_token, CLIENT)
    await service.refresh_token(kept.refresh_token, CLIENT)
    await log_in(service, user, OTHER_PASSWORD)


async def test_of_two_changes_at_once_one_is_made_and_the_other_told(service: AuthService) -> None:
    user = await register(service)
    identity = identity_of(await log_in(service, user))
    passwords = [f"horse battery number {i}" for i in range(4)]
    results = await asyncio.gather(*(change(service, identity, new=password) for password in passwords), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "WrongPassword", "WrongPassword", "WrongPassword"]
    await log_in(service, user, passwords[results.index(None)])


async def test_a_deleted_account_is_gone_and_its_email_free(service: AuthService, users: UserService, announcements: Announcements) -> None:
    user = await register(service)
    pair = await log_in(service, user)
    identity, before = identity_of(pair), announcements.count
    with pytest.raises(WrongPassword):
        await users.delete_me(identity, OTHER_PASSWORD, CLIENT)
    assert announcements.count == before
    await users.delete_me(identity, PASSWORD, CLIENT)
    assert announcements.count == before + 1
    with pytest.raises(InvalidCredentials):
        await log_in(service, user)
    with pytest.raises(RefreshTokenInvalid):
        await service.refresh_token(pair.refresh_token, CLIENT)
    for call in (users.get_me(identity), users.update_me(identity, "Eve"), users.delete_me(identity, PASSWORD, CLIENT), change(service, identity)):
        with pytest.raises(UserNotFound):
            await call
    assert (await register(service, user.email)).id != user.id


async def test_a_name_is_changed_and_nothing_else(service: AuthService, users: UserService) -> None:
    user = await register(service)
    identity = identity_of(await log_in(service, user))
    assert await users.update_me(identity, None) == user
    assert await users.update_me(identity, user.name) == user
    renamed = await users.update_me(identity, "Grace")
    assert renamed == replace(user, name="Grace", updated_at=renamed.updated_at)
    assert renamed.updated_at > user.updated_at
    assert await users.get_me(identity) == renamed


async def test_failed_confirmations_are_limited(parts: AllParts, ring: KeyRing, limiter: RateLimiter) -> None:
    limits = LoginLimits(per_account=Limit(burst=2, interval_seconds=600), per_address=PLENTY, registrations=PLENTY)
    limited = replace(parts, guard=LoginGuard(limiter, limits))
    service, users = service_of(limited, ring), UserService(limited.repository, limited)
    identity = identity_of(await log_in(service, await register(service)))
    with pytest.raises(WrongPassword):
        await change(service, identity, current="a guess")
    with pytest.raises(WrongPassword):
        await users.delete_me(identity, "a guess", CLIENT)
    with pytest.raises(TooManyAttempts):
        await users.delete_me(identity, PASSWORD, CLIENT)
    with pytest.raises(TooManyAttempts):
        await change(service, identity)
    assert await users.get_me(identity)
