"""Signing keys in PostgreSQL."""

from typing import Final

from auth_service.keys.domain import Plan, StoredKey, StoredKeys
from servicekit.stores.postgres import Connection, Database

LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('auth signing keys', 0))"
LIST: Final = "SELECT id, public_key, sealed_key, active_from FROM auth.signing_keys ORDER BY active_from"
# clock_timestamp() instead of now(), because the transaction may have waited for the lock since it began.
NOW: Final = "SELECT clock_timestamp()"
INSERT: Final = "INSERT INTO auth.signing_keys (id, public_key, sealed_key, active_from) VALUES ($1, $2, $3, $4)"
DELETE: Final = "DELETE FROM auth.signing_keys WHERE id = ANY ($1)"


class PostgresKeys:
    """A KeyRepository (see auth_service.keys.service)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> StoredKeys:
        """See KeyRepository.list."""
        return await self._database.run(_stored)

    async def update(self, plan: Plan) -> StoredKeys:
        """See KeyRepository.update."""

        async def work(connection: Connection) -> StoredKeys:
            await connection.execute(LOCK)
            new, expired = plan(await _stored(connection))
            await connection.execute(DELETE, list(expired))
            if new is not None:
                await connection.execute(INSERT, new.id, new.public_key, new.sealed_key, new.active_from)
            return await _stored(connection)

        return await self._database.transact(work)


async def _stored(connection: Connection) -> StoredKeys:
    rows = await connection.fetch(LIST)
    return StoredKeys([StoredKey(*row) for row in rows], await connection.fetchval(NOW))
