"""Encrypts secrets for storage under the key encryption keys, and decrypts them (AES-256-GCM). Knows nothing of what the secrets are for."""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12
KEY_ENCRYPTION_KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4


class NotOpened(Exception):
    """No key encryption key decrypts the text for this context."""


class Seal:
    """Encrypts with the first key encryption key, and decrypts with any of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]
        self._key_id = hashlib.sha256(b"key encryption key id" + keys[0]).digest()[:KEY_ID_BYTES]

    @property
    def key_id(self) -> bytes:
        """Identifies the first key, and tells nothing about it: KEY_ID_BYTES bytes."""
        return self._key_id

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Returns the secret, encrypted. Only `open` with the same context decrypts it."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Returns the secret. Raises NotOpened."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
            except InvalidTag:
                continue
        raise NotOpened


def parse_key_encryption_keys(text: str) -> list[bytes]:
    """Parses keys of 32 bytes in base64, separated by commas. Raises ValueError for anything else."""
    keys = [base64.b64decode(part.strip(), validate=True) for part in text.split(",")]
    if any(len(key) != KEY_ENCRYPTION_KEY_BYTES for key in keys):
        raise ValueError(f"not {KEY_ENCRYPTION_KEY_BYTES} bytes")
    return keys
