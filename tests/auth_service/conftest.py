"""Fixtures with the auth service's parts, on a database for each test module and the running Valkey."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import jwt
import pytest
from prometheus_client import CollectorRegistry
from uuid_utils.compat import uuid7

from auth_service.client import Client
from auth_service.events.repository import PostgresEvents
from auth_service.keys.ring import KeyRing
from auth_service.passwords.hasher import PasswordHasher
from auth_service.passwords.login_guard import LoginGuard, LoginLimits
from auth_service.passwords.rules import PasswordRules
from auth_service.security_log import SecurityLog
from auth_service.sessions.domain import Repeated, Reused, Rotated, SessionLifetime, TokenPair
from auth_service.sessions.repository import PostgresSessions
from auth_service.sessions.service import SessionService
from auth_service.sessions.tokens import AccessTokens
from auth_service.users.domain import Credentials, User, email_key
from auth_service.users.repository import PostgresUsers
from auth_service.users.service import Parts, UserService
from devstack.stack import Stack
from servicekit.access.rate_limit import Limit, RateLimiter
from servicekit.access.revocations import EventKind
from servicekit.identity import Identity
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from tests.support.keys import key_ring

ISSUER, AUDIENCE = "https://issuer.test", "audience.test"
LIFETIME = SessionLifetime(idle_seconds=3600, absolute_seconds=86_400)
CLIENT = Client("203.0.113.7", "tests", "request-1")
PASSWORD, OTHER_PASSWORD = "correct horse battery", "another horse battery"
# A limit that no test reaches. The tests of the limits use their own.
PLENTY = Limit(burst=10_000, interval_seconds=1)

CredentialsFactory: TypeAlias = Callable[[], Awaitable[Credentials]]


class Accounts(PostgresUsers, PostgresSessions, PostgresEvents):
    """The repositories of accounts, sessions and events in one object."""


@dataclass(frozen=True, slots=True)
class AllParts(Parts):
    """The parts of the use cases, with the repository."""

    repository: Accounts


class AuthService(SessionService, UserService):
    """The use cases of accounts and of sessions in one object."""

    def __init__(self, parts: AllParts, access_tokens: AccessTokens, lifetime: SessionLifetime) -> None:
        SessionService.__init__(self, parts.repository, parts, access_tokens, lifetime)
        UserService.__init__(self, parts.repository, parts)


class Announcements:
    """Counts the announcements of new events."""

    count = 0

    async def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


@pytest.fixture
def new_credentials(accounts: Accounts) -> CredentialsFactory:
    """Creates accounts for tests that need no password."""

    async def made() -> Credentials:
        email = f"{uuid4().hex}@example.com"
        user = await accounts.insert_user(uuid7(), email=email, key=email_key(email), name="Ada", password_hash="hash 1")
        return Credentials(user.id, email, "Ada", "hash 1", 1)

    return made


@pytest.fixture
async def credentials(new_credentials: CredentialsFactory) -> Credentials:
    return await new_credentials()


@pytest.fixture(scope="session")
def ring() -> KeyRing:
    return key_ring()


@pytest.fixture(scope="session")
async def hasher() -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(cost=4, threads=2, queue=100, registry=CollectorRegistry())
    yield hasher
    await hasher.close()


@pytest.fixture
async def limiter(system: Stack, patient: None) -> AsyncIterator[RateLimiter]:
    redis = Redis(system.state.redis_url, CollectorRegistry())
    await redis.start()
    yield RateLimiter(redis, CollectorRegistry(), prefix=f"test-{uuid4().hex}")
    await redis.close()


@pytest.fixture
def announcements() -> Announcements:
    return Announcements()


@pytest.fixture
def parts(accounts: Accounts, hasher: PasswordHasher, limiter: RateLimiter, announcements: Announcements) -> AllParts:
    guard = LoginGuard(limiter, LoginLimits(PLENTY, PLENTY, PLENTY))
    return AllParts(hasher, PasswordRules(), guard, SecurityLog(CollectorRegistry()), announcements, uuid7, accounts)


def service_of(parts: AllParts, ring: KeyRing) -> AuthService:
    """Returns the use cases with these parts."""
    return AuthService(parts, AccessTokens(ring, issuer=ISSUER, audience=AUDIENCE, ttl_seconds=60), LIFETIME)


@pytest.fixture
def service(parts: AllParts, ring: KeyRing) -> AuthService:
    return service_of(parts, ring)


@pytest.fixture
def users(parts: AllParts) -> UserService:
    return UserService(parts.repository, parts)


def token_hash() -> bytes:
    return os.urandom(32)


async def column(database: Database, sql: str, *args: Any) -> list[Any]:
    """Returns the first column of a query."""
    return [row[0] for row in await database.fetch(sql, *args)]


class Storage:
    """The repository, with shortcuts for the tests."""

    def __init__(self, accounts: Accounts, database: Database) -> None:
        self.accounts = accounts
        self.database = database

    async def begin(self, credentials: Credentials, token: bytes | None = None, lifetime: SessionLifetime = LIFETIME) -> UUID:
        session = await self.accounts.insert_session(uuid7(), credentials, token or token_hash(), CLIENT, CLIENT.address, lifetime)
        assert session is not None
        return session.id

    async def live(self, credentials: Credentials) -> list[UUID]:
        return [session.id for session in await self.accounts.list_sessions(credentials.user_id)]

    async def last_number(self) -> int:
        row = await self.database.fetchrow("SELECT last_number FROM auth.event_counter")
        assert row is not None
        return int(row[0])

    async def events(self, after: int) -> list[tuple[EventKind, UUID, UUID | None]]:
        page = await self.accounts.list_events(after=after)
        assert not page.more
        return [(event.kind, event.user_id, event.session_id) for event in page.events]

    async def use(self, token: bytes, *, new: bytes | None = None, sealed: bytes = b"sealed") -> Rotated | Repeated | Reused | None:
        return await self.accounts.use_refresh_token(token, new or token_hash(), sealed, LIFETIME.idle_seconds)

    async def age_token(self, token: bytes, seconds: float) -> None:
        await self.database.fetchrow(
            "UPDATE auth.refresh_tokens SET used_at = used_at - make_interval(secs => $2) WHERE token_hash = $1", token, seconds
        )

    async def expire(self, session_id: UUID) -> None:
        await self.database.fetchrow("UPDATE auth.sessions SET expires_at = now() WHERE id = $1", session_id)


@pytest.fixture
def storage(accounts: Accounts, database: Database) -> Storage:
    return Storage(accounts, database)


def later(credentials: Credentials, times: int = 1) -> Credentials:
    """Returns the credentials after `times` changes of the password."""
    return Credentials(credentials.user_id, credentials.email, credentials.name, "hash 2", credentials.password_version + times)


# --- sessions begin


async def register(service: AuthService, email: str | None = None, password: str = PASSWORD) -> User:
    return await service.register(email=email or f"{uuid4().hex}@example.com", password=password, name="Ada", client=CLIENT)


async def log_in(service: AuthService, user: User, password: str = PASSWORD) -> TokenPair:
    return await service.login(email=user.email, password=password, client=CLIENT)


async def change(service: AuthService, identity: Identity, current: str = PASSWORD, new: str = OTHER_PASSWORD) -> None:
    await service.change_password(identity, current_password=current, new_password=new, client=CLIENT)


def claims_of(pair: TokenPair) -> dict[str, object]:
    return dict(jwt.decode(pair.access_token, options={"verify_signature": False}))


def identity_of(pair: TokenPair) -> Identity:
    claims = claims_of(pair)
    return Identity(UUID(str(claims["sub"])), UUID(str(claims["sid"])), str(claims["jti"]), int(str(claims["exp"])))


@pytest.fixture
async def dearer(parts: AllParts) -> AsyncIterator[AllParts]:
    """The same parts with a higher bcrypt cost."""
    hasher = PasswordHasher(cost=5, threads=2, queue=100, registry=CollectorRegistry())
    yield replace(parts, passwords=hasher)
    await hasher.close()
