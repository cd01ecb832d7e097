"""Tokens that encode a position, such as page tokens (AIP-158): opaque, authenticated, and valid only for the caller and query they were issued for.

They are encrypted with AES-GCM, with the query as associated data.
"""

import base64
import os
from collections.abc import Sequence
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from servicekit.errors import InvalidField, InvalidPageToken

NONCE_BYTES: Final = 12

Key = str | int | None


class PlaceTokens:
    """Issues and reads tokens for one purpose. All replicas must have the same secret of at least 32 characters."""

    def __init__(self, secret: str, purpose: str, refusal: type[InvalidField]) -> None:
        """`refusal` is the error raised for an invalid token. A token for one purpose is invalid for another."""
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"task-manager {purpose}".encode()).derive(secret.encode())
        self._cipher = AESGCM(key)
        self._refusal = refusal

    def seal(self, position: Sequence[Key], query: Sequence[Key]) -> str:
        """Returns a token for `position`. `query` holds everything that must be the same when the client sends the token back."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, orjson.dumps(list(position)), orjson.dumps(list(query)))
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def open(self, token: str, query: Sequence[Key]) -> list[Key]:
        """Returns the position in a token. Raises the refusal if the token was not issued here or was issued for another query."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            plain = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], orjson.dumps(list(query)))
        except (ValueError, InvalidTag) as error:
            raise self._refusal from error
        position: list[Key] = orjson.loads(plain)
        return position


def page_tokens(secret: str) -> PlaceTokens:
    """Returns the PlaceTokens of lists. They raise InvalidPageToken."""
    return PlaceTokens(secret, "page token", InvalidPageToken)
