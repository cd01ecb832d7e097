"""The use cases of accounts and sessions. Imports neither grpc, protobuf, asyncpg nor redis: what it needs of them is a Protocol here."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from auth_service.domain import Client, Credentials, Repeated, Reused, Rotated, Session, SessionDetails, SessionLifetime, TokenPair, User, email_key
from auth_service.errors import InvalidCredentials, RefreshTokenInvalid, SessionNotFound, TooManyAttempts, UserNotFound, WrongPassword
from auth_service.login_guard import LoginGuard, network_of
from auth_service.password_rules import PasswordRules
from auth_service.security_log import SecurityEvent, SecurityLog
from auth_service.sessions import new_refresh_token, open_successor, refresh_token_hash, seal_successor
from servicekit.errors import DependencyUnavailable, Overloaded
from servicekit.identity import Identity

T = TypeVar("T")


class AccountRepository(Protocol):
    """Where accounts and sessions are kept. Each method is one transaction, with what it adds to the event log. All raise DependencyUnavailable.

    Where it takes Credentials, it does nothing if the account is gone or its password was changed since they were read.
    """

    async def insert_user(self, user_id: UUID, *, email: str, key: str, name: str, password_hash: str) -> User:
        """The new account. Raises EmailTaken if `key` has one."""

    async def find_user(self, user_id: UUID) -> User | None:
        """The account, or None."""

    async def update_name(self, user_id: UUID, name: str) -> User | None:
        """The account with its new name, or None if there is none."""

    async def find_credentials(self, user_id: UUID) -> Credentials | None:
        """What the account's password is checked against, or None."""

    async def find_login(self, key: str, network: str) -> tuple[Credentials | None, bool]:
        """What a login under this email is checked against, or None; and whether the account was logged in to from the network lately."""

    async def update_hash(self, credentials: Credentials, password_hash: str) -> None:
        """Keeps another hash of the same password."""

    async def change_password(self, credentials: Credentials, password_hash: str, session_id: UUID) -> bool:
        """Keeps the hash of another password and ends all sessions but one. Whether it did."""

    async def delete_user(self, credentials: Credentials) -> bool:
        """Deletes the account and all its sessions. Whether it did."""

    async def insert_session(
        self, session_id: UUID, credentials: Credentials, token_hash: bytes, client: Client, network: str, lifetime: SessionLifetime
    ) -> Session | None:
        """Begins a session with its first refresh token, and remembers the network that it came from. None if it did not."""

    async def use_refresh_token(
        self, token_hash: bytes, new_hash: bytes, sealed_successor: bytes, idle_seconds: float
    ) -> Rotated | Repeated | Reused | None:
        """Uses up a refresh token for the next, or says why not; None if it is unknown or its session is over. Of two at once, one uses it."""

    async def find_reused(self, token_hash: bytes) -> Reused | None:
        """Whose token it is that use_refresh_token said None of, if it was used before the grace, in a session that is over; else None."""

    async def list_sessions(self, user_id: UUID) -> Sequence[SessionDetails]:
        """The user's sessions that go on, the most recently used first."""

    async def end_session(self, user_id: UUID, session_id: UUID) -> bool:
        """Ends a session of the user's. Whether there was one to end."""

    async def end_session_of(self, token_hash: bytes) -> tuple[UUID, UUID] | None:
        """Ends the session that a refresh token belongs to. Its id and its user's, or None if there was none to end."""


class Passwords(Protocol):
    """Hashes and compares passwords: see auth_service.passwords.PasswordHasher."""

    async def hash(self, password: str) -> str:
        """Raises Overloaded."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Raises Overloaded."""

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it is to be hashed anew."""


class AccessTokens(Protocol):
    """Issues access tokens: see auth_service.sessions.AccessTokens."""

    def require_key(self) -> None:
        """Raises NoSigningKey."""

    def issue(self, user_id: UUID, session_id: UUID, session_expires_at: datetime) -> tuple[str, int]:
        """A signed token, and for how many seconds it is good."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What both services are made of. `announce` tells the other processes that there are new events."""

    repository: AccountRepository
    passwords: Passwords
    rules: PasswordRules
    guard: LoginGuard
    security_log: SecurityLog
    announce: Callable[[], Awaitable[None]]
    new_id: Callable[[], UUID]

    async def confirmed(self, identity: Identity, password: str, client: Client) -> Credentials:
        """The caller's credentials, if the password is theirs: a token alone is not enough for what cannot be undone.

        Raises UserNotFound, WrongPassword, TooManyAttempts, Overloaded.
        """
        try:
            async with self.guard.attempt() as attempt:
                await attempt.on_confirmation(identity.user_id)
                credentials = await self.repository.find_credentials(identity.user_id)
                if credentials is None:
                    raise UserNotFound
                if not await self.passwords.verify(password, credentials.password_hash):
                    raise WrongPassword
                return credentials
        except WrongPassword:
            self.security_log.record(SecurityEvent.WRONG_PASSWORD, client, user_id=identity.user_id, session_id=identity.session_id)
            raise
        except TooManyAttempts:
            self.security_log.record(SecurityEvent.ATTEMPTS_LIMITED, client, user_id=identity.user_id, session_id=identity.session_id)
            raise


class AuthService:
    """Registration, login, and the life of a session."""

    def __init__(self, parts: Parts, access_tokens: AccessTokens, lifetime: SessionLifetime) -> None:
        self._parts = parts
        self._repository = parts.repository
        self._access_tokens = access_tokens
        self._lifetime = lifetime

    async def register(self, *, email: str, password: str, name: str, client: Client) -> User:
        """Makes an account. Raises InvalidField, EmailTaken, TooManyAttempts, Overloaded."""
        self._parts.rules.check("password", password, email=email, name=name)
        try:
            # To be told of an email that it is taken is worth as much as a failed login.
            async with self._parts.guard.attempt() as attempt:
                await attempt.from_address(client.address)
                password_hash = await self._parts.passwords.hash(password)
                user = await _to_its_end(self._insert_user(email, password_hash, name, client))
                # Accounts are not to be had without number.
                attempt.keep()
        except TooManyAttempts:
            self._record(SecurityEvent.ATTEMPTS_LIMITED, client)
            raise
        return user

    async def _insert_user(self, email: str, password_hash: str, name: str, client: Client) -> User:
        user_id = self._parts.new_id()
        user = await self._repository.insert_user(user_id, email=email, key=email_key(email), name=name, password_hash=password_hash)
        self._record(SecurityEvent.ACCOUNT_CREATED, client, user_id=user.id)
        return user

    async def login(self, *, email: str, password: str, client: Client) -> TokenPair:
        """Begins a session. Raises InvalidCredentials, in the same time whatever it is that is wrong, TooManyAttempts and Overloaded."""
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
            session = await _to_its_end(self._begin_session(credentials, refresh_token, client))
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
            # The session has begun. What does not come about now, the next login does.
            with contextlib.suppress(Overloaded, DependencyUnavailable):
                await self._repository.update_hash(credentials, await self._parts.passwords.hash(password))

    async def refresh_token(self, token: str, client: Client) -> TokenPair:
        """Carries a session on. Raises RefreshTokenInvalid, and NoSigningKey before the token is used up."""
        self._access_tokens.require_key()
        successor = new_refresh_token()
        match await _to_its_end(self._use(token, successor, client)):
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
        """Ends a session. A token that belongs to none is no error: the session is not there, as asked."""
        await _to_its_end(self._logout(token, client))

    async def _logout(self, token: str, client: Client) -> None:
        ended = await self._repository.end_session_of(refresh_token_hash(token))
        if ended is not None:
            self._record(SecurityEvent.LOGGED_OUT, client, user_id=ended[1], session_id=ended[0])
            await self._parts.announce()

    async def list_sessions(self, identity: Identity) -> Sequence[SessionDetails]:
        """The caller's sessions that go on, the most recently used first."""
        return await self._repository.list_sessions(identity.user_id)

    async def revoke_session(self, identity: Identity, session_id: UUID, client: Client) -> None:
        """Ends a session of the caller's. Raises SessionNotFound."""
        await _to_its_end(self._revoke(identity, session_id, client))

    async def _revoke(self, identity: Identity, session_id: UUID, client: Client) -> None:
        if not await self._repository.end_session(identity.user_id, session_id):
            raise SessionNotFound
        self._record(SecurityEvent.SESSION_REVOKED, client, user_id=identity.user_id, session_id=session_id)
        await self._parts.announce()

    async def change_password(self, identity: Identity, *, current_password: str, new_password: str, client: Client) -> None:
        """Changes the password and ends all other sessions. Raises InvalidField and what Parts.confirmed does."""
        credentials = await self._parts.confirmed(identity, current_password, client)
        self._parts.rules.check("new_password", new_password, email=credentials.email, name=credentials.name)
        password_hash = await self._parts.passwords.hash(new_password)
        await _to_its_end(self._change(credentials, password_hash, identity, client))

    async def _change(self, credentials: Credentials, password_hash: str, identity: Identity, client: Client) -> None:
        if not await self._repository.change_password(credentials, password_hash, identity.session_id):
            raise WrongPassword
        self._record(SecurityEvent.PASSWORD_CHANGED, client, user_id=identity.user_id, session_id=identity.session_id)
        await self._parts.announce()

    def _tokens(self, session: Session, refresh_token: str) -> TokenPair:
        access_token, seconds = self._access_tokens.issue(session.user_id, session.id, session.expires_at)
        return TokenPair(access_token, seconds, refresh_token)

    def _record(self, event: SecurityEvent, client: Client, *, user_id: UUID | None = None, session_id: UUID | None = None) -> None:
        self._parts.security_log.record(event, client, user_id=user_id, session_id=session_id)


class UserService:
    """The caller's account."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._repository = parts.repository

    async def get_me(self, identity: Identity) -> User:
        """Raises UserNotFound."""
        return _found(await self._repository.find_user(identity.user_id))

    async def update_me(self, identity: Identity, name: str | None) -> User:
        """Sets the name, unless it is None. Raises UserNotFound."""
        if name is None:
            return await self.get_me(identity)
        return _found(await self._repository.update_name(identity.user_id, name))

    async def delete_me(self, identity: Identity, password: str, client: Client) -> None:
        """Deletes the account and ends its sessions; its tasks follow. Raises what Parts.confirmed does."""
        credentials = await self._parts.confirmed(identity, password, client)
        await _to_its_end(self._delete(credentials, identity, client))

    async def _delete(self, credentials: Credentials, identity: Identity, client: Client) -> None:
        if not await self._repository.delete_user(credentials):
            raise WrongPassword
        self._parts.security_log.record(SecurityEvent.ACCOUNT_DELETED, client, user_id=identity.user_id, session_id=identity.session_id)
        await self._parts.announce()


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Does what changes something, and logs it, also when the caller leaves meanwhile: else a thief would leave no trace by leaving in time.

    It is short, whatever it waits for has a bound of its own, and until it is done the call is under way and counts as such.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # There is nobody left to be told how it ended.
        with contextlib.suppress(Exception):
            await asyncio.shield(task)
        raise


def _found(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
