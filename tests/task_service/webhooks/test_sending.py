"""Each change is sent to each webhook of its user at least once and in order, whatever the receiver and the workers do."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from standardwebhooks import WebhookVerificationError

from servicekit.stores.postgres import Database
from task_service.projects.domain import ProjectFields
from task_service.projects.repository import PostgresProjects
from task_service.projects.writes import ProjectCreation
from task_service.query.domain import Status
from task_service.tasks.domain import Actor, TaskFields
from task_service.tasks.repository import PostgresTasks
from task_service.tasks.writes import Creation, Deletion, Undeletion, Update
from task_service.webhooks.domain import State, WebhookDeletion, WebhookFields, WebhookUpdate
from task_service.webhooks.errors import WebhookNotFound
from task_service.webhooks.sending import EXTENDED_SECONDS, LONGEST_RETRY_SECONDS, retry_seconds
from task_service.webhooks.service import WebhookService
from tests.task_service.conftest import new_id
from tests.task_service.webhooks.conftest import Receiver, Worker, hook, verified

DUE = "UPDATE task.webhooks SET next_at = now() WHERE user_id = $1"


async def create(tasks: PostgresTasks, actor: Actor, *titles: str) -> list[UUID]:
    return [(await tasks.write(actor, [Creation(new_id(), TaskFields(title=title))])).tasks[0].id for title in titles]


def titles(receiver: Receiver, path: str) -> list[str]:
    return [each.message["data"]["task"]["title"] for each in receiver.of(path)]


async def failing(status: int) -> web.StreamResponse:
    return web.Response(status=status)


async def test_each_change_is_sent_in_order_and_signed(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    _, secret = await hook(service, actor.user_id, f"{receiver.url}/a")
    (task,) = await create(tasks, actor, "One")
    await tasks.write(actor, [Update(task, TaskFields(title="Two", status=Status.COMPLETED), ["title", "status"])])
    await tasks.write(actor, [Deletion(task)])
    await tasks.write(actor, [Undeletion(task)])
    await PostgresProjects(database).write(actor, ProjectCreation(new_id(), ProjectFields("Home")))
    await receiver.count(5)
    said = [verified(secret, each) for each in receiver.got]
    assert [each["type"] for each in said] == ["task.created", "task.completed", "task.deleted", "task.restored", "project.created"]
    assert said[1]["data"]["changed_fields"] == ["title", "status"]
    assert (said[1]["data"]["task"]["id"], said[1]["data"]["task"]["title"], said[1]["data"]["task"]["status"]) == (str(task), "Two", "COMPLETED")
    assert said[4]["data"]["project"]["name"] == "Home"
    assert len({each.headers["webhook-id"] for each in receiver.got}) == 5
    with pytest.raises(WebhookVerificationError):
        verified("whsec_" + "A" * 43 + "=", receiver.got[0])


async def test_only_the_selected_types_are_sent(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, actor: Actor
) -> None:
    await hook(service, actor.user_id, f"{receiver.url}/a", event_types=["task.deleted"])
    first, second = await create(tasks, actor, "One", "Two")
    await tasks.write(actor, [Deletion(first)])
    await tasks.write(actor, [Deletion(second)])
    await receiver.count(2)
    assert [each.message["type"] for each in receiver.got] == ["task.deleted"] * 2


async def test_what_failed_is_sent_again_with_its_id_before_what_follows(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    webhook, _ = await hook(service, actor.user_id, f"{receiver.url}/a")
    receiver.answers["/a"] = lambda _: failing(500)
    await create(tasks, actor, "One", "Two")
    await receiver.count(1)
    await asyncio.sleep(0.3)
    assert titles(receiver, "/a") == ["One"]
    found = await service.get_webhook(actor.user_id, webhook.id)
    assert (found.last_failure_status, found.last_failure_error, found.etag) == (500, "The receiver answered 500.", webhook.etag)
    del receiver.answers["/a"]
    await database.fetchrow(DUE, actor.user_id)
    await receiver.count(3)
    assert titles(receiver, "/a") == ["One", "One", "Two"]
    first, again, other = (each.headers["webhook-id"] for each in receiver.got)
    assert first == again != other
    deliveries = await service.list_deliveries(actor.user_id, webhook.id)
    assert [(each.attempt, each.http_status, each.outcome) for each in deliveries[-2:]] == [(2, 204, 2), (1, 500, 3)]
    assert worker.figures.get_sample_value("webhooks_disabled_total") == 0


def test_attempts_are_5_s_to_an_hour_apart() -> None:
    for failures, least in ((0, 5), (1, 10), (5, 160), (30, LONGEST_RETRY_SECONDS)):
        assert all(least <= retry_seconds(failures) <= least * 1.25 for _ in range(50))


async def test_after_24_hours_without_success_it_is_disabled_and_goes_on_when_it_is_active_again(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    webhook, _ = await hook(service, actor.user_id, f"{receiver.url}/a")
    receiver.answers["/a"] = lambda _: failing(503)
    await create(tasks, actor, "One", "Two")
    await receiver.count(1)
    await asyncio.sleep(0.2)
    await database.fetchrow(
        "UPDATE task.webhooks SET failing_since = now() - $2::interval, next_at = now() WHERE user_id = $1", actor.user_id, timedelta(hours=24)
    )
    await receiver.count(2)
    await asyncio.sleep(0.2)
    found = await service.get_webhook(actor.user_id, webhook.id)
    assert found.state is not State.ACTIVE
    assert (found.state, found.etag) == (State.DISABLED, '"2"')
    assert "503" in found.disabled_reason
    assert worker.figures.get_sample_value("webhooks_disabled_total") == 1
    del receiver.answers["/a"]
    written = await service.update_webhook(actor.user_id, WebhookUpdate(webhook.id, WebhookFields(), ["state"]), None)
    assert written.webhook is not None
    assert written.webhook.disabled_reason == ""
    await receiver.count(4)
    assert titles(receiver, "/a") == ["One", "One", "One", "Two"]


async def test_410_disables_at_once(service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, actor: Actor) -> None:
    webhook, _ = await hook(service, actor.user_id, f"{receiver.url}/a")
    receiver.answers["/a"] = lambda _: failing(410)
    await create(tasks, actor, "One")
    await receiver.count(1)
    await asyncio.sleep(0.3)
    assert (await service.get_webhook(actor.user_id, webhook.id)).disabled_reason == "The receiver answered 410."
    assert worker.figures.get_sample_value("webhooks_disabled_total") == 1


async def test_a_log_that_no_longer_has_what_comes_next_is_followed_from_now(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    webhook, _ = await hook(service, actor.user_id, f"{receiver.url}/a", state=State.PAUSED)
    await create(tasks, actor, "One", "Two", "Three")
    await database.fetchrow("DELETE FROM task.changes WHERE user_id = $1 AND seq = 1", actor.user_id)
    written = await service.update_webhook(actor.user_id, WebhookUpdate(webhook.id, WebhookFields(), ["state"]), None)
    assert written.webhook is not None
    assert written.webhook.last_failure_error == "Changes were skipped: the change log no longer had them."
    await create(tasks, actor, "Four")
    await receiver.count(1)
    assert titles(receiver, "/a") == ["Four"]


@pytest.mark.parametrize("ends", ["pause", "delete", "close"])
async def test_nothing_is_sent_after_a_pause_a_deletion_or_the_end_of_the_account(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor, ends: str
) -> None:
    webhook, _ = await hook(service, actor.user_id, f"{receiver.url}/a")
    goes_on = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        await goes_on.wait()
        return web.Response()

    receiver.answers["/a"] = answer
    await create(tasks, actor, *map(str, range(5)))
    await receiver.count(1)
    if ends == "pause":
        await service.update_webhook(actor.user_id, WebhookUpdate(webhook.id, WebhookFields(state=State.PAUSED), ["state"]), None)
    elif ends == "delete":
        await service.delete_webhook(actor.user_id, WebhookDeletion(webhook.id), None)
    else:
        await database.fetchrow("SELECT task.close_account($1)", actor.user_id)
    goes_on.set()
    await asyncio.sleep(0.5)
    assert len(receiver.got) == 1


async def test_a_receiver_that_hangs_delays_no_other(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, actor: Actor
) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    others = [Actor(uuid4(), uuid4(), "") for _ in range(60)]
    receiver.answers["/hang"] = hang
    for other in others:
        await hook(service, other.user_id, f"{receiver.url}/hang")
        await create(tasks, other, "One")
    await receiver.count(60)
    await hook(service, actor.user_id, f"{receiver.url}/hang")
    await hook(service, actor.user_id, f"{receiver.url}/a")
    began = time.monotonic()
    await create(tasks, actor, *map(str, range(10)))
    await receiver.count(10, "/a")
    assert time.monotonic() - began < 2


async def test_a_killed_worker_is_followed_by_another_one(
    service: WebhookService, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    first, second = Worker(database), Worker(database)
    await hook(service, actor.user_id, f"{receiver.url}/a")

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    receiver.answers["/a"] = hang
    await first.start()
    await create(tasks, actor, "One", "Two")
    await receiver.count(1)
    await second.start()
    # The lease of the first one is extended while its request runs.
    await asyncio.sleep(EXTENDED_SECONDS + 1)
    assert len(receiver.got) == 1
    await first.kill()
    del receiver.answers["/a"]
    await receiver.count(3, within=EXTENDED_SECONDS + 2)
    assert titles(receiver, "/a") == ["One", "One", "Two"]
    assert receiver.got[0].headers["webhook-id"] == receiver.got[1].headers["webhook-id"]
    await second.stop()


async def test_a_killed_worker_delays_a_webhook_whose_receiver_is_quick_by_less_than_2_s(
    service: WebhookService, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    first, second = Worker(database), Worker(database)
    await hook(service, actor.user_id, f"{receiver.url}/a")

    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.Response()

    receiver.answers["/a"] = answer
    await first.start()
    await create(tasks, actor, "One")
    await receiver.count(1)
    began = time.monotonic()
    await first.kill()
    await second.start()
    await receiver.count(2)
    assert time.monotonic() - began < 2
    assert titles(receiver, "/a") == ["One", "One"]
    await second.stop()


async def test_workers_at_once_send_each_change_once(service: WebhookService, receiver: Receiver, tasks: PostgresTasks, database: Database) -> None:
    workers = [Worker(database) for _ in range(3)]
    actors = [Actor(uuid4(), uuid4(), "") for _ in range(10)]
    for number, actor in enumerate(actors):
        await hook(service, actor.user_id, f"{receiver.url}/{number}")
    for worker in workers:
        await worker.start()
    expected = list(map(str, range(12)))
    await asyncio.gather(*(create(tasks, actor, *expected) for actor in actors))
    await receiver.count(120)
    for worker in workers:
        await worker.stop()
    assert {number: titles(receiver, f"/{number}") for number in range(10)} == dict.fromkeys(range(10), expected)


async def test_a_secret_from_before_a_rotation_signs_for_a_day(
    service: WebhookService, worker: Worker, receiver: Receiver, tasks: PostgresTasks, database: Database, actor: Actor
) -> None:
    webhook, old = await hook(service, actor.user_id, f"{receiver.url}/a")
    _, new = await service.rotate_secret(actor.user_id, webhook.id, None, None)
    assert old != new
    await create(tasks, actor, "One")
    await receiver.count(1)
    assert verified(old, receiver.got[0]) == verified(new, receiver.got[0])
    await database.fetchrow("UPDATE task.webhooks SET old_secret_until = now() WHERE user_id = $1", actor.user_id)
    await create(tasks, actor, "Two")
    await receiver.count(2)
    verified(new, receiver.got[1])
    with pytest.raises(WebhookVerificationError):
        verified(old, receiver.got[1])


async def test_a_test_returns_the_attempt(service: WebhookService, worker: Worker, receiver: Receiver, actor: Actor) -> None:
    webhook, secret = await hook(service, actor.user_id, f"{receiver.url}/a", state=State.PAUSED)
    delivery = await service.test_webhook(actor.user_id, webhook.id)
    assert (delivery.type, delivery.http_status, delivery.error, delivery.message_id) == ("ping", 204, "", receiver.got[0].headers["webhook-id"])
    said = verified(secret, receiver.got[0])
    assert (said["type"], said["data"]) == ("ping", {})
    receiver.answers["/a"] = lambda _: failing(302)
    assert (await service.test_webhook(actor.user_id, webhook.id)).error == "The receiver answered 302. Redirects are not followed."
    assert [each.http_status for each in await service.list_deliveries(actor.user_id, webhook.id)] == [302, 204]
    with pytest.raises(WebhookNotFound):
        await service.test_webhook(uuid4(), webhook.id)
