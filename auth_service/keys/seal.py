"""Encrypts private signing keys for storage, and decrypts them."""

import base64
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from auth_service.keys.domain import StoredKey, key_id
from auth_service.keys.errors import KeyNotOpened

NONCE_BYTES: Final = 12
KEY_ENCRYPTION_KEY_BYTES: Final = 32


class KeySeal:
    """Encrypts private keys with the first key encryption key, and decrypts with any of them (AES-256-GCM)."""

    def __init__(self, key_encryption_keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in key_encryption_keys]

    def new_key(self, active_from: datetime) -> StoredKey:
        """Returns a new key with its private key encrypted."""
        key = Ed25519PrivateKey.generate()
        public, kid = key.public_key(), key_id(key.public_key())
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._ciphers[0].encrypt(nonce, key.private_bytes_raw(), kid.encode())
        return StoredKey(kid, public.public_bytes_raw(), sealed, active_from)

    def open(self, key: StoredKey) -> Ed25519PrivateKey:
        """Returns the private key. Raises KeyNotOpened if no key encryption key decrypts it."""
        nonce, sealed = key.sealed_key[:NONCE_BYTES], key.sealed_key[NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return Ed25519PrivateKey.from_private_bytes(cipher.decrypt(nonce, sealed, key.id.encode()))
            except InvalidTag:
                continue
        raise KeyNotOpened(f"signing key {key.id} was sealed under another KEY_ENCRYPTION_KEY")


def parse_key_encryption_keys(text: str) -> list[bytes]:
    """Parses keys of 32 bytes in base64, separated by commas. Raises ValueError for anything else."""
    keys = [base64.b64decode(part.strip(), validate=True) for part in text.split(",")]
    if any(len(key) != KEY_ENCRYPTION_KEY_BYTES for key in keys):
        raise ValueError(f"not {KEY_ENCRYPTION_KEY_BYTES} bytes")
    return keys
