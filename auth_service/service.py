"""The use cases of accounts and sessions. Imports neither grpc, protobuf, asyncpg nor redis: what it needs of them is a Protocol here."""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from auth_service.domain import Credentials, Session, TokenPair, User, check_new_password, email_key, normalize_password
from auth_service.errors import InvalidCredentials, RefreshTokenInvalid, UserNotFound
from auth_service.sessions import new_refresh_token, refresh_token_hash


class AccountRepository(Protocol):
    """Where accounts and sessions are kept. Each method is one transaction. All raise DependencyUnavailable."""

    async def insert_user(self, user_id: UUID, *, email: str, key: str, name: str, password_hash: str) -> User:
        """The new account. Raises EmailTaken if `key` has one."""

    async def find_user(self, user_id: UUID) -> User | None:
        """The account, or None."""

    async def find_credentials(self, key: str) -> Credentials | None:
        """What a login under this email is checked against, or None."""

    async def insert_session(self, session: Session, token_hash: bytes, ttl_seconds: float) -> None:
        """Begins a session with its first refresh token. Raises InvalidCredentials if the account is gone by now."""

    async def rotate_refresh_token(self, used_hash: bytes, new_hash: bytes, ttl_seconds: float) -> Session | None:
        """Uses up one refresh token for the next, or None if it is not good. Of two at once, one has it."""

    async def end_session(self, token_hash: bytes) -> None:
        """Ends the session that a refresh token belongs to, if there is one."""


class Passwords(Protocol):
    """Hashes and compares passwords: see auth_service.passwords.PasswordHasher."""

    async def hash(self, password: str) -> str:
        """Raises Overloaded."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Raises Overloaded."""


class AccessTokens(Protocol):
    """Issues access tokens: see auth_service.sessions.AccessTokens."""

    ttl_seconds: int

    def issue(self, user_id: UUID, session_id: UUID) -> str:
        """A signed token."""


class AuthService:
    """Registration, login, and the life of a session."""

    def __init__(
        self,
        repository: AccountRepository,
        passwords: Passwords,
        access_tokens: AccessTokens,
        *,
        refresh_ttl_seconds: float,
        new_id: Callable[[], UUID],
    ) -> None:
        self._repository = repository
        self._passwords = passwords
        self._access_tokens = access_tokens
        self._refresh_ttl_seconds = refresh_ttl_seconds
        self._new_id = new_id

    async def register(self, *, email: str, password: str, name: str) -> User:
        """Makes an account. Raises InvalidField, EmailTaken, Overloaded."""
        check_new_password(normalize_password(password))
        password_hash = await self._passwords.hash(password)
        return await self._repository.insert_user(self._new_id(), email=email, key=email_key(email), name=name, password_hash=password_hash)

    async def login(self, *, email: str, password: str) -> TokenPair:
        """Begins a session. Raises InvalidCredentials, in the same time whatever it is that is wrong, and Overloaded."""
        credentials = await self._repository.find_credentials(email_key(email))
        matches = await self._passwords.verify(password, credentials.password_hash if credentials else None)
        if credentials is None or not matches:
            raise InvalidCredentials
        session = Session(self._new_id(), credentials.user_id)
        refresh_token = new_refresh_token()
        await self._repository.insert_session(session, refresh_token_hash(refresh_token), self._refresh_ttl_seconds)
        return self._tokens(session, refresh_token)

    async def refresh_token(self, token: str) -> TokenPair:
        """Carries a session on. Raises RefreshTokenInvalid."""
        successor = new_refresh_token()
        session = await self._repository.rotate_refresh_token(refresh_token_hash(token), refresh_token_hash(successor), self._refresh_ttl_seconds)
        if session is None:
            raise RefreshTokenInvalid
        return self._tokens(session, successor)

    async def logout(self, token: str) -> None:
        """Ends a session. A token that belongs to none is no error: the session is not there, as asked."""
        await self._repository.end_session(refresh_token_hash(token))

    async def get_me(self, user_id: UUID) -> User:
        """Raises UserNotFound."""
        user = await self._repository.find_user(user_id)
        if user is None:
            raise UserNotFound
        return user

    def _tokens(self, session: Session, refresh_token: str) -> TokenPair:
        access_token = self._access_tokens.issue(session.user_id, session.id)
        return TokenPair(access_token, self._access_tokens.ttl_seconds, refresh_token)
