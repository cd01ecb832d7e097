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
from prometheus_client import CollectorRegistry, Gauge

from servicekit.errors import DependencyUnavailable

REFRESH_SECONDS: Final = 60.0
# An unknown kid is asked for at most this often: a stranger can make up as many as he likes.
MIN_FETCH_INTERVAL_SECONDS: Final = 2.0
# Until the first set has come there is nothing to serve with: the issuer may be starting beside us.
FIRST_FETCH_INTERVAL_SECONDS: Final = 0.1
FETCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)

log = structlog.get_logger()


class RemoteKeys:
    """A KeySource over a JWKS URL. While the issuer is away the last good set stays in use, and nobody who has a known key waits."""

    def __init__(self, url: str, registry: CollectorRegistry) -> None:
        self._url = url
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._tried_at = float("-inf")
        self._failed = False
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        age = Gauge("jwks_age_seconds", "Time since auth_service's public keys were fetched.", registry=registry)
        age.set_function(lambda: time.monotonic() - self._fetched_at)

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """See KeySource.find."""
        key = self._keys.get(kid)
        if key is None:
            await self._fetched()
            key = self._keys.get(kid)
        if key is None and (not self._keys or self._failed):
            # It may be one that we could not fetch, and then the token is good.
            raise DependencyUnavailable("auth_service")
        return key

    def holds(self, kid: str) -> bool:
        """See KeySource.holds."""
        if time.monotonic() - self._fetched_at > REFRESH_SECONDS:
            self._fetch_unless_just_tried()
        return kid in self._keys

    async def refresh(self) -> None:
        """Fetches them, to be done now and then: a withdrawn key must go even where nobody calls."""
        await self._fetched()

    async def ready(self) -> None:
        """A readiness check: there are keys to verify with. Raises DependencyUnavailable."""
        if not self._keys:
            await self._fetched()
        if not self._keys:
            raise DependencyUnavailable("auth_service")

    async def _fetched(self) -> None:
        """Waits for the fetch under way, or a new one if it is time. A caller that leaves does not take it from the others."""
        self._fetch_unless_just_tried()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _fetch_unless_just_tried(self) -> None:
        interval = MIN_FETCH_INTERVAL_SECONDS if self._keys else FIRST_FETCH_INTERVAL_SECONDS
        if self._fetching is None and time.monotonic() - self._tried_at >= interval:
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            async with aiohttp.ClientSession(timeout=FETCH_TIMEOUT) as session, session.get(self._url) as response:
                response.raise_for_status()
                self._keys = public_keys(await response.json())
                self._fetched_at = time.monotonic()
                self._failed = False
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.InvalidKeyError) as error:
            self._failed = True
            log.log(WARNING if self._keys else INFO, "jwks_fetch_failed", url=self._url, error=type(error).__name__)
        finally:
            self._tried_at = time.monotonic()
            self._fetching = None


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
