"""Verifies access tokens (RFC 9068) as RFC 8725 asks: one algorithm, required claims, the type, issuer and audience, and no key from the token.

A token that was verified is remembered until it expires, so that the signature is checked once and not per call.
"""

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from servicekit.errors import TokenInvalid
from servicekit.identity import Identity

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type (RFC 9068 §2.1)
REQUIRED_CLAIMS: Final = ("iss", "aud", "sub", "sid", "iat", "exp", "jti")
CLOCK_SKEW_SECONDS: Final = 30
# An issuer that signs for longer is not ours, whatever its key.
MAX_LIFETIME_SECONDS: Final = 900
# Longer than any token of ours: what is longer is not worth the work of parsing it.
MAX_TOKEN_CHARACTERS: Final = 4096


class KeySource(Protocol):
    """Where the issuer's public keys come from."""

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """The key of that id, or None. Raises DependencyUnavailable if there are no keys at all yet."""


class TokenVerifier:
    """Tells who a token speaks for. `capacity` bounds the number of remembered tokens; the oldest go first."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, capacity: int = 10_000) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._capacity = capacity
        self._verified: dict[str, Identity] = {}

    async def verify(self, token: str) -> Identity:
        """The identity in the token. Raises TokenInvalid, or DependencyUnavailable while no key has been fetched yet."""
        identity = self._verified.get(token)
        if identity is None:
            identity = await self._verify(token)
            self._remember(token, identity)
        elif identity.expires_at <= time.time():
            del self._verified[token]
            raise TokenInvalid
        return identity

    async def _verify(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenInvalid
        try:
            key = await self._keys.find(_key_id(token))
            if key is None:
                raise TokenInvalid
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": list(REQUIRED_CLAIMS), "verify_iat": False, "strict_aud": True},
            )
            return _identity(claims)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenInvalid from error

    def _remember(self, token: str, identity: Identity) -> None:
        if len(self._verified) >= self._capacity:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = identity


def _key_id(token: str) -> str:
    """The `kid` of a token whose header is one of ours. jku, x5u, jwk and x5c are never looked at."""
    header = jwt.get_unverified_header(token)
    if header.get("alg") != ALGORITHM or str(header.get("typ", "")).lower() != TOKEN_TYPE or "crit" in header:
        raise TokenInvalid
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise TokenInvalid
    return kid


def _identity(claims: Mapping[str, Any]) -> Identity:
    issued_at, expires_at = claims["iat"], claims["exp"]
    if type(issued_at) is not int or type(expires_at) is not int or issued_at > time.time() + CLOCK_SKEW_SECONDS:
        raise TokenInvalid
    if expires_at - issued_at > MAX_LIFETIME_SECONDS:
        raise TokenInvalid
    subject, session, token_id = claims["sub"], claims["sid"], claims["jti"]
    if not (isinstance(subject, str) and isinstance(session, str) and isinstance(token_id, str) and token_id):
        raise TokenInvalid
    return Identity(user_id=UUID(subject), session_id=UUID(session), token_id=token_id, expires_at=expires_at)
