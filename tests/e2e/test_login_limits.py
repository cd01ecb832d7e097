"""Limits against password guessing: failed attempts are limited per account and per client address, and strangers cannot lock the owner out.

With TRUSTED_HOPS=1 the gateway takes the last address in x-forwarded-for, which a trusted proxy writes. Here the test is that proxy and so chooses
the client addresses.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import httpx
import pytest
import redis.asyncio

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.support.accounts import PASSWORD, log_in_rpc
from tests.support.clients import channel_of
from tests.support.errors import of_response, of_rpc, retry_delay
from tests.support.observed import log_lines, metric
from tests.support.outage import WHOLE_WITHIN_SECONDS, heal
from tests.support.waiting import eventually

OWN_SYSTEM = pytest.mark.slow("the module starts a system with limits of its own")

# Each test makes its failed attempts within the interval, also on a loaded machine.
ACCOUNT_BURST, ACCOUNT_INTERVAL_SECONDS = 3, 5
# The interval is so long that no attempt is added during a test.
ADDRESS_BURST, ADDRESS_INTERVAL_SECONDS = 6, 600
REGISTRATIONS_BURST, REGISTRATIONS_INTERVAL_SECONDS = 8, 900
# Added to a delay, because clocks differ by milliseconds.
MARGIN_SECONDS = 0.05
# The replica writes log lines in batches.
LOGGED_WITHIN_SECONDS = 10.0
ENVIRONMENT = {
    "BCRYPT_COST": "4",
    "LOG_LEVEL": "INFO",
    "TRUSTED_HOPS": "1",
    "LOGIN_ACCOUNT_BURST": str(ACCOUNT_BURST),
    "LOGIN_ACCOUNT_INTERVAL_SECONDS": str(ACCOUNT_INTERVAL_SECONDS),
    "LOGIN_ADDRESS_BURST": str(ADDRESS_BURST),
    "LOGIN_ADDRESS_INTERVAL_SECONDS": str(ADDRESS_INTERVAL_SECONDS),
    "REGISTER_ADDRESS_BURST": str(REGISTRATIONS_BURST),
    "REGISTER_ADDRESS_INTERVAL_SECONDS": str(REGISTRATIONS_INTERVAL_SECONDS),
}
WRONG = "wrong horse battery"
UNAUTHENTICATED, EXHAUSTED = grpc.StatusCode.UNAUTHENTICATED.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]

_ADDRESSES = (f"198.51.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig(environment=ENVIRONMENT)) as stack:
        yield stack


@pytest.fixture
async def without_valkey(stack: Stack) -> AsyncIterator[None]:
    await stack.kill("valkey")
    yield
    await _heal(stack)


@pytest.fixture
def address() -> str:
    """A new client address."""
    return next(_ADDRESSES)


@pytest.fixture
async def email(client: httpx.AsyncClient) -> str:
    """The email of an account without a login so far."""
    return await _register(client, next(_ADDRESSES))


@OWN_SYSTEM
async def test_wrong_passwords_are_limited_and_the_answer_says_for_how_long(
    stack: Stack, client: httpx.AsyncClient, address: str, email: str
) -> None:
    for _ in range(ACCOUNT_BURST):
        assert _reason(await _login(client, email, address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    limited = await _login(client, email, address, WRONG)
    assert limited.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert _reason(limited) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    delay = _delay(limited)
    assert 0 < delay <= ACCOUNT_INTERVAL_SECONDS
    assert delay <= int(limited.headers["retry-after"]) < delay + 1
    # The right password is rejected, too. Otherwise guessing could continue.
    assert _reason(await _login(client, email, address)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async with channel_of(stack) as channel:
            await log_in_rpc(channel, email, PASSWORD, ("x-forwarded-for", next(_ADDRESSES)))
    assert (of_rpc(failed.value).code, of_rpc(failed.value).reason) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert 0 < retry_delay(failed.value) <= ACCOUNT_INTERVAL_SECONDS

    async def logged() -> None:
        lines = [line for line in log_lines(stack, "auth-1") if line.get("security_event") == "attempts_limited" and line["address"] == address]
        assert {line["level"] for line in lines} == {"warning"}

    await eventually(logged, within=LOGGED_WITHIN_SECONDS)
    assert not any(email in str(line) for line in log_lines(stack, "auth-1"))


@OWN_SYSTEM
async def test_after_the_interval_there_is_another_attempt_and_only_one(client: httpx.AsyncClient, address: str, email: str) -> None:
    for _ in range(ACCOUNT_BURST):
        await _login(client, email, address, WRONG)
    await asyncio.sleep(_delay(await _login(client, email, address, WRONG)) + MARGIN_SECONDS)
    # From another address, because a limited attempt still counts for its address.
    assert _reason(await _login(client, email, next(_ADDRESSES), WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    limited = await _login(client, email, next(_ADDRESSES), WRONG)
    assert _reason(limited) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    await asyncio.sleep(_delay(limited) + MARGIN_SECONDS)
    assert (await _login(client, email, next(_ADDRESSES))).status_code == httpx.codes.OK


@OWN_SYSTEM
async def test_strangers_do_not_lock_the_owner_out_of_an_address_that_is_known(client: httpx.AsyncClient, address: str, email: str) -> None:
    assert (await _login(client, email, address)).status_code == httpx.codes.OK
    for _ in range(ACCOUNT_BURST):
        assert _reason(await _login(client, email, next(_ADDRESSES), WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    assert _reason(await _login(client, email, next(_ADDRESSES), WRONG)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    # From a new address the owner counts as a stranger.
    assert _reason(await _login(client, email, next(_ADDRESSES))) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    # From the known address the owner has a separate limit: a wrong password is allowed, and too many are limited.
    assert _reason(await _login(client, email, address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    assert (await _login(client, email, address)).status_code == httpx.codes.OK
    for _ in range(ACCOUNT_BURST - 1):
        assert _reason(await _login(client, email, address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    assert _reason(await _login(client, email, address, WRONG)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")


@OWN_SYSTEM
async def test_an_email_without_an_account_is_answered_as_one_that_has_one(client: httpx.AsyncClient, email: str) -> None:
    async def answers(email: str) -> list[tuple[int, Any, str]]:
        address, found = next(_ADDRESSES), []
        for _ in range(ACCOUNT_BURST + 1):
            answer = await _login(client, email, address, WRONG)
            body = {**answer.json(), "details": [detail for detail in answer.json()["details"] if "retry_delay" not in detail]}
            found.append((answer.status_code, body, ",".join(sorted(answer.headers))))
        return found

    known, unknown = await answers(email), await answers(f"nobody-{next(_NUMBERS)}@example.com")
    assert known == unknown
    assert [status for status, _, _ in known] == [httpx.codes.UNAUTHORIZED] * ACCOUNT_BURST + [httpx.codes.TOO_MANY_REQUESTS]


@OWN_SYSTEM
async def test_an_email_is_one_account_in_any_case_of_letters(client: httpx.AsyncClient, address: str, email: str) -> None:
    for form in (email, email.upper(), email.title()):
        assert _reason(await _login(client, form, address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    assert _reason(await _login(client, email.swapcase(), address, WRONG)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")


@OWN_SYSTEM
async def test_an_address_is_limited_over_all_accounts(client: httpx.AsyncClient, address: str, email: str) -> None:
    for _ in range(ADDRESS_BURST):
        assert _reason(await _login(client, f"nobody-{next(_NUMBERS)}@example.com", address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    assert _reason(await _login(client, f"nobody-{next(_NUMBERS)}@example.com", address, WRONG)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert _reason(await _login(client, email, address)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    # An address before the last one comes from the client and has no effect.
    assert _reason(await _login(client, email, f"{next(_ADDRESSES)}, {address}")) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert (await _login(client, email, next(_ADDRESSES))).status_code == httpx.codes.OK


@OWN_SYSTEM
async def test_asking_which_emails_are_taken_is_limited_as_well(client: httpx.AsyncClient, address: str, email: str) -> None:
    for _ in range(ADDRESS_BURST):
        assert (await _try_to_register(client, email, address)).status_code == httpx.codes.CONFLICT
    limited = await _try_to_register(client, email, address)
    assert (limited.status_code, of_response(limited).reason) == (httpx.codes.TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS")


@OWN_SYSTEM
async def test_registrations_have_a_limit_of_their_own(stack: Stack, client: httpx.AsyncClient, address: str) -> None:
    """Registrations use up no failed attempts, and the limit of failed attempts is smaller here."""
    emails = [await _register(client, address) for _ in range(REGISTRATIONS_BURST)]
    limited = await _try_to_register(client, f"limited-{next(_NUMBERS)}@example.com", address)
    assert (limited.status_code, _reason(limited)) == (httpx.codes.TOO_MANY_REQUESTS, (EXHAUSTED, "TOO_MANY_REGISTRATIONS"))
    assert ADDRESS_INTERVAL_SECONDS < _delay(limited) <= REGISTRATIONS_INTERVAL_SECONDS
    assert "registered" in of_response(limited).message
    for email in emails:
        assert (await _login(client, email, address)).status_code == httpx.codes.OK
    for _ in range(ADDRESS_BURST):
        assert _reason(await _login(client, f"nobody-{next(_NUMBERS)}@example.com", address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
    await _register(client, next(_ADDRESSES))

    async def logged() -> None:
        assert any(
            line.get("security_event") == "registrations_limited" and line["address"] == address and line["level"] == "warning"
            for line in log_lines(stack, "auth-1")
        )

    await eventually(logged, within=LOGGED_WITHIN_SECONDS)


@OWN_SYSTEM
async def test_logins_at_once_are_told_to_wait_shortly_and_use_up_nothing(client: httpx.AsyncClient, address: str, email: str) -> None:
    """More logins than the account allows wrong passwords, all with the right one: from a new address, and then from the known one."""
    for _ in range(2):
        answers = await asyncio.gather(*(_login(client, email, address) for _ in range(10 * ACCOUNT_BURST)))
        succeeded = [answer for answer in answers if answer.status_code == httpx.codes.OK]
        assert len(succeeded) >= ACCOUNT_BURST
        for answer in answers:
            if answer not in succeeded:
                assert (_reason(answer), _delay(answer)) == ((EXHAUSTED, "OVERLOADED"), 1)
        # The next ones are not limited.
        assert (await _login(client, email, address)).status_code == httpx.codes.OK
    for _ in range(ACCOUNT_BURST):
        assert _reason(await _login(client, email, next(_ADDRESSES), WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")


@OWN_SYSTEM
async def test_first_logins_of_many_users_behind_one_address(client: httpx.AsyncClient, address: str) -> None:
    emails = [await _register(client, next(_ADDRESSES)) for _ in range(3 * ADDRESS_BURST)]
    waiting = emails
    for _ in range(len(emails)):
        answers = await asyncio.gather(*(_login(client, email, address) for email in waiting))
        assert {_reason(answer) for answer in answers if answer.status_code != httpx.codes.OK} <= {(EXHAUSTED, "OVERLOADED")}
        waiting = [email for email, answer in zip(waiting, answers, strict=True) if answer.status_code != httpx.codes.OK]
        if not waiting:
            break
    assert not waiting


@OWN_SYSTEM
async def test_wrong_passwords_at_once_are_limited_too(client: httpx.AsyncClient, address: str, email: str) -> None:
    answers = await asyncio.gather(*(_login(client, email, address, WRONG) for _ in range(10 * ACCOUNT_BURST)))
    reasons = Counter(_reason(answer)[1] for answer in answers)
    assert reasons["INVALID_CREDENTIALS"] == ACCOUNT_BURST
    assert reasons.keys() <= {"INVALID_CREDENTIALS", "OVERLOADED", "TOO_MANY_ATTEMPTS"}
    assert _reason(await _login(client, email, next(_ADDRESSES))) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")


@OWN_SYSTEM
async def test_confirmations_at_once_are_told_to_wait_shortly(client: httpx.AsyncClient, address: str, email: str) -> None:
    headers = {"authorization": f"Bearer {(await _login(client, email, address)).json()['access_token']}"}
    # The new password is the old one, so that every call confirms with the right password.
    body = {"current_password": PASSWORD, "new_password": PASSWORD}

    async def change() -> httpx.Response:
        return await client.post("/api/v1/auth/password", json=body, headers=headers)

    answers = await asyncio.gather(*(change() for _ in range(10 * ACCOUNT_BURST)))
    reasons = Counter("" if answer.status_code == httpx.codes.OK else of_response(answer).reason for answer in answers)
    assert reasons[""] >= 1
    # WRONG_PASSWORD: another call changed the password after this one had verified it. That is no failed attempt.
    assert reasons.keys() <= {"", "OVERLOADED", "WRONG_PASSWORD"}
    assert [_delay(answer) for answer in answers if "OVERLOADED" in answer.text] == [1] * reasons["OVERLOADED"]
    assert (await change()).status_code == httpx.codes.OK


@OWN_SYSTEM
async def test_an_ipv6_customer_is_one_address(client: httpx.AsyncClient, email: str) -> None:
    network = f"2001:db8:0:{next(_NUMBERS):x}"
    for number in range(ADDRESS_BURST):
        await _login(client, f"nobody-{next(_NUMBERS)}@example.com", f"{network}::{number + 1:x}", WRONG)
    assert _reason(await _login(client, email, f"{network}::ffff")) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")


@OWN_SYSTEM
async def test_the_owner_at_home_has_many_addresses_by_ipv6(client: httpx.AsyncClient, email: str) -> None:
    network = f"2001:db8:1:{next(_NUMBERS):x}"
    assert (await _login(client, email, f"{network}::1")).status_code == httpx.codes.OK
    for _ in range(ACCOUNT_BURST):
        await _login(client, email, next(_ADDRESSES), WRONG)
    # Privacy extensions (RFC 8981) give a machine a new address every day.
    assert (await _login(client, email, f"{network}::2")).status_code == httpx.codes.OK


@OWN_SYSTEM
async def test_logins_that_succeed_do_not_count(client: httpx.AsyncClient, address: str, email: str) -> None:
    for _ in range(2 * ADDRESS_BURST):
        assert (await _login(client, email, address)).status_code == httpx.codes.OK
    for _ in range(ACCOUNT_BURST):
        assert _reason(await _login(client, email, address, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")


@OWN_SYSTEM
@pytest.mark.parametrize(("path", "field"), [("/api/v1/auth/password", "current_password"), ("/api/v1/users/me:delete", "password")])
async def test_confirmations_are_limited_and_do_not_lock_the_login(
    path: str, field: str, client: httpx.AsyncClient, address: str, email: str
) -> None:
    logged_in = await _login(client, email, address)
    headers = {"authorization": f"Bearer {logged_in.json()['access_token']}", "x-forwarded-for": address}
    new = {"new_password": "yet another horse"} if field == "current_password" else {}

    async def confirm(password: str) -> httpx.Response:
        return await client.post(path, json={field: password, **new}, headers=headers)

    for _ in range(ACCOUNT_BURST):
        refused = await confirm(WRONG)
        assert (refused.status_code, of_response(refused).reason) == (httpx.codes.FORBIDDEN, "WRONG_PASSWORD")
    for password in (WRONG, PASSWORD):
        limited = await confirm(password)
        assert (limited.status_code, of_response(limited).reason) == (httpx.codes.TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS")
        assert 1 <= int(limited.headers["retry-after"]) <= ACCOUNT_INTERVAL_SECONDS
    assert (await _login(client, email, next(_ADDRESSES))).status_code == httpx.codes.OK


@OWN_SYSTEM
async def test_without_valkey_each_replica_limits_by_itself(
    without_valkey: None, stack: Stack, client: httpx.AsyncClient, address: str, email: str
) -> None:
    before = await metric(stack, "auth-1", "rate_limit_local_total")
    assert (await _login(client, email, address)).status_code == httpx.codes.OK
    for where in (next(_ADDRESSES), address):
        for _ in range(ACCOUNT_BURST):
            assert _reason(await _login(client, email, where, WRONG)) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")
        assert _reason(await _login(client, email, where, WRONG)) == (EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert await metric(stack, "auth-1", "rate_limit_local_total") > before
    another = await _register(client, next(_ADDRESSES))
    assert (await _login(client, another, next(_ADDRESSES))).status_code == httpx.codes.OK


@OWN_SYSTEM
async def test_valkey_holds_neither_emails_nor_addresses(stack: Stack, client: httpx.AsyncClient, address: str, email: str) -> None:
    await _login(client, email, address, WRONG)
    async with redis.asyncio.Redis.from_url(stack.state.redis_url, decode_responses=True) as valkey:
        keys = " ".join(await valkey.keys("login:*"))
    assert "login:" in keys
    assert not any(text in keys for text in (email, email.partition("@")[0], address))


async def _heal(stack: Stack) -> None:
    """Like `heal`, and waits until auth_service uses Valkey again."""
    await heal(stack)

    async def uses_valkey() -> None:
        assert await metric(stack, "auth-1", "redis_breaker_open") == 0

    await eventually(uses_valkey, within=WHOLE_WITHIN_SECONDS)


async def _register(client: httpx.AsyncClient, address: str) -> str:
    email = f"limited-{next(_NUMBERS)}@example.com"
    registered = await _try_to_register(client, email, address)
    assert registered.status_code == httpx.codes.CREATED, registered.text
    return email


async def _try_to_register(client: httpx.AsyncClient, email: str, address: str) -> httpx.Response:
    body = {"email": email, "password": PASSWORD, "name": "Test"}
    return await client.post("/api/v1/auth/register", json=body, headers={"x-forwarded-for": address})


async def _login(client: httpx.AsyncClient, email: str, address: str, password: str = PASSWORD) -> httpx.Response:
    body = {"email": email, "password": password}
    return await client.post("/api/v1/auth/login", json=body, headers={"x-forwarded-for": address})


def _reason(answer: httpx.Response) -> tuple[int, str]:
    error = of_response(answer)
    return error.code, error.reason


def _delay(answer: httpx.Response) -> float:
    """Returns the delay in RetryInfo, in seconds."""
    (delay,) = [float(detail["retry_delay"].removesuffix("s")) for detail in answer.json()["details"] if "retry_delay" in detail]
    return delay
