"""The exchange of API tokens: what an access token is good for, how long it is kept, and what counts against an address."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from structlog.testing import capture_logs

from auth_service.api_tokens.domain import Exchanged
from auth_service.api_tokens.service import ApiTokenService
from auth_service.api_tokens.tokens import new_api_token
from auth_service.passwords.errors import TooManyAttempts
from servicekit.errors import TokenInvalid
from servicekit.identity import Identity
from servicekit.stores.postgres import Database
from tests.auth_service.api_tokens.conftest import SCOPES, TTL_SECONDS, Create, Replica
from tests.auth_service.conftest import CLIENT, column


def claims_of(exchanged: Exchanged) -> dict[str, object]:
    return dict(jwt.decode(exchanged.access_token, options={"verify_signature": False}))


async def test_the_access_token_names_user_token_and_scopes(create: Create, owner: Identity, replica: Replica) -> None:
    token, text = await create()
    exchanged = await replica.exchange.exchange(text, CLIENT)
    claims = claims_of(exchanged)
    assert (claims["sub"], claims["sid"], claims["scope"]) == (str(owner.user_id), str(token.id), " ".join(SCOPES))
    assert exchanged.expires_in == TTL_SECONDS


async def test_one_look_up_serves_many_exchanges(create: Create, replica: Replica) -> None:
    _, text = await create()
    first = await replica.exchange.exchange(text, CLIENT)
    for _ in range(5):
        assert (await replica.exchange.exchange(text, CLIENT)).access_token == first.access_token
    assert replica.repository.looked_up == 1
    assert (replica.count("issued"), replica.count("kept")) == (1, 5)
    assert replica.exchange.kept(text.encode()) is not None
    assert replica.exchange.kept(new_api_token().encode()) is None


async def test_an_access_token_is_given_out_for_half_of_its_lifetime(create: Create, replica: Replica) -> None:
    _, text = await create()
    first = await replica.exchange.exchange(text, CLIENT)
    replica.clock.now += TTL_SECONDS / 2 - 2
    assert (await replica.exchange.exchange(text, CLIENT)).access_token == first.access_token
    replica.clock.now += 3
    assert (await replica.exchange.exchange(text, CLIENT)).access_token != first.access_token


async def test_no_access_token_outlives_its_api_token(create: Create, replica: Replica) -> None:
    token, text = await create(expires_at=datetime.now(UTC) + timedelta(seconds=20))
    exchanged = await replica.exchange.exchange(text, CLIENT)
    assert 15 <= exchanged.expires_in <= 20
    assert claims_of(exchanged)["exp"] == int(token.expires_at.timestamp())


async def test_an_expired_token_is_refused(create: Create, replica: Replica, database: Database) -> None:
    token, text = await create()
    await database.fetchrow("UPDATE auth.api_tokens SET expires_at = now() WHERE id = $1", token.id)
    with pytest.raises(TokenInvalid):
        await replica.exchange.exchange(text, CLIENT)


async def test_a_deleted_token_is_refused_when_the_event_is_read(
    create: Create, api_tokens: ApiTokenService, owner: Identity, replica: Replica
) -> None:
    token, text = await create()
    await replica.exchange.exchange(text, CLIENT)
    await api_tokens.delete(owner, token.id, CLIENT)
    assert replica.exchange.kept(text.encode()) is not None
    await replica.revocations.refresh()
    assert replica.exchange.kept(text.encode()) is None
    with pytest.raises(TokenInvalid):
        await replica.exchange.exchange(text, CLIENT)


async def test_the_last_use_is_known_to_five_minutes(
    create: Create, api_tokens: ApiTokenService, owner: Identity, replica: Replica, database: Database
) -> None:
    _, text = await create()
    await replica.exchange.exchange(text, CLIENT)
    (used,) = await api_tokens.list(owner)
    assert used.last_used_at is not None
    for minutes, changes in ((4, False), (6, True)):
        await database.fetchrow("UPDATE auth.api_tokens SET last_used_at = now() - make_interval(mins => $2) WHERE id = $1", used.id, minutes)
        before = await column(database, "SELECT last_used_at FROM auth.api_tokens WHERE id = $1", used.id)
        # As on another replica, which keeps nothing yet.
        replica.exchange._kept.clear()
        await replica.exchange.exchange(text, CLIENT)
        assert (await column(database, "SELECT last_used_at FROM auth.api_tokens WHERE id = $1", used.id) != before) is changes
        (kept,) = replica.exchange._kept.values()
        # It must look again when the next use has to be stored.
        assert kept.until - datetime.now(UTC).timestamp() <= (61 if not changes else TTL_SECONDS / 2)


async def test_uses_at_once_store_one_time(create: Create, replica: Replica, database: Database) -> None:
    token, text = await create()
    await asyncio.gather(*(replica.exchange.exchange(text, CLIENT) for _ in range(8)))
    (used_at,) = await column(database, "SELECT last_used_at FROM auth.api_tokens WHERE id = $1", token.id)
    assert used_at is not None


@pytest.mark.parametrize("text", ["", "tm_", "tm_" + "0" * 49, "eyJ.e30.x", "tm_é"])
async def test_a_typo_costs_no_look_up_and_counts_for_nothing(text: str, replica: Replica) -> None:
    for _ in range(5):
        with pytest.raises(TokenInvalid):
            await replica.exchange.exchange(text, CLIENT)
    assert replica.repository.looked_up == 0
    assert replica.count("malformed") == 5


async def test_an_unknown_token_costs_one_look_up_and_one_attempt(replica: Replica) -> None:
    text = new_api_token()
    with capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(TokenInvalid):
                await replica.exchange.exchange(text, CLIENT)
    assert replica.repository.looked_up == 1
    assert [line["security_event"] for line in logs] == ["api_token_refused"]
    assert text not in str(logs)


async def test_different_unknown_tokens_are_limited_by_address(create: Create, replica: Replica) -> None:
    _, text = await create()
    await replica.exchange.exchange(text, CLIENT)
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await replica.exchange.exchange(new_api_token(), CLIENT)
    with capture_logs() as logs, pytest.raises(TooManyAttempts) as limited:
        await replica.exchange.exchange(new_api_token(), CLIENT)
    assert limited.value.retry_after_seconds is not None
    assert 3000 < limited.value.retry_after_seconds <= 3600
    assert [line["security_event"] for line in logs] == ["attempts_limited"]
    looked_up = replica.repository.looked_up
    with pytest.raises(TooManyAttempts):
        await replica.exchange.exchange(new_api_token(), CLIENT)
    assert replica.repository.looked_up == looked_up
    # What the replica keeps goes on, and so do other addresses.
    await replica.exchange.exchange(text, CLIENT)
    _, other = await create()
    await replica.exchange.exchange(other, replace(CLIENT, address="198.51.100.1"))
    replica.clock.now += 3601
    _, later = await create()
    await replica.exchange.exchange(later, CLIENT)
    assert replica.count("limited") == 2
