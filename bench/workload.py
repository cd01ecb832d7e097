"""The workload of the rows by RPC: several users with a few tasks each, and the calls of each RPC."""

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

import grpc.aio
import httpx

from bench.calls import Calls, create, get, new_task, page, update
from bench.seeding import seed
from tests.support.accounts import Account, make_account

T = TypeVar("T")

# Writes of one user wait for each other by design. So the benchmark uses a few more users than the database pool has connections.
ACCOUNTS = 16
# More than the page size, so that a next page follows.
TASKS_EACH = 24
# auth_service hashes one password at a time by default. With more concurrent registrations the last ones would miss their deadlines.
REGISTRATIONS_AT_ONCE = 2


async def make_accounts(url: str, count: int) -> list[Account]:
    """Creates accounts through the gateway at `url`."""
    turn = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)

    async def one(rest: httpx.AsyncClient) -> Account:
        async with turn:
            return await make_account(rest)

    async with httpx.AsyncClient(base_url=url, timeout=60) as rest:
        return await asyncio.gather(*(one(rest) for _ in range(count)))


async def prepare(accounts: Sequence[Account], channel: grpc.aio.Channel) -> list[Calls]:
    """Creates the tasks through the channel and returns the calls. Readers and writers are different accounts, so lists keep their length."""
    readers, writers = accounts[:ACCOUNTS], accounts[ACCOUNTS : 2 * ACCOUNTS]
    read, written = [await _owned(channel, some) for some in (readers, writers)]
    return [
        Calls("GetTask", tuple(get(account, task_id) for account, task_id in read)),
        Calls("ListTasks", tuple(page(account) for account in readers)),
        Calls("CreateTask", tuple(create(account) for account in writers)),
        Calls("UpdateTask", tuple(update(account, task_id, number) for number, (account, task_id) in changes(written))),
    ]


async def _owned(channel: grpc.aio.Channel, accounts: Sequence[Account]) -> list[tuple[Account, str]]:
    """Creates the tasks of the accounts. Returns them so that successive tasks belong to different accounts."""
    tasks = [new_task(number) for number in range(TASKS_EACH)]
    ids = [await seed(channel, account, tasks) for account in accounts]
    return [(account, task_id) for row in zip(*ids, strict=True) for account, task_id in zip(accounts, row, strict=True)]


def changes(items: Sequence[T]) -> list[tuple[int, T]]:
    """Returns every item twice, with the numbers 0 and 1: first all in a random order, then all in another.

    So each update of an endless cycle changes a random task, and gives it other values than the update before it.
    """
    order = random.Random(ACCOUNTS)
    return [(number, item) for number in (0, 1) for item in order.sample(items, len(items))]
