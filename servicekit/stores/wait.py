"""Waits until PostgreSQL accepts connections, for commands that start before it does."""

import asyncio
import itertools
from typing import Final

import asyncpg
import structlog

# A new database has an address within seconds, and its server starts within one or two minutes.
WAIT_SECONDS: Final = 120.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
# The pauses between attempts: they grow to the last one.
PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)

# Its name has no address, nothing listens, or it is starting or full. Any other error, for example a wrong password, ends the wait at once.
_AWAY: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)
_log: Final = structlog.get_logger()


async def wait_for_database(url: str, seconds: float = WAIT_SECONDS) -> None:
    """Returns when a connection succeeds. After `seconds`, raises the last error; raises any error at once that waiting cannot repair.

    Logs an error only if it differs from the one before.
    """
    end = asyncio.get_running_loop().time() + seconds
    logged = ""
    for pause in itertools.chain(PAUSES_SECONDS, itertools.repeat(PAUSES_SECONDS[-1])):
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
        except _AWAY as error:
            if asyncio.get_running_loop().time() + pause > end:
                raise
            if (reason := f"{type(error).__name__}: {error}") != logged:
                _log.warning("database_unreachable", reason=reason, wait_seconds=seconds)
                logged = reason
            await asyncio.sleep(pause)
        else:
            await connection.close()
            return
