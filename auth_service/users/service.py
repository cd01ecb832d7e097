"""The use cases of accounts. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what the use cases need."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from auth_service.client import Client
from auth_service.passwords.domain import Passwords
from auth_service.passwords.errors import TooManyAttempts, TooManyRegistrations
from auth_service.passwords.login_guard import LoginGuard
from auth_service.passwords.rules import PasswordRules
from auth_service.security_log import SecurityEvent, SecurityLog
from auth_service.users.domain import Credentials, User, email_key
from auth_service.users.errors import UserNotFound, WrongPassword
from servicekit.completion import run_to_completion
from servicekit.identity import Identity


class UserRepository(Protocol):
    """Stores accounts. Each method is one transaction, including its rows in the event log. All methods raise DependencyUnavailable.

    A method that takes Credentials changes nothing if the account was deleted or its password changed since they were read.
    """

    async def insert_user(self, user_id: UUID, *, email: str, key: str, name: str, password_hash: str) -> User:
        """Inserts and returns the account. Raises EmailTaken if `key` has one."""

    async def find_user(self, user_id: UUID) -> User | None:
        """Returns the account, or None."""

    async def update_name(self, user_id: UUID, name: str) -> User | None:
        """Sets the name. Returns the account, or None if it does not exist."""

    async def find_credentials(self, user_id: UUID) -> Credentials | None:
        """Returns the account's credentials, or None."""

    async def change_password(self, credentials: Credentials, password_hash: str, session_id: UUID, *, revoke_api_tokens: bool = False) -> bool:
        """Stores the hash of a new password, ends all sessions except `session_id` and, if told, deletes all API tokens. Returns whether it did."""

    async def delete_user(self, credentials: Credentials) -> bool:
        """Deletes the account with all its sessions and API tokens. Returns whether it did."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that the use cases of accounts and of sessions share. `announce` notifies the other processes of new events."""

    passwords: Passwords
    rules: PasswordRules
    guard: LoginGuard
    security_log: SecurityLog
    announce: Callable[[], Awaitable[None]]
    new_id: Callable[[], UUID]


class UserService:
    """The use cases of registration and of the caller's account."""

    def __init__(self, repository: UserRepository, parts: Parts) -> None:
        self._repository = repository
        self._parts = parts

    async def register(self, *, email: str, password: str, name: str, client: Client) -> User:
        """Creates an account. Raises InvalidField, EmailTaken, TooManyRegistrations, TooManyAttempts, Overloaded."""
        self._parts.rules.check("password", password, email=email, name=name)
        try:
            # The answer that an email is taken tells an attacker as much as a failed login, so it counts like one.
            async with self._parts.guard.attempt() as attempt:
                await attempt.on_registration(client.address)
                password_hash = await self._parts.passwords.hash(password)
                user = await run_to_completion(self._insert_user(email, password_hash, name, client))
        except TooManyRegistrations:
            self._parts.security_log.record(SecurityEvent.REGISTRATIONS_LIMITED, client)
            raise
        except TooManyAttempts:
            self._parts.security_log.record(SecurityEvent.ATTEMPTS_LIMITED, client)
            raise
        return user

    async def _insert_user(self, email: str, password_hash: str, name: str, client: Client) -> User:
        user_id = self._parts.new_id()
        user = await self._repository.insert_user(user_id, email=email, key=email_key(email), name=name, password_hash=password_hash)
        self._parts.security_log.record(SecurityEvent.ACCOUNT_CREATED, client, user_id=user.id)
        return user

    async def get_me(self, identity: Identity) -> User:
        """Returns the caller's account. Raises UserNotFound."""
        return _found(await self._repository.find_user(identity.user_id))

    async def update_me(self, identity: Identity, name: str | None) -> User:
        """Sets the name unless it is None, and returns the account. Raises UserNotFound."""
        if name is None:
            return await self.get_me(identity)
        return _found(await self._repository.update_name(identity.user_id, name))

    async def change_password(
        self, identity: Identity, *, current_password: str, new_password: str, client: Client, revoke_api_tokens: bool = False
    ) -> None:
        """Changes the password and ends all other sessions, and all API tokens if told. Raises InvalidField and the errors of _confirmed."""
        credentials = await self._confirmed(identity, current_password, client)
        self._parts.rules.check("new_password", new_password, email=credentials.email, name=credentials.name)
        password_hash = await self._parts.passwords.hash(new_password)
        await run_to_completion(self._change(credentials, password_hash, identity, client, revoke_api_tokens=revoke_api_tokens))

    async def _change(self, credentials: Credentials, password_hash: str, identity: Identity, client: Client, *, revoke_api_tokens: bool) -> None:
        if not await self._repository.change_password(credentials, password_hash, identity.session_id, revoke_api_tokens=revoke_api_tokens):
            raise WrongPassword
        for event in (SecurityEvent.PASSWORD_CHANGED, *((SecurityEvent.API_TOKENS_REVOKED,) if revoke_api_tokens else ())):
            self._parts.security_log.record(event, client, user_id=identity.user_id, session_id=identity.session_id)
        await self._parts.announce()

    async def delete_me(self, identity: Identity, password: str, client: Client) -> None:
        """Deletes the account and ends its sessions and API tokens; task_service then deletes its tasks. Raises the errors of _confirmed."""
        credentials = await self._confirmed(identity, password, client)
        await run_to_completion(self._delete(credentials, identity, client))

    async def _delete(self, credentials: Credentials, identity: Identity, client: Client) -> None:
        if not await self._repository.delete_user(credentials):
            raise WrongPassword
        self._parts.security_log.record(SecurityEvent.ACCOUNT_DELETED, client, user_id=identity.user_id, session_id=identity.session_id)
        await self._parts.announce()

    async def _confirmed(self, identity: Identity, password: str, client: Client) -> Credentials:
        """Verifies the password and returns the caller's credentials. An access token alone must not allow an action that cannot be undone.

        Raises UserNotFound, WrongPassword, TooManyAttempts, Overloaded.
        """
        try:
            async with self._parts.guard.attempt() as attempt:
                await attempt.on_confirmation(identity.user_id)
                credentials = await self._repository.find_credentials(identity.user_id)
                if credentials is None:
                    raise UserNotFound
                if not await self._parts.passwords.verify(password, credentials.password_hash):
                    raise WrongPassword
                return credentials
        except WrongPassword:
            self._parts.security_log.record(SecurityEvent.WRONG_PASSWORD, client, user_id=identity.user_id, session_id=identity.session_id)
            raise
        except TooManyAttempts:
            self._parts.security_log.record(SecurityEvent.ATTEMPTS_LIMITED, client, user_id=identity.user_id, session_id=identity.session_id)
            raise


def _found(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
