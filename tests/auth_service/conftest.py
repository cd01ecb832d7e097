"""The auth service's parts, on a database of the module's own."""

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry
from uuid_utils.compat import uuid7

from auth_service.keys import SigningKeys
from auth_service.passwords import PasswordHasher
from auth_service.repository import PostgresAccounts
from auth_service.service import AuthService
from auth_service.sessions import AccessTokens
from servicekit.postgres import Database

ISSUER, AUDIENCE = "https://issuer.test", "audience.test"


@pytest.fixture
def accounts(database: Database) -> PostgresAccounts:
    return PostgresAccounts(database)


@pytest.fixture(scope="session")
def signing_keys() -> SigningKeys:
    return SigningKeys(Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
async def hasher() -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(cost=4, threads=2, queue=100, registry=CollectorRegistry())
    yield hasher
    await hasher.close()


@pytest.fixture
def service(accounts: PostgresAccounts, hasher: PasswordHasher, signing_keys: SigningKeys) -> AuthService:
    access_tokens = AccessTokens(signing_keys, issuer=ISSUER, audience=AUDIENCE, ttl_seconds=60)
    return AuthService(accounts, hasher, access_tokens, refresh_ttl_seconds=3600, new_id=uuid7)
