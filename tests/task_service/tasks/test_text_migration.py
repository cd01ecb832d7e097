"""The migration to text in NFC, on a database with rows from before it."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from devstack.stack import Stack
from servicekit.stores.migrate import Migrations
from tests.support.databases import cloned
from tests.task_service.conftest import new_id

MIGRATIONS = Path(__file__).parents[3] / "task_service" / "migrations"
INSERT = """
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, labels, created_at, updated_at, version)
    VALUES ($1, $2, $3, $4, 1, 3, $5, now(), now(), 7)
"""
INSERT_LABELS = """
    INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id) SELECT $1, unnest($3::text[]), false, now(), $2
"""
# A character that NFC makes longer.
LONGER = "\u0958"


@pytest.fixture
async def old_url(system: Stack, tmp_path: Path) -> AsyncIterator[str]:
    """A database with the schema from before the migration."""
    async with cloned(system.state.database_url, "template1") as url:
        for path in MIGRATIONS.glob("000*.sql"):
            (tmp_path / path.name).write_text(path.read_text())
        await Migrations("task", tmp_path).apply(url)
        yield url


async def test_the_rows_from_before_are_normalized(old_url: str) -> None:
    rows = {
        new_id(): ("cafe\u0301", "e\u0301", ["b", "e\u0301", "\u00e9", "a"]),
        new_id(): ("plain", "text", ["a", "b"]),
        new_id(): (LONGER * 150, LONGER * 6000, []),
    }
    user_id = new_id()
    connection = await asyncpg.connect(old_url)
    try:
        for task_id, values in rows.items():
            await connection.execute(INSERT, user_id, task_id, *values)
            if values[0] != "plain":
                await connection.execute(INSERT_LABELS, user_id, task_id, values[2])
        assert "0011_text" in await Migrations("task", MIGRATIONS).apply(old_url)
        found = {
            row["id"]: tuple(row.values())[1:] for row in await connection.fetch("SELECT id, title, description, labels, version FROM task.tasks")
        }
        labels = [row["label"] for row in await connection.fetch("SELECT label FROM task.task_labels ORDER BY label")]
    finally:
        await connection.close()
    first, plain, long = rows
    assert found[first] == ("caf\u00e9", "\u00e9", ["b", "\u00e9", "a"], 7)
    assert found[plain] == (*rows[plain], 7)
    # In NFC they would be too long.
    assert found[long] == (*rows[long], 7)
    assert labels == ["a", "b", "\u00e9"]
