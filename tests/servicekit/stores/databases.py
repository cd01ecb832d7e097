"""Pools for the tests of servicekit."""

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from prometheus_client import CollectorRegistry

from servicekit.stores.postgres import Database, DatabaseOptions


def options(url: str, *, pool: int = 2, seconds: float = 10.0, statement_cache_size: int = 100) -> DatabaseOptions:
    """Returns the options of a small pool."""
    return DatabaseOptions(url=url, application_name="test", pool_max_size=pool, statement_cache_size=statement_cache_size, timeout_seconds=seconds)


@contextlib.asynccontextmanager
async def started(database: Database) -> AsyncIterator[Database]:
    """Starts the database's pool, and closes it at the end."""
    await database.start()
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def pool(url: str, *, size: int = 2, seconds: float = 10.0) -> AsyncIterator[Database]:
    """Yields a started pool for a URL."""
    async with started(Database(options(url, pool=size, seconds=seconds), CollectorRegistry())) as database:
        yield database


def through(url: str, port: int) -> str:
    """Returns the URL with another port of this machine, on which a proxy listens."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
