"""Accounts, their sessions, and the log of what happened to them, in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from auth_service.domain import (
    KNOWN_ADDRESS_DAYS,
    MAX_SESSIONS_PER_USER,
    REFRESH_GRACE_SECONDS,
    Client,
    Credentials,
    Repeated,
    Reused,
    Rotated,
    Session,
    SessionDetails,
    SessionLifetime,
    User,
)
from auth_service.errors import EmailTaken
from servicekit.postgres import Database
from servicekit.revocations import Event, EventKind, EventPage

USER_COLUMNS: Final = "id, email, name, created_at, updated_at"
CREDENTIALS_COLUMNS: Final = "id, email, name, password_hash, password_version"
MAX_EVENTS: Final = 1000

# SQL is put together from the constants of this module alone; values are always parameters.
# No row, rather than an error that quotes the email, if there is one already.
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
# $2: the network of the attempt.
FIND_LOGIN: Final = f"""
SELECT {CREDENTIALS_COLUMNS}, EXISTS (
    SELECT FROM auth.login_networks WHERE user_id = id AND network = $2 AND last_login_at > now() - make_interval(days => {KNOWN_ADDRESS_DAYS})
) FROM auth.users WHERE email_key = $1
"""  # noqa: S608
REHASH: Final = "UPDATE auth.users SET password_hash = $3 WHERE id = $1 AND password_version = $2"
CHANGE_PASSWORD: Final = "SELECT auth.change_password($1, $2, $3, $4)"  # noqa: S105
DELETE_USER: Final = "SELECT auth.delete_user($1, $2)"
BEGIN_SESSION: Final = "SELECT id, user_id, expires_at FROM auth.begin_session($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
USE_REFRESH_TOKEN: Final = "SELECT o_outcome, o_session, o_user, o_expires_at, o_sealed FROM auth.use_refresh_token($1, $2, $3, $4, $5)"  # noqa: S105
# $2: the grace. Only for what USE_REFRESH_TOKEN has no row for, so the session is over.
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
# Both in one statement: what the counter says has been given out is there to be seen.
LIST_EVENTS: Final = """
SELECT counter.last_number, event.number, event.kind, event.user_id, event.session_id, event.created_at
  FROM auth.event_counter AS counter LEFT JOIN LATERAL (
    SELECT * FROM auth.events
     WHERE number > $1 AND ($2::interval IS NULL OR created_at > now() - $2) AND ($3::smallint IS NULL OR kind = $3)
     ORDER BY number LIMIT $4
  ) AS event ON true
 ORDER BY event.number
"""


class PostgresAccounts:
    """An AccountRepository (see auth_service.service), and an EventSource. Each method is one round trip."""

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

    async def update_name(self, user_id: UUID, name: str) -> User | None:
        """See AccountRepository.update_name."""
        row = await self._database.fetchrow(UPDATE_NAME, user_id, name)
        return None if row is None else User(*row)

    async def find_credentials(self, user_id: UUID) -> Credentials | None:
        """See AccountRepository.find_credentials."""
        row = await self._database.fetchrow(FIND_CREDENTIALS, user_id)
        return None if row is None else Credentials(*row)

    async def find_login(self, key: str, network: str) -> tuple[Credentials | None, bool]:
        """See AccountRepository.find_login."""
        row = await self._database.fetchrow(FIND_LOGIN, key, network)
        if row is None:
            return None, False
        *columns, known = row
        return Credentials(*columns), known

    async def update_hash(self, credentials: Credentials, password_hash: str) -> None:
        """See AccountRepository.update_hash."""
        await self._database.fetchrow(REHASH, credentials.user_id, credentials.password_version, password_hash)

    async def change_password(self, credentials: Credentials, password_hash: str, session_id: UUID) -> bool:
        """See AccountRepository.change_password."""
        return await self._done(CHANGE_PASSWORD, credentials.user_id, credentials.password_version, password_hash, session_id)

    async def delete_user(self, credentials: Credentials) -> bool:
        """See AccountRepository.delete_user."""
        return await self._done(DELETE_USER, credentials.user_id, credentials.password_version)

    async def insert_session(
        self, session_id: UUID, credentials: Credentials, token_hash: bytes, client: Client, network: str, lifetime: SessionLifetime
    ) -> Session | None:
        """See AccountRepository.insert_session."""
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
        """See AccountRepository.use_refresh_token."""
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
        """See AccountRepository.find_reused."""
        row = await self._database.fetchrow(FIND_REUSED, token_hash, timedelta(seconds=REFRESH_GRACE_SECONDS))
        return None if row is None else Reused(*row)

    async def list_sessions(self, user_id: UUID) -> Sequence[SessionDetails]:
        """See AccountRepository.list_sessions."""
        return [SessionDetails(*row) for row in await self._database.fetch(LIST_SESSIONS, user_id, MAX_SESSIONS_PER_USER)]

    async def end_session(self, user_id: UUID, session_id: UUID) -> bool:
        """See AccountRepository.end_session."""
        row = await self._database.fetchrow(END_SESSION, user_id, session_id)
        return row is not None and row[0] == 1

    async def end_session_of(self, token_hash: bytes) -> tuple[UUID, UUID] | None:
        """See AccountRepository.end_session_of."""
        row = await self._database.fetchrow(END_SESSION_OF, token_hash)
        return None if row is None else (row[0], row[1])

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """See EventSource.list_events (servicekit.revocations)."""
        age = None if max_age_seconds is None else timedelta(seconds=max_age_seconds)
        rows = await self._database.fetch(LIST_EVENTS, after, age, kind, MAX_EVENTS + 1)
        events = [_event(row) for row in rows if row["number"] is not None]
        if len(events) > MAX_EVENTS:
            return EventPage(events[:MAX_EVENTS], events[MAX_EVENTS - 1].number, more=True)
        return EventPage(events, rows[0]["last_number"], more=False)

    async def _done(self, sql: str, *args: object) -> bool:
        row = await self._database.fetchrow(sql, *args)
        return row is not None and row[0]


def _event(row: "asyncpg.Record") -> Event:
    return Event(row["number"], EventKind(row["kind"]), row["user_id"], row["session_id"], row["created_at"].timestamp())
