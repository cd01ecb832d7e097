"""`python -m auth_service keys …`, as an operator runs it."""

import asyncio
import base64
import os
import sys
from dataclasses import dataclass

import pytest

from servicekit.stores.postgres import Database

KEY_ENCRYPTION_KEY = base64.b64encode(os.urandom(32)).decode()
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command."""

    status: int | None
    out: str
    error: str

    @property
    def states(self) -> list[str]:
        """The states of the printed keys."""
        heading, *rows = self.out.splitlines()
        assert heading.split() == ["KID", "STATE", "SIGNS", "FROM"]
        return [row.split()[1] for row in rows]


@pytest.fixture(autouse=True)
async def _no_keys(database: Database) -> None:
    await database.fetchrow("DELETE FROM auth.signing_keys")


async def keys(action: str, database_url: str, key: str = KEY_ENCRYPTION_KEY) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth_service", "keys", action),
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database_url, "KEY_ENCRYPTION_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        out, error = await process.communicate()
    return Outcome(process.returncode, out.decode(), error.decode())


async def test_keys_are_listed_rotated_and_replaced(database_url: str) -> None:
    assert (await keys("list", database_url)).states == []
    assert (await keys("rotate", database_url)).states == ["active"]
    rotated = await keys("rotate", database_url)
    assert rotated.states == ["active", "next"]
    listed = await keys("list", database_url)
    assert (listed.status, listed.out) == (0, rotated.out)
    replaced = await keys("replace", database_url)
    assert replaced.states == ["active"]
    assert replaced.out.splitlines()[1].split()[0] not in listed.out


@pytest.mark.slow("starts four programs")
async def test_another_key_encryption_key_rotates_nothing_and_is_told_so(database_url: str) -> None:
    before = await keys("rotate", database_url)
    other = base64.b64encode(os.urandom(32)).decode()
    refused = await keys("rotate", database_url, other)
    assert (refused.status, refused.out) == (1, "")
    assert "KEY_ENCRYPTION_KEY" in refused.error
    assert "Traceback" not in refused.error
    assert other not in refused.error
    assert (await keys("list", database_url)).out == before.out
    # `keys replace` recovers from the loss of a key encryption key.
    assert (await keys("replace", database_url, other)).states == ["active"]


async def test_without_its_database_it_says_so() -> None:
    outcome = await keys("list", "postgresql://nobody:nothing@127.0.0.1:1/none")
    assert outcome.status == 1
    assert outcome.error
    assert "Traceback" not in outcome.error


@pytest.mark.slow("starts a program for each case")
@pytest.mark.parametrize("action", ["", "drop"])
async def test_an_unknown_action_is_a_usage_error(action: str) -> None:
    outcome = await keys(action, "postgresql://nobody:nothing@127.0.0.1:1/none")
    assert outcome.status == 2
    assert "usage:" in outcome.error
