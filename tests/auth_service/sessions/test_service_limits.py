"""The limits of failed logins, as the use case applies them."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from auth_service.keys.ring import KeyRing
from auth_service.passwords.errors import TooManyAttempts
from auth_service.passwords.login_guard import LoginGuard, LoginLimits
from auth_service.sessions.errors import InvalidCredentials
from servicekit.access.rate_limit import Limit, RateLimiter
from tests.auth_service.conftest import CLIENT, PASSWORD, PLENTY, AllParts, log_in, register, service_of


async def test_failed_logins_are_limited_and_the_owners_address_is_apart(parts: AllParts, ring: KeyRing, limiter: RateLimiter) -> None:
    limits = LoginLimits(per_account=Limit(burst=3, interval_seconds=600), per_address=PLENTY, registrations=PLENTY)
    service = service_of(replace(parts, guard=LoginGuard(limiter, limits)), ring)
    user = await register(service)
    for _ in range(5):
        await log_in(service, user)
    stranger = replace(CLIENT, address="198.51.100.1")
    for _ in range(3):
        with pytest.raises(InvalidCredentials):
            await service.login(email=user.email, password="a guess", client=stranger)
    with capture_logs() as logs, pytest.raises(TooManyAttempts) as limited:
        await service.login(email=user.email.upper(), password=PASSWORD, client=stranger)
    assert 500 < limited.value.retry_after_seconds <= 600
    assert [line["security_event"] for line in logs] == ["attempts_limited"]
    await log_in(service, user)
