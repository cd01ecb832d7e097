"""When slots are scarce, users get them in turns, and no slot is lost."""

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from prometheus_client import CollectorRegistry

from servicekit.identity import acting_user
from servicekit.stores.postgres import Database
from servicekit.stores.slots import Slots
from tests.servicekit.stores.databases import hold, options, started

ADA, BOB = UUID(int=1), UUID(int=2)


def as_user(user_id: UUID | None, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Runs the work for the user, as the pipeline does."""
    context = contextvars.copy_context()
    context.run(acting_user.set, user_id)
    return asyncio.create_task(work, context=context)


async def test_users_take_turns() -> None:
    slots, order = Slots(1), list[str]()
    await slots.take()

    async def work(name: str) -> None:
        await slots.take()
        order.append(name)
        await asyncio.sleep(0)
        slots.give_back()

    tasks = [as_user(ADA, work("ada")) for _ in range(4)]
    await asyncio.sleep(0)
    tasks += [as_user(BOB, work("bob")) for _ in range(2)]
    tasks += [as_user(None, work("nobody"))]
    await asyncio.sleep(0)
    slots.give_back()
    await asyncio.gather(*tasks)
    assert order == ["ada", "bob", "nobody", "ada", "bob", "ada", "ada"]


async def test_no_slot_is_lost_or_given_twice_whoever_leaves() -> None:
    choose = random.Random(7)
    slots, using = Slots(3), 0

    async def work() -> None:
        nonlocal using
        await slots.take()
        using += 1
        assert using <= 3
        try:
            await asyncio.sleep(choose.random() / 1000)
        finally:
            using -= 1
            slots.give_back()

    tasks = []
    for _ in range(2000):
        tasks.append(as_user(UUID(int=choose.randrange(5)), work()))
        if choose.random() < 0.5:
            choose.choice(tasks).cancel()
        if choose.random() < 0.1:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(3):
        async with asyncio.timeout(1):
            await slots.take()
    assert slots._free == 0
    assert not slots._lines


async def test_a_user_does_not_wait_behind_all_calls_of_another(database_url: str) -> None:
    ended: list[UUID] = []

    async def work(user_id: UUID) -> None:
        await hold(database, 0.05)
        ended.append(user_id)

    async with started(Database(options(database_url, pool=2), CollectorRegistry())) as database:
        many = [as_user(ADA, work(ADA)) for _ in range(40)]
        await asyncio.sleep(0.02)
        await as_user(BOB, work(BOB))
        assert len(ended) <= 8, "of 40 calls that came first, only those that already had a connection or a turn"
        await asyncio.gather(*many)
