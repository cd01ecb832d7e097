"""The issuer's public keys, fetched over HTTP (RFC 7517): kept, refreshed, and asked for again when a token names a key that is not among them."""

import asyncio
import time
from collections.abc import Mapping
from logging import INFO, WARNING
from typing import Any, Final

import aiohttp
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from servicekit.errors import DependencyUnavailable

REFRESH_SECONDS: Final = 60.0
# An unknown kid is asked for at most this often: a stranger can make up as many as he likes.
MIN_FETCH_INTERVAL_SECONDS: Final = 2.0
# Until the first set has come there is nothing to serve with: the issuer may be starting beside us.
FIRST_FETCH_INTERVAL_SECONDS: Final = 0.1
FETCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)

log = structlog.get_logger()


class RemoteKeys:
    """A KeySource over a JWKS URL. While the issuer is away the last good set stays in use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """See KeySource.find."""
        key = self._keys.get(kid)
        if key is None or time.monotonic() - self._fetched_at > REFRESH_SECONDS:
            await self._fetch_unless_just_tried()
            key = self._keys.get(kid)
        if not self._keys:
            raise DependencyUnavailable("auth_service")
        return key

    async def ready(self) -> None:
        """A readiness check: there are keys to verify with. Raises DependencyUnavailable."""
        if not self._keys:
            await self._fetch_unless_just_tried()
        if not self._keys:
            raise DependencyUnavailable("auth_service")

    async def _fetch_unless_just_tried(self) -> None:
        async with self._fetching:
            interval = MIN_FETCH_INTERVAL_SECONDS if self._keys else FIRST_FETCH_INTERVAL_SECONDS
            if time.monotonic() - self._tried_at < interval:
                return
            self._tried_at = time.monotonic()
            try:
                async with aiohttp.ClientSession(timeout=FETCH_TIMEOUT) as session, session.get(self._url) as response:
                    response.raise_for_status()
                    keys = public_keys(await response.json())
            except (aiohttp.ClientError, TimeoutError, ValueError, jwt.InvalidKeyError) as error:
                log.log(WARNING if self._keys else INFO, "jwks_fetch_failed", url=self._url, error=type(error).__name__)
                return
            self._keys, self._fetched_at = keys, time.monotonic()


def public_keys(jwks: Any) -> dict[str, Ed25519PublicKey]:
    """The Ed25519 keys of a JWK set by `kid`. Raises ValueError if it is no set or has none."""
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise ValueError("not a JWK set")  # noqa: TRY004 - it is what was sent that is wrong
    keys: dict[str, Ed25519PublicKey] = {}
    for jwk in jwks["keys"]:
        if isinstance(jwk, dict) and jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519" and isinstance(jwk.get("kid"), str):
            key = jwt.PyJWK(jwk, algorithm="EdDSA").key
            if isinstance(key, Ed25519PublicKey):
                keys[jwk["kid"]] = key
    if not keys:
        raise ValueError("a JWK set without an Ed25519 key")
    return keys
