"""The tokens of a session: access tokens are JWTs (RFC 9068), refresh tokens are random and stored only as hashes."""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from auth_service.keys.ring import KeyRing
from servicekit.access.tokens import ALGORITHM, TOKEN_TYPE

REFRESH_TOKEN_BYTES: Final = 32
NONCE_BYTES: Final = 12


class AccessTokens:
    """Issues access tokens. `ttl_seconds` is their maximum lifetime."""

    def __init__(self, keys: KeyRing, *, issuer: str, audience: str, ttl_seconds: int, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self._ttl_seconds = ttl_seconds

    def require_key(self) -> None:
        """Raises NoSigningKey if there is no key to sign with. Call it before any work that ends in a token."""
        self._keys.current()

    def issue(self, user_id: UUID, session_id: UUID, session_expires_at: datetime) -> tuple[str, int]:
        """Returns an access token for the user's session and its lifetime in seconds. Raises NoSigningKey.

        The token does not outlive the session, except that its lifetime is at least 1 second. It has no `scope`, so it allows everything.
        """
        return self._issue(user_id, session_id, session_expires_at, {})

    def issue_for_api_token(self, user_id: UUID, token_id: UUID, expires_at: datetime, scopes: Sequence[str], name: str) -> tuple[str, int]:
        """Returns an access token for the user's API token, with its scopes and its name, and its lifetime in seconds. Raises NoSigningKey.

        The access token does not outlive the API token, except that its lifetime is at least 1 second.
        """
        return self._issue(user_id, token_id, expires_at, {"scope": " ".join(scopes), "token_name": name})

    def _issue(self, user_id: UUID, session_id: UUID, session_expires_at: datetime, more: Mapping[str, str]) -> tuple[str, int]:
        kid, key = self._keys.current()
        issued_at = int(self._now())
        seconds = max(1, min(self._ttl_seconds, int(session_expires_at.timestamp()) - issued_at))
        claims: dict[str, str | int] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": issued_at,
            "exp": issued_at + seconds,
            "jti": secrets.token_urlsafe(16),
            **more,
        }
        return jwt.encode(claims, key, ALGORITHM, headers={"typ": TOKEN_TYPE, "kid": kid}), seconds


def new_refresh_token() -> str:
    """Returns 256 random bits as text. A plain hash of so many random bits cannot be reversed by a search."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def refresh_token_hash(token: str) -> bytes:
    """Returns the hash that is stored instead of the refresh token."""
    return hashlib.sha256(token.encode()).digest()


def seal_successor(token: str, successor: str) -> bytes:
    """Encrypts the successor of a refresh token. Only a client that has the token itself can decrypt it."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(token).encrypt(nonce, successor.encode(), None)


def open_successor(token: str, sealed: bytes) -> str:
    """Decrypts the successor of the token."""
    return _cipher(token).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None).decode()


def _cipher(token: str) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=b"task-manager refresh token successor").derive(token.encode()))
