"""The verifier's memory: bounded, and never beyond a token's end. What it refuses is in tests/contract/test_tokens.py."""

import asyncio
import time
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auth_service.keys import SigningKeys
from auth_service.sessions import AccessTokens
from servicekit.errors import DependencyUnavailable, TokenInvalid
from servicekit.tokens import TokenVerifier

ISSUER, AUDIENCE = "https://issuer.example", "audience"


class CountingKeys:
    """A KeySource that counts how often it is asked."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys
        self.asked = 0

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        self.asked += 1
        return await self._keys.find(kid)


class NoKeysYet:
    """A KeySource that has not fetched anything."""

    async def find(self, _: str) -> Ed25519PublicKey | None:
        raise DependencyUnavailable("auth_service")


class System:
    """An issuer and a verifier that trusts it."""

    def __init__(self, capacity: int = 10) -> None:
        signing = SigningKeys(Ed25519PrivateKey.generate())
        self.keys = CountingKeys(signing)
        self.verifier = TokenVerifier(self.keys, issuer=ISSUER, audience=AUDIENCE, capacity=capacity)
        self._signing = signing

    def issue(self, ttl_seconds: int = 60, user_id: UUID | None = None) -> str:
        tokens = AccessTokens(self._signing, issuer=ISSUER, audience=AUDIENCE, ttl_seconds=ttl_seconds)
        return tokens.issue(user_id or uuid4(), uuid4())


async def test_a_good_token_says_who_calls() -> None:
    system, user_id = System(), uuid4()
    identity = await system.verifier.verify(system.issue(60, user_id))
    assert identity.user_id == user_id
    assert 55 < identity.expires_at - time.time() <= 60


async def test_a_token_is_checked_once() -> None:
    system = System()
    token = system.issue()
    assert await system.verifier.verify(token) is await system.verifier.verify(token)
    assert system.keys.asked == 1


async def test_the_memory_is_bounded_and_the_oldest_go_first() -> None:
    system = System(capacity=3)
    tokens = [system.issue() for _ in range(5)]
    for token in tokens:
        await system.verifier.verify(token)
    assert list(system.verifier._verified) == tokens[2:]
    await system.verifier.verify(tokens[4])
    assert system.keys.asked == 5
    await system.verifier.verify(tokens[0])
    assert system.keys.asked == 6


async def test_a_remembered_token_ends_at_its_end() -> None:
    system = System()
    token = system.issue(ttl_seconds=1)
    expires_at = (await system.verifier.verify(token)).expires_at
    await asyncio.sleep(max(0.0, expires_at - time.time()) + 0.01)
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await system.verifier.verify(token)
    assert token not in system.verifier._verified


async def test_a_refused_token_is_not_remembered() -> None:
    system = System()
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await system.verifier.verify(system.issue() + "x")
    assert system.verifier._verified == {}


async def test_a_long_token_is_not_even_looked_at() -> None:
    system = System()
    with pytest.raises(TokenInvalid):
        await system.verifier.verify(system.issue() + "a" * 4096)
    assert system.keys.asked == 0


async def test_without_any_key_it_is_not_the_token_that_is_wrong() -> None:
    verifier = TokenVerifier(NoKeysYet(), issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(DependencyUnavailable):
        await verifier.verify(System().issue())
