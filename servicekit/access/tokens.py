"""Verifies access tokens (RFC 9068) as RFC 8725 requires: one algorithm, required claims, the type, issuer and audience, and no key from the token.

A verified token is cached until it expires or its key is withdrawn, so that the signature is verified once and not on every call. Whether the
session is revoked is checked on every call.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.utils import base64url_decode

from servicekit.errors import TokenInvalid
from servicekit.identity import Identity
from servicekit.scopes import granted

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type (RFC 9068 §2.1)
REQUIRED_CLAIMS: Final = ("iss", "aud", "sub", "sid", "iat", "exp", "jti")
CLOCK_SKEW_SECONDS: Final = 30
# auth_service never issues a token for longer, so a longer lifetime is rejected, whatever key signed the token.
MAX_LIFETIME_SECONDS: Final = 900
# Longer than any token of auth_service. A longer one is rejected before it is parsed.
MAX_TOKEN_CHARACTERS: Final = 4096
# The deepest JSON that is accepted in a token. auth_service's tokens are flat.
MAX_DEPTH: Final = 16


class KeySource(Protocol):
    """The source of the issuer's public keys."""

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """Returns the key with that id, or None. Raises DependencyUnavailable if the id is unknown because the keys could not be read."""

    def holds(self, kid: str) -> bool:
        """Whether the last key set that was read has that key."""


class SessionCheck(Protocol):
    """Knows the revoked sessions: see servicekit.access.revocations."""

    def check(self, identity: Identity) -> None:
        """Raises TokenInvalid if the identity's session is revoked or its account deleted, DependencyUnavailable if that is not known."""


class TokenVerifier:
    """Verifies tokens and returns their identities. `capacity` limits the number of cached tokens; the oldest is evicted first."""

    def __init__(self, keys: KeySource, sessions: SessionCheck, *, issuer: str, audience: str, capacity: int = 10_000) -> None:
        self._keys = keys
        self._sessions = sessions
        self._issuer = issuer
        self._audience = audience
        self._capacity = capacity
        # By token: the identity, and the id of the key that verified the token.
        self._verified: dict[str, tuple[Identity, str]] = {}

    async def verify(self, token: str) -> Identity:
        """Returns the token's identity. Raises TokenInvalid, or DependencyUnavailable if the keys or the revoked sessions are not known."""
        identity = self.known(token)
        if identity is None:
            self._remember(token, await self._verify(token))
            identity = self.known(token)
            assert identity is not None
        return identity

    def known(self, token: str) -> Identity | None:
        """Returns the identity of a token that was verified before, or None. Raises as `verify` does."""
        found = self._verified.get(token)
        if found is None:
            return None
        identity, kid = found
        if identity.expires_at <= time.time() or not self._keys.holds(kid):
            self._verified.pop(token, None)
            raise TokenInvalid
        self._sessions.check(identity)
        return identity

    async def _verify(self, token: str) -> tuple[Identity, str]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenInvalid
        try:
            _require_plain(token)
            kid = _key_id(token)
            key = await self._keys.find(kid)
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
            return _identity(claims), kid
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenInvalid from error

    def _remember(self, token: str, known: tuple[Identity, str]) -> None:
        if len(self._verified) >= self._capacity:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = known


def _require_plain(token: str) -> None:
    """Raises ValueError for a token that two parsers could read differently (RFC 8725 §2.4, §3.7) or that has padding (RFC 7515 §2).

    The gateway rejects the same tokens.
    """
    if "=" in token:
        raise ValueError("padding")
    for part in token.split(".")[:2]:
        _require_plain_value(json.loads(base64url_decode(part).decode("utf-8"), object_pairs_hook=_unique), MAX_DEPTH)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _require_plain_value(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError("too deep")
    match value:
        case str():
            value.encode()  # raises for half of a surrogate pair
        case float() if not math.isfinite(value):
            raise ValueError("not a number")
        case int() if abs(value) >= 2**63:
            raise ValueError("too large a number")
        case list():
            for item in value:
                _require_plain_value(item, depth - 1)
        case dict():
            for name, item in value.items():
                _require_plain_value(name, depth - 1)
                _require_plain_value(item, depth - 1)


def _key_id(token: str) -> str:
    """Returns the `kid` in the token's header. Raises TokenInvalid if the header is not one of auth_service. Ignores jku, x5u, jwk and x5c."""
    header = jwt.get_unverified_header(token)
    if header.get("alg") != ALGORITHM or str(header.get("typ", "")).lower() != TOKEN_TYPE or "crit" in header:
        raise TokenInvalid
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise TokenInvalid
    return kid


def _identity(claims: Mapping[str, Any]) -> Identity:
    issued_at, expires_at, not_before = claims["iat"], claims["exp"], claims.get("nbf", 0)
    if type(not_before) is not int or not_before < 0:
        raise TokenInvalid
    if type(issued_at) is not int or type(expires_at) is not int or issued_at > time.time() + CLOCK_SKEW_SECONDS:
        raise TokenInvalid
    if expires_at - issued_at > MAX_LIFETIME_SECONDS:
        raise TokenInvalid
    subject, session, token_id = claims["sub"], claims["sid"], claims["jti"]
    if not (isinstance(subject, str) and isinstance(session, str) and isinstance(token_id, str) and token_id):
        raise TokenInvalid
    scopes = _scopes(claims["scope"]) if "scope" in claims else None
    name = claims.get("token_name", "")
    if not isinstance(name, str):
        raise TokenInvalid
    return Identity(_id(subject), _id(session), token_id, expires_at, scopes=scopes, api_token_name=name)


def _scopes(claim: Any) -> frozenset[str]:
    """Returns what the claim `scope` (RFC 8693 §4.2) grants. Only the access tokens of API tokens have the claim."""
    if not isinstance(claim, str):
        raise TokenInvalid
    return granted(claim.split(" "))


def _id(text: str) -> UUID:
    """Returns the id. Accepts only the canonical form, in which auth_service writes ids."""
    value = UUID(text)
    if str(value) != text:
        raise TokenInvalid
    return value
