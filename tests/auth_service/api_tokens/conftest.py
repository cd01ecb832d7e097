"""Fixtures with the use cases of API tokens, on a database for each test module and the running Valkey."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import pytest
from prometheus_client import CollectorRegistry

from auth_service.api_tokens.domain import ApiToken, Grant, NewApiToken
from auth_service.api_tokens.exchange import Exchange
from auth_service.api_tokens.guesses import Guesses
from auth_service.api_tokens.repository import PostgresApiTokens
from auth_service.api_tokens.service import ApiTokenService
from auth_service.keys.ring import KeyRing
from auth_service.sessions.tokens import AccessTokens
from servicekit.access.rate_limit import Limit, RateLimiter
from servicekit.access.revocations import Revocations
from servicekit.access.tokens import TokenVerifier
from servicekit.identity import Identity
from servicekit.stores.postgres import Database
from tests.auth_service.conftest import AUDIENCE, CLIENT, ISSUER, AllParts, AuthService, Storage, identity_of, log_in, register

TTL_SECONDS = 60
SCOPES = ("tasks:read", "account:read")
# Two unknown tokens, then one in an hour.
FEW = Limit(burst=2, interval_seconds=3600)

Create: TypeAlias = Callable[..., Awaitable[tuple[ApiToken, str]]]


class Counting(PostgresApiTokens):
    """The repository, which counts its look-ups."""

    looked_up = 0

    async def use_api_token(self, token_hash: bytes) -> Grant | None:
        self.looked_up += 1
        return await super().use_api_token(token_hash)


class Clock:
    """A clock that a test moves. It begins at the real time."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Replica:
    """The exchange of one replica, with its parts."""

    exchange: Exchange
    repository: Counting
    revocations: Revocations
    clock: Clock
    registry: CollectorRegistry

    def count(self, outcome: str) -> float:
        """Returns how many exchanges ended so."""
        return self.registry.get_sample_value("auth_api_token_exchanges_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def api_tokens(parts: AllParts, database: Database) -> ApiTokenService:
    return ApiTokenService(PostgresApiTokens(database), parts)


@pytest.fixture
async def owner(service: AuthService) -> Identity:
    """A logged-in user."""
    return identity_of(await log_in(service, await register(service)))


@pytest.fixture
def create(api_tokens: ApiTokenService, owner: Identity) -> Create:
    """Creates a token of the owner."""

    async def created(*scopes: str, expires_at: datetime | None = None, name: str = "A script") -> tuple[ApiToken, str]:
        return await api_tokens.create(owner, NewApiToken(name, scopes or SCOPES, expires_at), CLIENT)

    return created


@pytest.fixture
async def replica(parts: AllParts, database: Database, storage: Storage, ring: KeyRing, limiter: RateLimiter) -> Replica:
    registry, clock = CollectorRegistry(), Clock()
    revocations = Revocations(storage.accounts, CollectorRegistry())
    await revocations.refresh()
    repository = Counting(database)
    tokens = AccessTokens(ring, issuer=ISSUER, audience=AUDIENCE, ttl_seconds=TTL_SECONDS)
    verifier = TokenVerifier(ring, revocations, issuer=ISSUER, audience=AUDIENCE)
    guesses = Guesses(limiter, FEW, clock=clock)
    exchange = Exchange(repository, tokens, verifier, guesses, parts.security_log, registry, now=clock)
    return Replica(exchange, repository, revocations, clock, registry)
