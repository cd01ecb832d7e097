"""Pools for the tests of servicekit."""

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from prometheus_client import CollectorRegistry

from servicekit.stores.postgres import Database, DatabaseOptions


def options(url: str, *, pool: int = 2, seconds: float = 2.0, statement_cache_size: int = 100) -> DatabaseOptions:
    """Options for a small pool."""
    return DatabaseOptions(url=url, application_name="test", pool_max_size=pool, statement_cache_size=statement_cache_size, timeout_seconds=seconds)


@contextlib.asynccontextmanager
async def started(database: Database) -> AsyncIterator[Database]:
    """The database, usable."""
    await database.start()
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def pool(url: str, *, size: int = 2, seconds: float = 2.0) -> AsyncIterator[Database]:
    """A usable pool of a URL."""
    async with started(Database(options(url, pool=size, seconds=seconds), CollectorRegistry())) as database:
        yield database


def through(url: str, port: int) -> str:
    """The URL, by another port of this machine."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
