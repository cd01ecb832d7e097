"""The workload of the rows by RPC: several users with a few tasks each, and the calls of each RPC. The scenarios have a user of their own."""

from collections.abc import Sequence

import grpc.aio

from bench import scenarios
from bench.calls import Calls, changes, create, get, new_task, page, update
from bench.seeding import seed
from tests.support.accounts import Account

# Writes of one user wait for each other by design. So the benchmark uses a few more users than the database pool has connections.
ACCOUNTS = 16
# More than the page size, so that a next page follows.
TASKS_EACH = 24
# The readers, the writers, and the user of the scenarios.
USERS = 2 * ACCOUNTS + 1


async def prepare(accounts: Sequence[Account], channel: grpc.aio.Channel) -> tuple[list[Calls], list[Calls]]:
    """Creates the tasks of USERS accounts through the channel. Returns the calls of the rows by RPC, and of the scenarios."""
    return await _by_rpc(accounts, channel), await scenarios.prepare(accounts[-1], channel)


async def _by_rpc(accounts: Sequence[Account], channel: grpc.aio.Channel) -> list[Calls]:
    # Readers and writers are different accounts, so lists keep their length.
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
