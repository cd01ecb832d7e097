"""The issuer's public keys, fetched over HTTP (RFC 7517), cached, refreshed, and fetched again when a token names an unknown key."""

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
# Unknown kids cause at most one fetch in this time, because an attacker can invent any number of them.
MIN_FETCH_INTERVAL_SECONDS: Final = 2.0
# Before the first key set arrives, no token can be verified. The issuer may be starting at the same time. The interval doubles after each failure.
FIRST_FETCH_INTERVAL_SECONDS: Final = 0.1
LONGEST_FIRST_FETCH_INTERVAL_SECONDS: Final = 1.0
FETCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)

log = structlog.get_logger()


class RemoteKeys:
    """A KeySource over a JWKS URL. While the issuer is unavailable, the last valid set stays in use. A call with a known key never waits."""

    def __init__(self, url: str, registry: CollectorRegistry) -> None:
        self._url = url
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._tried_at = float("-inf")
        # The name of the last fetch's error, empty if it succeeded.
        self._last_error = ""
        self._first_interval_seconds = FIRST_FETCH_INTERVAL_SECONDS
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
        if key is None and (not self._keys or self._last_error):
            # The key may exist although this replica could not fetch it, and then the token is valid.
            raise DependencyUnavailable("auth_service")
        return key

    def holds(self, kid: str) -> bool:
        """See KeySource.holds."""
        if time.monotonic() - self._fetched_at > REFRESH_SECONDS:
            self._fetch_unless_just_tried()
        return kid in self._keys

    async def refresh(self) -> None:
        """Fetches the keys. Must run periodically, so that this replica removes a withdrawn key even if no client calls."""
        await self._fetched()

    async def ready(self) -> None:
        """A readiness check: this replica has keys to verify tokens with. Raises DependencyUnavailable."""
        if not self._keys:
            await self._fetched()
        if not self._keys:
            raise DependencyUnavailable("auth_service")

    async def _fetched(self) -> None:
        """Waits for the running fetch, or for a new one if the minimum interval has passed. A cancelled caller does not cancel the fetch."""
        self._fetch_unless_just_tried()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _fetch_unless_just_tried(self) -> None:
        interval = MIN_FETCH_INTERVAL_SECONDS if self._keys else self._first_interval_seconds
        if self._fetching is None and time.monotonic() - self._tried_at >= interval:
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            async with aiohttp.ClientSession(timeout=FETCH_TIMEOUT) as session, session.get(self._url) as response:
                response.raise_for_status()
                self._keys = public_keys(await response.json())
                self._fetched_at = time.monotonic()
            if self._last_error:
                log.info("jwks_fetch_recovered", url=self._url)
            self._last_error = ""
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.InvalidKeyError) as error:
            if self._last_error != type(error).__name__:
                log.log(WARNING if self._keys else INFO, "jwks_fetch_failed", url=self._url, error=type(error).__name__)
            self._last_error = type(error).__name__
            self._first_interval_seconds = min(2 * self._first_interval_seconds, LONGEST_FIRST_FETCH_INTERVAL_SECONDS)
        finally:
            self._tried_at = time.monotonic()
            self._fetching = None


def public_keys(jwks: Any) -> dict[str, Ed25519PublicKey]:
    """Returns the Ed25519 keys of a JWK set by `kid`. Raises ValueError if `jwks` is not a JWK set or has no such key."""
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise ValueError("not a JWK set")  # noqa: TRY004 - the received data is wrong, not the caller's argument
    keys: dict[str, Ed25519PublicKey] = {}
    for jwk in jwks["keys"]:
        if isinstance(jwk, dict) and jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519" and isinstance(jwk.get("kid"), str):
            key = jwt.PyJWK(jwk, algorithm="EdDSA").key
            if isinstance(key, Ed25519PublicKey):
                keys[jwk["kid"]] = key
    if not keys:
        raise ValueError("a JWK set without an Ed25519 key")
    return keys
