"""Accounts and sessions in PostgreSQL. The only module of this service with SQL."""

from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from auth_service.domain import Credentials, Session, User
from auth_service.errors import EmailTaken, InvalidCredentials
from servicekit.postgres import Database

USER_COLUMNS: Final = "id, email, name, created_at, updated_at"

# No row, rather than an error that quotes the email, if there is one already.
INSERT_USER: Final = f"""
INSERT INTO auth.users (id, email, email_key, name, password_hash) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT ON CONSTRAINT users_email_key DO NOTHING RETURNING {USER_COLUMNS}
"""  # noqa: S608 - a constant
FIND_USER: Final = f"SELECT {USER_COLUMNS} FROM auth.users WHERE id = $1"  # noqa: S608 - a constant
FIND_CREDENTIALS: Final = "SELECT id, password_hash FROM auth.users WHERE email_key = $1"
INSERT_SESSION: Final = """
WITH session AS (INSERT INTO auth.sessions (id, user_id) VALUES ($1, $2) RETURNING id)
INSERT INTO auth.refresh_tokens (token_hash, session_id, expires_at) SELECT $3, id, now() + $4::interval FROM session
"""
# Of two at once the second waits for the first one's row, then sees that it is used.
ROTATE: Final = """
WITH used AS (
    UPDATE auth.refresh_tokens AS token SET used_at = now()
      FROM auth.sessions AS session
     WHERE token.token_hash = $1 AND token.used_at IS NULL AND token.expires_at > now()
       AND session.id = token.session_id AND session.ended_at IS NULL
    RETURNING session.id, session.user_id
), successor AS (
    INSERT INTO auth.refresh_tokens (token_hash, session_id, expires_at) SELECT $2, id, now() + $3::interval FROM used
), touched AS (
    UPDATE auth.sessions SET last_used_at = now() WHERE id = (SELECT id FROM used)
)
SELECT id, user_id FROM used
"""
END_SESSION: Final = """
UPDATE auth.sessions SET ended_at = now()
 WHERE id = (SELECT session_id FROM auth.refresh_tokens WHERE token_hash = $1) AND ended_at IS NULL
"""


class PostgresAccounts:
    """An AccountRepository (see auth_service.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_user(self, user_id: UUID, *, email: str, key: str, name: str, password_hash: str) -> User:
        """See AccountRepository.insert_user."""
        row = await self._database.fetchrow(INSERT_USER, user_id, email, key, name, password_hash)
        if row is None:
            raise EmailTaken
        return User(*row)

    async def find_user(self, user_id: UUID) -> User | None:
        """See AccountRepository.find_user."""
        row = await self._database.fetchrow(FIND_USER, user_id)
        return None if row is None else User(*row)

    async def find_credentials(self, key: str) -> Credentials | None:
        """See AccountRepository.find_credentials."""
        row = await self._database.fetchrow(FIND_CREDENTIALS, key)
        return None if row is None else Credentials(*row)

    async def insert_session(self, session: Session, token_hash: bytes, ttl_seconds: float) -> None:
        """See AccountRepository.insert_session."""
        try:
            await self._database.fetchrow(INSERT_SESSION, session.id, session.user_id, token_hash, timedelta(seconds=ttl_seconds))
        except asyncpg.ForeignKeyViolationError as error:
            raise InvalidCredentials from error

    async def rotate_refresh_token(self, used_hash: bytes, new_hash: bytes, ttl_seconds: float) -> Session | None:
        """See AccountRepository.rotate_refresh_token."""
        row = await self._database.fetchrow(ROTATE, used_hash, new_hash, timedelta(seconds=ttl_seconds))
        return None if row is None else Session(*row)

    async def end_session(self, token_hash: bytes) -> None:
        """See AccountRepository.end_session."""
        await self._database.fetchrow(END_SESSION, token_hash)
