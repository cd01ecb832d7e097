"""Secrets of a running stack that only an insider has: the private signing keys and the service token."""

from pathlib import Path

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth_service.keys.domain import StoredKey
from auth_service.keys.repository import LIST
from auth_service.keys.seal import KeySeal
from devstack import keys
from devstack.state import State
from servicekit.access.seal import parse_key_encryption_keys


def secrets_of(state: State) -> keys.Keys:
    """Returns the stack's secrets."""
    return keys.load_or_create(Path(state.data_dir) / "secrets")


async def signing_key(state: State, kid: str) -> Ed25519PrivateKey:
    """Reads a key from the database and returns its private half."""
    connection = await asyncpg.connect(state.database_url)
    try:
        stored = [StoredKey(*row) for row in await connection.fetch(LIST)]
    finally:
        await connection.close()
    (key,) = (key for key in stored if key.id == kid)
    return KeySeal(parse_key_encryption_keys(secrets_of(state).key_encryption_key)).open(key)
