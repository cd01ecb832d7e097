"""The state of the cache in PostgreSQL: one statement for each method."""

from typing import Any, Final
from uuid import UUID

import structlog

from servicekit.stores.postgres import Database
from task_service.cache.domain import UNREACHABLE_SECONDS, Mode, State

# SQL is assembled only from constants; values are always parameters.
# The last column is the server that answers. If the row is of another one, it is from before a failover, and commits after it may be lost.
COLUMNS: Final = "generation, mode, process, replication, server, task.server() AS current_server"
GET: Final = f"SELECT {COLUMNS} FROM task.cache_state"  # noqa: S608
OFF: Final = f"SELECT {COLUMNS} FROM task.cache_off($1)"  # noqa: S608
ARMED: Final = f"SELECT {COLUMNS} FROM task.cache_armed($1, $2, $3, $4)"  # noqa: S608
ON: Final = f"SELECT {COLUMNS} FROM task.cache_on($1)"  # noqa: S608
UNREACHABLE: Final = f"SELECT {COLUMNS} FROM task.cache_unreachable($1)"  # noqa: S608
FOLLOW_SERVER: Final = f"SELECT {COLUMNS} FROM task.follow_server()"  # noqa: S608

log = structlog.get_logger()


class PostgresCacheState:
    """A CacheStateRepository (see task_service.cache.service). After a failover of PostgreSQL, whatever method is called sets OFF."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self) -> State:
        """See CacheStateRepository.get."""
        return await self._ask(GET)

    async def set_off(self, generation: UUID) -> State:
        """See CacheStateRepository.set_off."""
        return await self._ask(OFF, generation)

    async def set_armed(self, generation: UUID, following: UUID, process: str, replication: str) -> State:
        """See CacheStateRepository.set_armed."""
        return await self._ask(ARMED, generation, following, process, replication)

    async def set_on(self, generation: UUID) -> State:
        """See CacheStateRepository.set_on."""
        return await self._ask(ON, generation)

    async def report_unreachable(self) -> State:
        """See CacheStateRepository.report_unreachable."""
        return await self._ask(UNREACHABLE, UNREACHABLE_SECONDS)

    async def _ask(self, sql: str, *args: object) -> State:
        row: Any = await self._database.fetchrow(sql, *args)
        if row["server"] != row["current_server"]:
            log.warning("database_failover", before=row["server"], after=row["current_server"])
            row = await self._database.fetchrow(FOLLOW_SERVER)
        return State(row[0], Mode(row[1]), row[2], row[3])
