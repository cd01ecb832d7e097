"""Encrypts private signing keys for storage, and decrypts them."""

from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth_service.keys.domain import StoredKey, key_id
from auth_service.keys.errors import KeyNotOpened
from servicekit.access.seal import NotOpened, Seal


class KeySeal:
    """Encrypts private keys with the first key encryption key, and decrypts with any of them."""

    def __init__(self, key_encryption_keys: Sequence[bytes]) -> None:
        self._seal = Seal(key_encryption_keys)

    def new_key(self, active_from: datetime) -> StoredKey:
        """Returns a new key with its private key encrypted."""
        key = Ed25519PrivateKey.generate()
        public, kid = key.public_key(), key_id(key.public_key())
        return StoredKey(kid, public.public_bytes_raw(), self._seal.seal(key.private_bytes_raw(), kid.encode()), active_from)

    def open(self, key: StoredKey) -> Ed25519PrivateKey:
        """Returns the private key. Raises KeyNotOpened if no key encryption key decrypts it."""
        try:
            return Ed25519PrivateKey.from_private_bytes(self._seal.open(key.sealed_key, key.id.encode()))
        except NotOpened:
            raise KeyNotOpened(f"signing key {key.id} was sealed under another KEY_ENCRYPTION_KEY") from None
