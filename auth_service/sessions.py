"""The tokens of a session: access tokens are JWTs (RFC 9068), refresh tokens are random and kept only as hashes."""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import jwt

from auth_service.keys import SigningKeys
from servicekit.tokens import ALGORITHM, TOKEN_TYPE

REFRESH_TOKEN_BYTES: Final = 32


class AccessTokens:
    """Issues access tokens. `ttl_seconds` is how long each is good for."""

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, ttl_seconds: int, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self.ttl_seconds = ttl_seconds

    def issue(self, user_id: UUID, session_id: UUID) -> str:
        """A token that speaks for the user, in the session."""
        issued_at = int(self._now())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": issued_at,
            "exp": issued_at + self.ttl_seconds,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self._keys.current, ALGORITHM, headers={"typ": TOKEN_TYPE, "kid": self._keys.current_id})


def new_refresh_token() -> str:
    """256 random bits: as good as a key, so a plain hash of it cannot be searched."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def refresh_token_hash(token: str) -> bytes:
    """What is kept of a refresh token."""
    return hashlib.sha256(token.encode()).digest()
