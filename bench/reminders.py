"""`python -m bench.reminders`: measures how long two workers take for 10 000 reminders of the same moment, also if one worker is killed.

It starts a system of its own, with fsync, and prints the seconds of each round.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import httpx

from bench.measure import CallsFailed
from bench.users import Users
from devstack.config import StackConfig
from devstack.stack import Stack
from tests.support.accounts import Account

USERS: Final = 100
EACH: Final = 100
WORKERS: Final = 2
# After the reminders are due, one worker gets this time until it is killed.
KILLED_AFTER_SECONDS: Final = 0.5
POLL_SECONDS: Final = 0.01
LIMIT_SECONDS: Final = 120.0

LEFT: Final = "SELECT count(*) FROM task.reminders WHERE user_id = ANY ($1)"
LOGGED: Final = "SELECT count(DISTINCT task_id), count(*) FROM task.changes WHERE user_id = ANY ($1) AND kind = 6"


async def _remind(rest: httpx.AsyncClient, account: Account) -> None:
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    requests = [{"task": {"title": f"{number}", "reminders": [{"at": at}]}} for number in range(EACH)]
    answer = await rest.post("/api/v1/tasks:batchCreate", json={"requests": requests}, headers=account.headers)
    if not answer.is_success:
        raise CallsFailed(answer.text)


async def _round(stack: Stack, *, kill: bool) -> float:
    """Returns the seconds from the moment at which all are due until all are logged. Raises CallsFailed if one was not logged exactly once."""
    users = await Users.create(stack.state.url, USERS)
    async with httpx.AsyncClient(base_url=stack.state.url, timeout=60) as rest:
        for account in users.accounts:
            await _remind(rest, account)
    ids = [UUID(account.id) for account in users.accounts]
    database = await asyncpg.connect(stack.state.database_url)
    try:
        due = time.time() + 1
        await database.execute("UPDATE task.reminders SET fire_at = to_timestamp($2) WHERE user_id = ANY ($1)", ids, due)
        if kill:
            await asyncio.sleep(due + KILLED_AFTER_SECONDS - time.time())
            await stack.kill("task-worker-1")
        while await database.fetchval(LEFT, ids):
            if time.time() > due + LIMIT_SECONDS:
                raise CallsFailed(f"not all reminders were logged within {LIMIT_SECONDS} s")
            await asyncio.sleep(POLL_SECONDS)
        took = time.time() - due
        (logged,) = await database.fetch(LOGGED, ids)
        if tuple(logged) != (USERS * EACH, USERS * EACH):
            raise CallsFailed("a reminder was not logged exactly once")
    finally:
        await database.close()
    if kill:
        await stack.start_process("task-worker-1")
    return took


async def measure(rounds: int) -> None:
    """Prints the seconds of each round, and their medians."""
    with tempfile.TemporaryDirectory(prefix="task-manager-reminders-") as folder:
        config = StackConfig(
            data_dir=Path(folder) / "data", task_workers=WORKERS, environment={"BCRYPT_COST": "4", "REGISTER_ADDRESS_BURST": "10000"}
        )
        async with Stack(config) as stack:
            for name, kill in (("two workers", False), ("two workers, of which one is killed", True)):
                seconds = [await _round(stack, kill=kill) for _ in range(rounds)]
                each = ", ".join(f"{one:.2f}" for one in seconds)
                sys.stdout.write(f"{name}: {USERS * EACH} reminders in {statistics.median(seconds):.2f} s (rounds: {each})\n")
                sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.reminders", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(measure(parser.parse_args().rounds))
