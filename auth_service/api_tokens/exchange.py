"""Exchanges API tokens for access tokens, and keeps each access token for a few minutes, so that a look-up and a signature serve many calls.

Contract: a deleted or expired API token gets no access token from the commit or the expiry on, except that a replica gives out the one that it keeps
until it has read the deletion from the events, at most 2 s later; by then every other service rejects it too. An access token never outlives its API
token. It is given out for at most half of its lifetime, so that a stream that begins with it can last.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar
from uuid import UUID

from prometheus_client import CollectorRegistry, Gauge

from auth_service.api_tokens.domain import Exchanged, Grant
from auth_service.api_tokens.guesses import Guesses
from auth_service.api_tokens.tokens import api_token_hash, is_well_formed
from auth_service.client import Client
from auth_service.passwords.errors import TooManyAttempts
from auth_service.security_log import SecurityEvent, SecurityLog
from servicekit.errors import TokenInvalid
from servicekit.identity import Identity
from servicekit.meters import Counters

V = TypeVar("V")

# The most access tokens that a replica keeps, and the most unknown API tokens that it remembers. The least recently issued or seen one is dropped.
KEPT: Final = 10_000
# A client that goes on with an API token that was deleted costs one look-up, and one failed attempt, in this time.
UNKNOWN_SECONDS: Final = 600.0


class GrantRepository(Protocol):
    """Reads what API tokens allow."""

    async def use_api_token(self, token_hash: bytes) -> Grant | None:
        """Returns what the token allows, or None if it does not exist or has expired. Stores the use, unless one was stored within USE_GRAIN.

        Raises DependencyUnavailable.
        """


class AccessTokens(Protocol):
    """Issues access tokens: see auth_service.sessions.tokens.AccessTokens."""

    def require_key(self) -> None:
        """Raises NoSigningKey if there is no key to sign with."""

    def issue_for_api_token(self, user_id: UUID, token_id: UUID, expires_at: datetime, scopes: Sequence[str], name: str) -> tuple[str, int]:
        """Returns a signed token and its lifetime in seconds. Raises NoSigningKey."""


class Verifier(Protocol):
    """Verifies access tokens as every service does: see servicekit.access.tokens."""

    def known(self, token: str) -> Identity | None:
        """Returns the identity of a token that was verified before, or None. Raises TokenInvalid or DependencyUnavailable."""

    async def verify(self, token: str) -> Identity:
        """Returns the token's identity. Raises TokenInvalid or DependencyUnavailable."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An access token, and the times at which it is last given out and at which it expires, in seconds since 1970."""

    access_token: str
    until: float
    expires_at: int


class Exchange:
    """The use case, with what this replica keeps."""

    def __init__(
        self,
        repository: GrantRepository,
        access_tokens: AccessTokens,
        verifier: Verifier,
        guesses: Guesses,
        security_log: SecurityLog,
        registry: CollectorRegistry,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._access_tokens = access_tokens
        self._verifier = verifier
        self._guesses = guesses
        self._security_log = security_log
        self._now = now
        # By the hash of the API token, so that a dump of the memory contains few API tokens.
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        outcomes = Counters("auth_api_token_exchanges", "Exchanges of API tokens, by outcome.", ["outcome"], registry)
        self._was_kept, self._was_issued, self._was_malformed, self._was_unknown, self._was_limited = map(
            outcomes.labels, ("kept", "issued", "malformed", "unknown", "limited")
        )
        Gauge("auth_api_tokens_kept", "Access tokens that are kept for API tokens.", registry=registry).set_function(lambda: len(self._kept))

    def kept(self, token: bytes) -> Exchanged | None:
        """Returns the access token that this replica keeps for the API token (its text in ASCII), or None. Raises DependencyUnavailable."""
        kept = self._kept.get(api_token_hash(token))
        now = self._now()
        if kept is None or now >= kept.until:
            return None
        try:
            if self._verifier.known(kept.access_token) is None:
                return None
        except TokenInvalid:
            # The API token was deleted, or the key withdrawn: the look-up finds out.
            return None
        self._was_kept.inc()
        return Exchanged(kept.access_token, int(kept.expires_at - now))

    async def exchange(self, token: str, client: Client) -> Exchanged:
        """Returns an access token for the API token. Raises TokenInvalid, TooManyAttempts, NoSigningKey, DependencyUnavailable."""
        if not is_well_formed(token):
            self._was_malformed.inc()
            raise TokenInvalid
        ascii_token = token.encode()
        return self.kept(ascii_token) or await self._exchange(api_token_hash(ascii_token), client)

    async def _exchange(self, token_hash: bytes, client: Client) -> Exchanged:
        if self._unknown.get(token_hash, 0.0) > self._now():
            self._was_unknown.inc()
            raise TokenInvalid
        self._access_tokens.require_key()
        try:
            self._guesses.require_allowed(client.address)
            grant = await self._repository.use_api_token(token_hash)
            if grant is None:
                await self._refuse(token_hash, client)
                raise TokenInvalid
        except TooManyAttempts:
            self._was_limited.inc()
            raise
        return await self._issue(token_hash, grant)

    async def _refuse(self, token_hash: bytes, client: Client) -> None:
        """Counts an unknown API token. Raises TooManyAttempts if there were too many from the client's address."""
        self._was_unknown.inc()
        _remember(self._unknown, token_hash, self._now() + UNKNOWN_SECONDS)
        try:
            await self._guesses.failed(client.address)
        except TooManyAttempts:
            self._security_log.record(SecurityEvent.ATTEMPTS_LIMITED, client)
            raise
        self._security_log.record(SecurityEvent.API_TOKEN_REFUSED, client)

    async def _issue(self, token_hash: bytes, grant: Grant) -> Exchanged:
        issued = self._access_tokens.issue_for_api_token(grant.user_id, grant.api_token_id, grant.expires_at, grant.scopes, grant.name)
        access_token, seconds = issued
        identity = await self._verifier.verify(access_token)
        until = min(self._now() + seconds / 2, grant.use_again_at.timestamp())
        _remember(self._kept, token_hash, _Kept(access_token, until, identity.expires_at))
        self._was_issued.inc()
        return Exchanged(access_token, seconds)


def _remember(found: OrderedDict[bytes, V], token_hash: bytes, value: V) -> None:
    found[token_hash] = value
    found.move_to_end(token_hash)
    if len(found) > KEPT:
        found.popitem(last=False)
