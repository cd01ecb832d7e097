"""How late changes reach webhooks under load: 1 000 webhooks of as many users, 200 changes a second, two workers."""

import asyncio
import time
from uuid import uuid4

import pytest

from servicekit.stores.postgres import Database
from task_service.tasks.domain import Actor, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation
from task_service.webhooks.service import WebhookService
from tests.task_service.conftest import new_id
from tests.task_service.webhooks.conftest import Receiver, Worker, hook

WEBHOOKS, PER_SECOND, SECONDS = 1000, 200, 5
WITHIN_SECONDS = 2.0


@pytest.mark.alone("measures how late changes arrive")
async def test_a_change_reaches_its_webhook_within_2_s(service: WebhookService, receiver: Receiver, tasks: PostgresTasks, database: Database) -> None:
    actors = [Actor(uuid4(), uuid4(), "") for _ in range(WEBHOOKS)]
    for actor in actors:
        await hook(service, actor.user_id, f"{receiver.url}/a")
    workers = [Worker(database) for _ in range(2)]
    for worker in workers:
        await worker.start()
    written: dict[str, float] = {}
    late: list[float] = []

    async def watch() -> None:
        read = 0
        while True:
            for each in receiver.got[read:]:
                read += 1
                late.append(time.monotonic() - written[each.message["data"]["task"]["id"]])
            await asyncio.sleep(0.01)

    async def write(actor: Actor) -> None:
        task_id = new_id()
        written[str(task_id)] = time.monotonic()
        await tasks.write(actor, [Creation(task_id, TaskFields(title="One"))])

    watching = asyncio.create_task(watch())
    writing: list[asyncio.Task[None]] = []
    began = time.monotonic()
    for number in range(PER_SECOND * SECONDS):
        await asyncio.sleep(max(began + number / PER_SECOND - time.monotonic(), 0))
        writing.append(asyncio.create_task(write(actors[number * 7 % WEBHOOKS])))
    await asyncio.gather(*writing)
    await receiver.count(PER_SECOND * SECONDS, within=30)
    await asyncio.sleep(0.1)
    watching.cancel()
    for worker in workers:
        await worker.stop()
    late.sort()
    print(f"median {late[len(late) // 2]:.2f} s, 99 % {late[len(late) * 99 // 100]:.2f} s, most {late[-1]:.2f} s")  # noqa: T201 - the measurement
    assert late[-1] < WITHIN_SECONDS
