"""Sessions in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from auth_service.client import Client
from auth_service.sessions.domain import (
    KNOWN_ADDRESS_DAYS,
    MAX_SESSIONS_PER_USER,
    REFRESH_GRACE_SECONDS,
    Repeated,
    Reused,
    Rotated,
    Session,
    SessionDetails,
    SessionLifetime,
)
from auth_service.users.domain import Credentials
from auth_service.users.repository import CREDENTIALS_COLUMNS
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Removal

SESSIONS_KEPT: Final = "1 day"

# SQL is assembled only from constants; values are always parameters.
# $2 is the network of the client.
FIND_LOGIN: Final = f"""
SELECT {CREDENTIALS_COLUMNS}, EXISTS (
    SELECT FROM auth.login_networks WHERE user_id = id AND network = $2 AND last_login_at > now() - make_interval(days => {KNOWN_ADDRESS_DAYS})
) FROM auth.users WHERE email_key = $1
"""  # noqa: S608
REHASH: Final = "UPDATE auth.users SET password_hash = $3 WHERE id = $1 AND password_version = $2"
BEGIN_SESSION: Final = "SELECT id, user_id, expires_at FROM auth.begin_session($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
USE_REFRESH_TOKEN: Final = "SELECT o_outcome, o_session, o_user, o_expires_at, o_sealed FROM auth.use_refresh_token($1, $2, $3, $4, $5)"  # noqa: S105
# $2 is the grace. For a token for which USE_REFRESH_TOKEN returned no row: if the token is known, its session is over.
FIND_REUSED: Final = """
SELECT session.id, session.user_id FROM auth.refresh_tokens AS token JOIN auth.sessions AS session ON session.id = token.session_id
 WHERE token.token_hash = $1 AND token.used_at <= now() - $2::interval
"""
LIST_SESSIONS: Final = """
SELECT id, created_at, last_used_at, expires_at, user_agent, address FROM auth.sessions
 WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now() ORDER BY last_used_at DESC, id DESC LIMIT $2
"""
END_SESSION: Final = """
SELECT auth.end_sessions($1, ARRAY[id]) FROM auth.sessions WHERE id = $2 AND user_id = $1 AND ended_at IS NULL AND expires_at > now()
"""
END_SESSION_OF: Final = "SELECT o_session, o_user FROM auth.end_session_of($1)"
# $1 is the maximum number of rows.
REMOVE_SUCCESSORS: Final = f"""
WITH removed AS (
    UPDATE auth.refresh_tokens SET sealed_successor = NULL WHERE token_hash IN (
        SELECT token_hash FROM auth.refresh_tokens
         WHERE sealed_successor IS NOT NULL AND used_at < now() - interval '{REFRESH_GRACE_SECONDS} seconds' LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING 1
) SELECT count(*) FROM removed
"""  # noqa: S608
REMOVE_SESSIONS: Final = f"""
WITH removed AS (
    DELETE FROM auth.sessions WHERE id IN (
        SELECT id FROM auth.sessions
         WHERE expires_at < now() - interval '{SESSIONS_KEPT}' OR ended_at < now() - interval '{SESSIONS_KEPT}' LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING 1
) SELECT count(*) FROM removed
"""  # noqa: S608
REMOVE_NETWORKS: Final = f"""
WITH removed AS (
    DELETE FROM auth.login_networks WHERE ctid IN (
        SELECT ctid FROM auth.login_networks
         WHERE last_login_at < now() - make_interval(days => {KNOWN_ADDRESS_DAYS}) LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING 1
) SELECT count(*) FROM removed
"""  # noqa: S608
REMOVALS: Final = (Removal(REMOVE_SUCCESSORS), Removal(REMOVE_SESSIONS), Removal(REMOVE_NETWORKS))


class PostgresSessions:
    """A SessionRepository (see auth_service.sessions.service). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_login(self, key: str, network: str) -> tuple[Credentials | None, bool]:
        """See SessionRepository.find_login."""
        row = await self._database.fetchrow(FIND_LOGIN, key, network)
        if row is None:
            return None, False
        *columns, known = row
        return Credentials(*columns), known

    async def update_hash(self, credentials: Credentials, password_hash: str) -> None:
        """See SessionRepository.update_hash."""
        await self._database.fetchrow(REHASH, credentials.user_id, credentials.password_version, password_hash)

    async def insert_session(
        self, session_id: UUID, credentials: Credentials, token_hash: bytes, client: Client, network: str, lifetime: SessionLifetime
    ) -> Session | None:
        """See SessionRepository.insert_session."""
        row = await self._database.fetchrow(
            BEGIN_SESSION,
            session_id,
            credentials.user_id,
            credentials.password_version,
            token_hash,
            client.user_agent,
            client.address,
            network,
            timedelta(seconds=lifetime.idle_seconds),
            timedelta(seconds=lifetime.absolute_seconds),
            MAX_SESSIONS_PER_USER,
        )
        return None if row is None else Session(*row)

    async def use_refresh_token(
        self, token_hash: bytes, new_hash: bytes, sealed_successor: bytes, idle_seconds: float
    ) -> Rotated | Repeated | Reused | None:
        """See SessionRepository.use_refresh_token."""
        idle, grace = timedelta(seconds=idle_seconds), timedelta(seconds=REFRESH_GRACE_SECONDS)
        row = await self._database.fetchrow(USE_REFRESH_TOKEN, token_hash, new_hash, sealed_successor, idle, grace)
        if row is None:
            return None
        outcome, session_id, user_id, expires_at, sealed = row
        match outcome:
            case "rotated":
                return Rotated(Session(session_id, user_id, expires_at))
            case "repeated":
                return Repeated(Session(session_id, user_id, expires_at), sealed)
            case _:
                return Reused(session_id, user_id)

    async def find_reused(self, token_hash: bytes) -> Reused | None:
        """See SessionRepository.find_reused."""
        row = await self._database.fetchrow(FIND_REUSED, token_hash, timedelta(seconds=REFRESH_GRACE_SECONDS))
        return None if row is None else Reused(*row)

    async def list_sessions(self, user_id: UUID) -> Sequence[SessionDetails]:
        """See SessionRepository.list_sessions."""
        return [SessionDetails(*row) for row in await self._database.fetch(LIST_SESSIONS, user_id, MAX_SESSIONS_PER_USER)]

    async def end_session(self, user_id: UUID, session_id: UUID) -> bool:
        """See SessionRepository.end_session."""
        row = await self._database.fetchrow(END_SESSION, user_id, session_id)
        return row is not None and row[0] == 1

    async def end_session_of(self, token_hash: bytes) -> tuple[UUID, UUID] | None:
        """See SessionRepository.end_session_of."""
        row = await self._database.fetchrow(END_SESSION_OF, token_hash)
        return None if row is None else (row[0], row[1])
