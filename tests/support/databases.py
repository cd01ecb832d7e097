"""Databases of a test's own, cloned from a migrated template in the running PostgreSQL."""

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from auth_service.schema import migrations as auth_migrations
from task_service.schema import migrations as task_migrations


async def make_template(database_url: str) -> str:
    """A database with both schemas and no rows. Returns its name."""
    name = f"template_{uuid4().hex[:12]}"
    await _execute(database_url, f"CREATE DATABASE {name}")
    for migrations in (auth_migrations(), task_migrations()):
        await migrations.apply(with_database(database_url, name))
    return name


@contextlib.asynccontextmanager
async def cloned(database_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a new copy of the template, dropped at the end."""
    name = f"test_{uuid4().hex[:12]}"
    await _execute(database_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield with_database(database_url, name)
    finally:
        await _execute(database_url, f"DROP DATABASE {name} WITH (FORCE)")


def with_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(database_url: str, sql: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
