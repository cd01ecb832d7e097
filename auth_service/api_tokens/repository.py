"""API tokens in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from auth_service.api_tokens.domain import DEFAULT_LIFETIME, USE_GRAIN, ApiToken, Grant, NewApiToken
from auth_service.api_tokens.errors import TooManyApiTokens
from servicekit.errors import TokenInvalid
from servicekit.identity import Identity
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Removal

COLUMNS: Final = "id, name, scopes, hint, created_at, last_used_at, expires_at"

# SQL is assembled only from the constants of this module; values are always parameters.
# The first column is the outcome: 'created', 'limit' or 'ended'.
INSERT: Final = f"""
SELECT o_outcome, {", ".join(f"(o_token).{name}" for name in COLUMNS.split(", "))}
  FROM auth.create_api_token($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""  # noqa: S608
LIST: Final = f"SELECT {COLUMNS} FROM auth.api_tokens WHERE user_id = $1 AND expires_at > now() ORDER BY created_at DESC, id DESC"  # noqa: S608
DELETE: Final = "SELECT auth.delete_api_tokens($1, ARRAY[id]) FROM auth.api_tokens WHERE id = $2 AND user_id = $1 AND expires_at > now()"
# $2 is USE_GRAIN. Of uses at once only the first stores itself: the others wait for its row lock, and then find its time.
USE: Final = """
WITH used AS (
    UPDATE auth.api_tokens SET last_used_at = clock_timestamp()
     WHERE token_hash = $1 AND expires_at > now() AND (last_used_at IS NULL OR last_used_at <= now() - $2::interval)
    RETURNING id, last_used_at
)
SELECT token.id, token.user_id, token.name, token.scopes, token.expires_at, coalesce(used.last_used_at, token.last_used_at, now()) + $2::interval
  FROM auth.api_tokens AS token LEFT JOIN used ON used.id = token.id
 WHERE token.token_hash = $1 AND token.expires_at > now()
"""
# $1 is the maximum number of rows.
REMOVE: Final = """
WITH removed AS (
    DELETE FROM auth.api_tokens WHERE id IN (SELECT id FROM auth.api_tokens WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING 1
) SELECT count(*) FROM removed
"""
REMOVALS: Final = (Removal(REMOVE),)


class PostgresApiTokens:
    """An ApiTokenRepository and a GrantRepository (see auth_service.api_tokens). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_api_token(self, token_id: UUID, creator: Identity, token: NewApiToken, token_hash: bytes, hint: str, limit: int) -> ApiToken:
        """See ApiTokenRepository.insert_api_token."""
        row = await self._database.fetchrow(
            INSERT,
            token_id,
            creator.user_id,
            creator.session_id,
            token.name,
            list(token.scopes),
            token_hash,
            hint,
            token.expires_at,
            DEFAULT_LIFETIME,
            limit,
        )
        assert row is not None
        outcome, *columns = row
        if outcome == "ended":
            raise TokenInvalid
        if outcome == "limit":
            raise TooManyApiTokens(limit)
        return _api_token(*columns)

    async def list_api_tokens(self, user_id: UUID) -> Sequence[ApiToken]:
        """See ApiTokenRepository.list_api_tokens."""
        return [_api_token(*row) for row in await self._database.fetch(LIST, user_id)]

    async def delete_api_token(self, user_id: UUID, token_id: UUID) -> bool:
        """See ApiTokenRepository.delete_api_token."""
        row = await self._database.fetchrow(DELETE, user_id, token_id)
        return row is not None and row[0] == 1

    async def use_api_token(self, token_hash: bytes) -> Grant | None:
        """See GrantRepository.use_api_token."""
        row = await self._database.fetchrow(USE, token_hash, USE_GRAIN)
        if row is None:
            return None
        token_id, user_id, name, scopes, expires_at, use_again_at = row
        return Grant(token_id, user_id, name, tuple(scopes), expires_at, use_again_at)


def _api_token(
    token_id: UUID, name: str, scopes: list[str], hint: str, created_at: datetime, last_used_at: datetime | None, expires_at: datetime
) -> ApiToken:
    return ApiToken(token_id, name, tuple(scopes), hint, created_at, last_used_at, expires_at)
