"""Accounts in PostgreSQL."""

from typing import Final
from uuid import UUID

from auth_service.users.domain import Credentials, User
from auth_service.users.errors import EmailTaken
from servicekit.stores.postgres import Database

USER_COLUMNS: Final = "id, email, name, created_at, updated_at"
CREDENTIALS_COLUMNS: Final = "id, email, name, password_hash, password_version"

# SQL is assembled only from the constants of this module; values are always parameters.
# If the email already has an account, the statement returns no row. An error would quote the email.
INSERT_USER: Final = f"""
INSERT INTO auth.users (id, email, email_key, name, password_hash) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT ON CONSTRAINT users_email_key DO NOTHING RETURNING {USER_COLUMNS}
"""  # noqa: S608
FIND_USER: Final = f"SELECT {USER_COLUMNS} FROM auth.users WHERE id = $1"  # noqa: S608
UPDATE_NAME: Final = f"""
UPDATE auth.users SET name = $2, updated_at = CASE WHEN name = $2 THEN updated_at ELSE greatest(clock_timestamp(), updated_at) END
 WHERE id = $1 RETURNING {USER_COLUMNS}
"""  # noqa: S608
FIND_CREDENTIALS: Final = f"SELECT {CREDENTIALS_COLUMNS} FROM auth.users WHERE id = $1"  # noqa: S608
CHANGE_PASSWORD: Final = "SELECT auth.change_password($1, $2, $3, $4, $5)"  # noqa: S105
DELETE_USER: Final = "SELECT auth.delete_user($1, $2)"


class PostgresUsers:
    """A UserRepository (see auth_service.users.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_user(self, user_id: UUID, *, email: str, key: str, name: str, password_hash: str) -> User:
        """See UserRepository.insert_user."""
        row = await self._database.fetchrow(INSERT_USER, user_id, email, key, name, password_hash)
        if row is None:
            raise EmailTaken
        return User(*row)

    async def find_user(self, user_id: UUID) -> User | None:
        """See UserRepository.find_user."""
        row = await self._database.fetchrow(FIND_USER, user_id)
        return None if row is None else User(*row)

    async def update_name(self, user_id: UUID, name: str) -> User | None:
        """See UserRepository.update_name."""
        row = await self._database.fetchrow(UPDATE_NAME, user_id, name)
        return None if row is None else User(*row)

    async def find_credentials(self, user_id: UUID) -> Credentials | None:
        """See UserRepository.find_credentials."""
        row = await self._database.fetchrow(FIND_CREDENTIALS, user_id)
        return None if row is None else Credentials(*row)

    async def change_password(self, credentials: Credentials, password_hash: str, session_id: UUID, *, revoke_api_tokens: bool = False) -> bool:
        """See UserRepository.change_password."""
        user_id, version = credentials.user_id, credentials.password_version
        return await self._done(CHANGE_PASSWORD, user_id, version, password_hash, session_id, revoke_api_tokens)

    async def delete_user(self, credentials: Credentials) -> bool:
        """See UserRepository.delete_user."""
        return await self._done(DELETE_USER, credentials.user_id, credentials.password_version)

    async def _done(self, sql: str, *args: object) -> bool:
        row = await self._database.fetchrow(sql, *args)
        return row is not None and row[0]
