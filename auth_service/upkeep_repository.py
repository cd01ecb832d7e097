"""What has served its time, in PostgreSQL."""

from typing import Final

from auth_service.domain import KNOWN_ADDRESS_DAYS, REFRESH_GRACE_SECONDS
from servicekit.postgres import Connection, Database

# Longer than any token lives, so that nobody who reads the events of one token lifetime misses one. Deletions of accounts are kept for good: a
# service that was away must learn of them whenever it returns.
EVENTS_KEPT: Final = "1 hour"
SESSIONS_KEPT: Final = "1 day"

# $1: how many rows. SQL is put together from constants alone.
SUCCESSORS: Final = f"""
UPDATE auth.refresh_tokens SET sealed_successor = NULL WHERE token_hash IN (
    SELECT token_hash FROM auth.refresh_tokens
     WHERE sealed_successor IS NOT NULL AND used_at < now() - interval '{REFRESH_GRACE_SECONDS} seconds' LIMIT $1 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608
SESSIONS: Final = f"""
DELETE FROM auth.sessions WHERE id IN (
    SELECT id FROM auth.sessions
     WHERE expires_at < now() - interval '{SESSIONS_KEPT}' OR ended_at < now() - interval '{SESSIONS_KEPT}' LIMIT $1 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608
EVENTS: Final = f"""
DELETE FROM auth.events WHERE number IN (
    SELECT number FROM auth.events WHERE kind = 1 AND created_at < now() - interval '{EVENTS_KEPT}' LIMIT $1 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608
NETWORKS: Final = f"""
DELETE FROM auth.login_networks WHERE ctid IN (
    SELECT ctid FROM auth.login_networks
     WHERE last_login_at < now() - make_interval(days => {KNOWN_ADDRESS_DAYS}) LIMIT $1 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608


class PostgresLeftovers:
    """Leftovers (see auth_service.upkeep)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove(self, limit: int) -> int:
        """See Leftovers.remove."""

        async def work(connection: Connection) -> int:
            # Each in a transaction of its own.
            tags = [await connection.execute(sql, limit) for sql in (SUCCESSORS, SESSIONS, EVENTS, NETWORKS)]
            # `UPDATE 3`
            return max(int(tag.split()[-1]) for tag in tags)

        return await self._database.run(work)
