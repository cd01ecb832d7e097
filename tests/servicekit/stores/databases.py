"""Pools for the tests of servicekit, and how they are used."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from prometheus_client import CollectorRegistry

from servicekit import deadline
from servicekit.stores.postgres import Connection, Database, DatabaseOptions
from tests.support.waiting import eventually

WITHIN_SECONDS = 5.0


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


async def within_call(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    """Runs `work` in its own context, as a call with `seconds` left."""

    async def call() -> Any:
        deadline.begin(seconds)
        return await work()

    return await asyncio.create_task(call())


@contextlib.contextmanager
def takes(least: float, most: float) -> Any:
    """Asserts that the block takes between `least` and `most` seconds."""
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began <= most


async def _busy(database: Database) -> int:
    """Returns the number of connections that are busy on the server, without the one that counts them."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"
    row = await database.fetchrow(sql)
    assert row is not None
    return int(row[0])


async def hold(database: Database, seconds: float) -> None:
    await database.fetchrow("SELECT pg_sleep($1)", seconds)


@contextlib.asynccontextmanager
async def held(database: Database) -> AsyncIterator[None]:
    """Has a connection of the pool in use while the block runs."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def work(_: Connection) -> None:
        begun.set()
        await release.wait()

    holding = asyncio.create_task(database.run(work))
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            await begun.wait()
        yield
    finally:
        release.set()
        await holding


async def busy_are(database: Database, expected: int) -> None:
    """Returns when so many connections are busy on the server."""

    async def check() -> None:
        assert await _busy(database) == expected

    await eventually(check, within=WITHIN_SECONDS)
