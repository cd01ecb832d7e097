"""The scenarios of the comparison with the rivals, as rows: all calls are one user's, who has many tasks."""

import random
from collections.abc import Sequence
from typing import Final

import grpc.aio

from bench.calls import PAGE_SIZE, Call, Calls, changes, create, get, new_task, page, update
from bench.seeding import seed
from tests.support.accounts import Account

TASKS: Final = 10_000
# The shares of the mixed scenario, of 100 calls: GetTask, ListTasks, CreateTask, UpdateTask.
MIX: Final = (80, 10, 5, 5)


async def prepare(account: Account, channel: grpc.aio.Channel) -> list[Calls]:
    """Creates the tasks of the account and returns the calls of each scenario."""
    ids = await seed(channel, account, [new_task(number) for number in range(TASKS)])
    order = random.Random(TASKS)
    reads = [get(account, task_id) for task_id in order.sample(ids, TASKS)]
    updates = [update(account, task_id, number) for number, task_id in changes(ids)]
    return [
        Calls("a: GetTask, one task", (reads[0],)),
        Calls("b: GetTask, random task", tuple(reads)),
        Calls("c: ListTasks, first page", (page(account),)),
        Calls("d: ListTasks, last page", (page(account, TASKS - PAGE_SIZE),)),
        Calls("e: CreateTask", (create(account),)),
        Calls("f: UpdateTask, random task", tuple(updates)),
        Calls("g: mixed", mixed(order, reads, [page(account)], [create(account)], updates)),
    ]


def mixed(order: random.Random, *kinds: Sequence[Call]) -> tuple[Call, ...]:
    """Returns as many calls as there are tasks, of the kinds in the shares of MIX, in a random order. A kind's own calls keep their order."""
    picked = [number for number, share in enumerate(MIX) for _ in range(share * TASKS // 100)]
    order.shuffle(picked)
    taken = [0] * len(kinds)
    calls = []
    for number in picked:
        calls.append(kinds[number][taken[number] % len(kinds[number])])
        taken[number] += 1
    return tuple(calls)
