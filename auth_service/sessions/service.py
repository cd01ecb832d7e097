"""The use cases of sessions. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what the use cases need."""

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from auth_service.client import Client
from auth_service.passwords.errors import TooManyAttempts
from auth_service.passwords.login_guard import network_of
from auth_service.security_log import SecurityEvent
from auth_service.sessions.domain import Repeated, Reused, Rotated, Session, SessionDetails, SessionLifetime, TokenPair
from auth_service.sessions.errors import InvalidCredentials, RefreshTokenInvalid, SessionNotFound
from auth_service.sessions.tokens import new_refresh_token, open_successor, refresh_token_hash, seal_successor
from auth_service.users.domain import Credentials, email_key
from auth_service.users.service import Parts
from servicekit.completion import run_to_completion
from servicekit.errors import DependencyUnavailable, Overloaded, TimeLimitExceeded
from servicekit.identity import Identity


class SessionRepository(Protocol):
    """Stores sessions. Each method is one transaction, including its rows in the event log. All methods raise DependencyUnavailable.

    A method that takes Credentials changes nothing if the account was deleted or its password changed since they were read.
    """

    async def find_login(self, key: str, network: str) -> tuple[Credentials | None, bool]:
        """Returns the account's credentials, or None, and whether there was a login from the network in the last KNOWN_ADDRESS_DAYS."""

    async def update_hash(self, credentials: Credentials, password_hash: str) -> None:
        """Stores a new hash of the same password."""

    async def insert_session(
        self, session_id: UUID, credentials: Credentials, token_hash: bytes, client: Client, network: str, lifetime: SessionLifetime
    ) -> Session | None:
        """Begins a session with its first refresh token and stores the client's network as known. Returns None if it began no session."""

    async def use_refresh_token(
        self, token_hash: bytes, new_hash: bytes, sealed_successor: bytes, idle_seconds: float
    ) -> Rotated | Repeated | Reused | None:
        """Replaces a refresh token with its successor (Rotated), or returns Repeated or Reused. Of two concurrent calls only one replaces it.

        Returns None if the token is unknown or its session has ended or expired.
        """

    async def find_reused(self, token_hash: bytes) -> Reused | None:
        """For a token for which use_refresh_token returned None: returns its session and user if it was used longer ago than the grace, else None."""

    async def list_sessions(self, user_id: UUID) -> Sequence[SessionDetails]:
        """Returns the user's active sessions, most recently used first."""

    async def end_session(self, user_id: UUID, session_id: UUID) -> bool:
        """Ends the user's session. Returns False if the user has no such active session."""

    async def end_session_of(self, token_hash: bytes) -> tuple[UUID, UUID] | None:
        """Ends the session of a refresh token. Returns the ids of the session and its user, or None if there was no session to end."""


class AccessTokens(Protocol):
    """Issues access tokens: see auth_service.sessions.tokens.AccessTokens."""

    def require_key(self) -> None:
        """Raises NoSigningKey if there is no key to sign with."""

    def issue(self, user_id: UUID, session_id: UUID, session_expires_at: datetime) -> tuple[str, int]:
        """Returns a signed token and its lifetime in seconds. Raises NoSigningKey."""


class SessionService:
    """The use cases of a session, from login to its end."""

    def __init__(self, repository: SessionRepository, parts: Parts, access_tokens: AccessTokens, lifetime: SessionLifetime) -> None:
        self._repository = repository
        self._parts = parts
        self._access_tokens = access_tokens
        self._lifetime = lifetime

    async def login(self, *, email: str, password: str, client: Client) -> TokenPair:
        """Begins a session. Raises NoSigningKey, TooManyAttempts, Overloaded, InvalidCredentials.

        InvalidCredentials takes the same time for an unknown email and for a wrong password.
        """
        self._access_tokens.require_key()
        refresh_token = new_refresh_token()
        try:
            session = await self._login(email_key(email), password, refresh_token, client)
        except InvalidCredentials:
            self._record(SecurityEvent.LOGIN_FAILED, client)
            raise
        except TooManyAttempts:
            self._record(SecurityEvent.ATTEMPTS_LIMITED, client)
            raise
        return self._tokens(session, refresh_token)

    async def _login(self, key: str, password: str, refresh_token: str, client: Client) -> Session:
        async with self._parts.guard.attempt() as attempt:
            credentials, known = await self._repository.find_login(key, network_of(client.address))
            await attempt.on_login(key, client.address, known=known)
            matches = await self._parts.passwords.verify(password, credentials.password_hash if credentials else None)
            if credentials is None or not matches:
                raise InvalidCredentials
            session = await run_to_completion(self._begin_session(credentials, refresh_token, client))
        await self._rehash(credentials, password)
        return session

    async def _begin_session(self, credentials: Credentials, refresh_token: str, client: Client) -> Session:
        session = await self._repository.insert_session(
            self._parts.new_id(), credentials, refresh_token_hash(refresh_token), client, network_of(client.address), self._lifetime
        )
        if session is None:
            raise InvalidCredentials
        self._record(SecurityEvent.LOGIN_SUCCEEDED, client, user_id=session.user_id, session_id=session.id)
        return session

    async def _rehash(self, credentials: Credentials, password: str) -> None:
        if self._parts.passwords.is_outdated(credentials.password_hash):
            # The session has begun. If the renewal of the hash fails, the next login tries again.
            with contextlib.suppress(Overloaded, DependencyUnavailable, TimeLimitExceeded):
                await self._repository.update_hash(credentials, await self._parts.passwords.hash(password))

    async def refresh_token(self, token: str, client: Client) -> TokenPair:
        """Refreshes the session and returns new tokens. Raises RefreshTokenInvalid, and NoSigningKey before the token is used up."""
        self._access_tokens.require_key()
        successor = new_refresh_token()
        match await run_to_completion(self._use(token, successor, client)):
            case Rotated(session):
                return self._tokens(session, successor)
            case Repeated(session, sealed):
                return self._tokens(session, open_successor(token, sealed))
        raise RefreshTokenInvalid

    async def _use(self, token: str, successor: str, client: Client) -> Rotated | Repeated | None:
        token_hash = refresh_token_hash(token)
        outcome = await self._repository.use_refresh_token(
            token_hash, refresh_token_hash(successor), seal_successor(token, successor), self._lifetime.idle_seconds
        )
        reused = outcome or await self._repository.find_reused(token_hash)
        if not isinstance(reused, Reused):
            return reused
        self._record(SecurityEvent.REFRESH_TOKEN_REUSED, client, user_id=reused.user_id, session_id=reused.session_id)
        if outcome is not None:
            await self._parts.announce()
        return None

    async def logout(self, token: str, client: Client) -> None:
        """Ends the session of the refresh token. A token without an active session is no error, because there is nothing to end."""
        await run_to_completion(self._logout(token, client))

    async def _logout(self, token: str, client: Client) -> None:
        ended = await self._repository.end_session_of(refresh_token_hash(token))
        if ended is not None:
            self._record(SecurityEvent.LOGGED_OUT, client, user_id=ended[1], session_id=ended[0])
            await self._parts.announce()

    async def list_sessions(self, identity: Identity) -> Sequence[SessionDetails]:
        """Returns the caller's active sessions, most recently used first."""
        return await self._repository.list_sessions(identity.user_id)

    async def revoke_session(self, identity: Identity, session_id: UUID, client: Client) -> None:
        """Ends one of the caller's sessions. Raises SessionNotFound."""
        await run_to_completion(self._revoke(identity, session_id, client))

    async def _revoke(self, identity: Identity, session_id: UUID, client: Client) -> None:
        if not await self._repository.end_session(identity.user_id, session_id):
            raise SessionNotFound
        self._record(SecurityEvent.SESSION_REVOKED, client, user_id=identity.user_id, session_id=session_id)
        await self._parts.announce()

    def _tokens(self, session: Session, refresh_token: str) -> TokenPair:
        access_token, seconds = self._access_tokens.issue(session.user_id, session.id, session.expires_at)
        return TokenPair(access_token, seconds, refresh_token)

    def _record(self, event: SecurityEvent, client: Client, *, user_id: UUID | None = None, session_id: UUID | None = None) -> None:
        self._parts.security_log.record(event, client, user_id=user_id, session_id=session_id)
