"""`distribute` without Citus. tests/citus has the tests with it."""

import os
import sys
from asyncio import create_subprocess_exec, subprocess

import asyncpg

CATALOG = """
    SELECT relname::text, relfilenode, relowner, relacl::text FROM pg_class
    UNION ALL SELECT setconfig::text, setdatabase, setrole, '' FROM pg_db_role_setting ORDER BY 1, 2
"""


async def _catalog(url: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(CATALOG)
    finally:
        await connection.close()


async def test_a_database_without_citus_is_not_changed(database_url: str) -> None:
    before = await _catalog(database_url)
    running = await create_subprocess_exec(
        *(sys.executable, "-m", "task_service", "distribute"),
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    assert (running.returncode, output.decode()) == (2, "the database does not have the extension citus: nothing was changed\n")
    assert await _catalog(database_url) == before


async def test_a_service_whose_tables_cannot_be_distributed_has_no_such_command() -> None:
    running = await create_subprocess_exec(sys.executable, "-m", "auth_service", "distribute", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await running.communicate()
    assert running.returncode == 2
    assert "invalid choice: 'distribute'" in output.decode()
