"""Separate databases for tests, cloned from a migrated template in the running PostgreSQL, and URLs to log in to them."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from devstack.keys import password_file
from devstack.state import State
from servicekit.stores.migrate import packaged


async def make_template(database_url: str) -> str:
    """Creates a database with both schemas and no rows. Returns its name."""
    name = f"template_{uuid4().hex[:12]}"
    await _execute(database_url, f"CREATE DATABASE {name}")
    for schema in ("auth", "task"):
        await packaged(schema, f"{schema}_service").apply(with_database(database_url, name))
    return name


@contextlib.asynccontextmanager
async def cloned(database_url: str, template: str) -> AsyncIterator[str]:
    """Yields the URL of a new copy of the template, which is dropped at the end."""
    name = f"test_{uuid4().hex[:12]}"
    await _execute(database_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield with_database(database_url, name)
    finally:
        await _execute(database_url, f"DROP DATABASE {name} WITH (FORCE)")


def with_database(url: str, name: str) -> str:
    """Returns the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def as_role(url: str, role: str, password: str) -> str:
    """Returns the URL for another role."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role, safe='')}:{quote(password, safe='')}@{address}"))


def login(state: State, role: str) -> str:
    """Returns the URL with which a role of the stack logs in to its database."""
    return as_role(state.database_url, role, password_file(Path(state.data_dir) / "secrets", role).read_text())


async def _execute(database_url: str, sql: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
