"""A pool for the tests of the stores."""

from collections.abc import AsyncIterator

import pytest

from servicekit.stores.postgres import Database
from tests.servicekit.stores.databases import pool


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of two connections."""
    async with pool(database_url) as made:
        yield made
