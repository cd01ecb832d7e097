"""The state of the cache in PostgreSQL: one statement for each method."""

from typing import Any, Final
from uuid import UUID

from servicekit.stores.postgres import Database
from task_service.cache.domain import UNREACHABLE_SECONDS, Mode, State

# SQL is assembled only from constants; values are always parameters.
COLUMNS: Final = "generation, mode, process, replication"
GET: Final = f"SELECT {COLUMNS} FROM task.cache_state"  # noqa: S608
OFF: Final = f"SELECT {COLUMNS} FROM task.cache_off($1)"  # noqa: S608
ARMED: Final = f"SELECT {COLUMNS} FROM task.cache_armed($1, $2, $3, $4)"  # noqa: S608
ON: Final = f"SELECT {COLUMNS} FROM task.cache_on($1)"  # noqa: S608
UNREACHABLE: Final = f"SELECT {COLUMNS} FROM task.cache_unreachable($1)"  # noqa: S608


class PostgresCacheState:
    """A CacheStateRepository (see task_service.cache.service)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self) -> State:
        """See CacheStateRepository.get."""
        return _state(await self._database.fetchrow(GET))

    async def set_off(self, generation: UUID) -> State:
        """See CacheStateRepository.set_off."""
        return _state(await self._database.fetchrow(OFF, generation))

    async def set_armed(self, generation: UUID, following: UUID, process: str, replication: str) -> State:
        """See CacheStateRepository.set_armed."""
        return _state(await self._database.fetchrow(ARMED, generation, following, process, replication))

    async def set_on(self, generation: UUID) -> State:
        """See CacheStateRepository.set_on."""
        return _state(await self._database.fetchrow(ON, generation))

    async def report_unreachable(self) -> State:
        """See CacheStateRepository.report_unreachable."""
        return _state(await self._database.fetchrow(UNREACHABLE, UNREACHABLE_SECONDS))


def _state(row: Any) -> State:
    return State(row[0], Mode(row[1]), row[2], row[3])
