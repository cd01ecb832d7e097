"""The verifier's cache: its size is limited, and a token is not accepted after its expiry or without its key or session.

tests/contract/test_tokens.py tests which tokens are rejected.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from auth_service.keys.ring import KeyRing
from auth_service.sessions.tokens import AccessTokens
from servicekit.access.tokens import TokenVerifier
from servicekit.errors import DependencyUnavailable, TokenInvalid
from servicekit.identity import Identity
from servicekit.scopes import SCOPES, granted
from tests.support.keys import key_ring

ISSUER, AUDIENCE = "https://issuer.example", "audience"


class CountingKeys:
    """A KeySource that counts the calls of `find`."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self.asked = 0
        self.withdrawn = False

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        self.asked += 1
        return await self._keys.find(kid)

    def holds(self, kid: str) -> bool:
        return not self.withdrawn and self._keys.holds(kid)


class NoKeysYet:
    """A KeySource that has not fetched any keys."""

    async def find(self, _: str) -> Ed25519PublicKey | None:
        raise DependencyUnavailable("auth_service")

    def holds(self, _: str) -> bool:
        return False


class Sessions:
    """A SessionCheck whose ended sessions the test sets."""

    def __init__(self) -> None:
        self.ended: set[UUID] = set()
        self.known = True

    def check(self, identity: Identity) -> None:
        if not self.known:
            raise DependencyUnavailable("auth_service")
        if identity.session_id in self.ended:
            raise TokenInvalid


class System:
    """An issuer, and a verifier that trusts it."""

    def __init__(self, capacity: int = 10) -> None:
        signing = key_ring()
        self.sessions = Sessions()
        self.keys = CountingKeys(signing)
        self.verifier = TokenVerifier(self.keys, self.sessions, issuer=ISSUER, audience=AUDIENCE, capacity=capacity)
        self._signing = signing

    def issue(self, ttl_seconds: int = 60, user_id: UUID | None = None) -> str:
        return self._tokens(ttl_seconds).issue(user_id or uuid4(), uuid4(), datetime.now(UTC) + timedelta(days=1))[0]

    def issue_for_api_token(self, scopes: Sequence[str], name: str = "script") -> str:
        return self._tokens(60).issue_for_api_token(uuid4(), uuid4(), datetime.now(UTC) + timedelta(days=1), scopes, name)[0]

    def _tokens(self, ttl_seconds: int) -> AccessTokens:
        return AccessTokens(self._signing, issuer=ISSUER, audience=AUDIENCE, ttl_seconds=ttl_seconds)


async def test_a_good_token_says_who_calls() -> None:
    system, user_id = System(), uuid4()
    identity = await system.verifier.verify(system.issue(60, user_id))
    assert identity.user_id == user_id
    assert 55 < identity.expires_at - time.time() <= 60


async def test_a_token_without_a_scope_may_do_everything_and_one_with_a_scope_only_that() -> None:
    system = System()
    identity = await system.verifier.verify(system.issue())
    assert (identity.scopes, identity.api_token_name) == (None, "")
    for scopes, grants in {
        (): set(),
        ("tasks:read",): {"tasks:read"},
        ("tasks:write",): {"tasks:read", "tasks:write"},
        ("account:read", "webhooks:manage"): {"account:read", "webhooks:manage"},
        ("tasks:delete", "TASKS:READ", ""): set(),
    }.items():
        assert (await system.verifier.verify(system.issue_for_api_token(scopes))).scopes == grants
    assert granted(SCOPES) == set(SCOPES)


@pytest.mark.parametrize("name", ["a", "äあ", "🦊" * 100], ids=["short", "not ASCII", "longest"])
async def test_the_token_of_an_api_token_has_its_name(name: str) -> None:
    system = System()
    assert (await system.verifier.verify(system.issue_for_api_token(["tasks:read"], name))).api_token_name == name


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


async def test_a_remembered_token_ends_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    system, clock = System(), SimpleNamespace(time=time.time)
    monkeypatch.setattr("servicekit.access.tokens.time", clock)
    token = system.issue()
    expires_at = (await system.verifier.verify(token)).expires_at
    clock.time = lambda: expires_at - 0.01
    await system.verifier.verify(token)
    clock.time = lambda: float(expires_at)
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
    verifier = TokenVerifier(NoKeysYet(), Sessions(), issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(DependencyUnavailable):
        await verifier.verify(System().issue())


async def test_a_remembered_token_ends_with_its_key() -> None:
    system = System()
    token = system.issue()
    await system.verifier.verify(token)
    system.keys.withdrawn = True
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await system.verifier.verify(token)
    assert token not in system.verifier._verified


async def test_a_remembered_token_ends_with_its_session() -> None:
    system = System()
    token = system.issue()
    identity = await system.verifier.verify(token)
    system.sessions.ended.add(identity.session_id)
    with pytest.raises(TokenInvalid):
        await system.verifier.verify(token)
    await system.verifier.verify(system.issue())


async def test_while_nothing_is_known_of_sessions_no_token_is_good_but_a_bad_one_is_still_bad() -> None:
    system = System()
    system.sessions.known = False
    with pytest.raises(DependencyUnavailable):
        await system.verifier.verify(system.issue())
    with pytest.raises(TokenInvalid):
        await system.verifier.verify(system.issue() + "x")
