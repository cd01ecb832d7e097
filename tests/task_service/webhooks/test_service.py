"""The writes of webhooks: their limits, etags and idempotency keys, and that their secrets are encrypted under the key of now."""

from uuid import UUID, uuid4

import pytest

from servicekit.access.seal import NotOpened
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.tasks.domain import Actor
from task_service.tasks.errors import IdempotencyKeyReused
from task_service.webhooks.domain import State, WebhookDeletion, WebhookFields, WebhookUpdate
from task_service.webhooks.errors import TooManyWebhooks, WebhookChanged, WebhookNotFound
from task_service.webhooks.repository import PostgresWebhooks
from task_service.webhooks.service import WebhookService
from tests.task_service.conftest import new_id
from tests.task_service.webhooks.conftest import KEY, hook, seal_of

URL = "https://example.com/hook"
OTHER_KEY = bytes(reversed(KEY))


async def sealed(database: Database, user_id: UUID) -> list[tuple[bytes, bytes | None]]:
    rows = await database.fetch("SELECT secret, old_secret FROM task.webhooks WHERE user_id = $1", user_id)
    return [(row[0], row[1]) for row in rows]


async def test_a_webhook_is_created_changed_listed_and_deleted(service: WebhookService, actor: Actor) -> None:
    user = actor.user_id
    made, secret = await hook(service, user, URL, description="All", event_types=["task.created"])
    assert (made.url, made.description, list(made.event_types), made.state, made.etag) == (URL, "All", ["task.created"], State.ACTIVE, '"1"')
    assert secret.startswith("whsec_")
    update = WebhookUpdate(made.id, WebhookFields(url=f"{URL}/2", state=State.PAUSED), ["url", "state"], ('"1"',))
    changed = (await service.update_webhook(user, update, None)).webhook
    assert changed is not None
    assert (changed.url, changed.description, changed.state, changed.etag) == (f"{URL}/2", "All", State.PAUSED, '"2"')
    with pytest.raises(WebhookChanged) as raised:
        await service.update_webhook(user, update, None)
    assert raised.value.metadata == {"etag": '"2"'}
    # What is so already changes nothing.
    assert (await service.update_webhook(user, WebhookUpdate(made.id, WebhookFields(state=State.PAUSED), ["state"]), None)).webhook == changed
    assert await service.list_webhooks(user) == [changed]
    await service.delete_webhook(user, WebhookDeletion(made.id, ('"2"',)), None)
    for attempt in (service.get_webhook(user, made.id), service.list_deliveries(user, made.id), service.rotate_secret(user, made.id, None, None)):
        with pytest.raises(WebhookNotFound):
            await attempt


async def test_another_users_webhook_is_not_found(service: WebhookService, actor: Actor) -> None:
    made, _ = await hook(service, actor.user_id, URL)
    stranger = uuid4()
    with pytest.raises(WebhookNotFound):
        await service.get_webhook(stranger, made.id)
    with pytest.raises(WebhookNotFound):
        await service.delete_webhook(stranger, WebhookDeletion(made.id), None)
    assert await service.list_webhooks(stranger) == []


async def test_an_eleventh_webhook_is_refused(service: WebhookService, actor: Actor) -> None:
    for _ in range(10):
        await hook(service, actor.user_id, URL)
    with pytest.raises(TooManyWebhooks):
        await hook(service, actor.user_id, URL)


async def test_a_repetition_returns_the_first_secret(service: WebhookService, actor: Actor) -> None:
    key = Idempotency("key", b"hash")
    first = await service.create_webhook(actor.user_id, WebhookFields(url=URL), key)
    again = await service.create_webhook(actor.user_id, WebhookFields(url=URL), key)
    assert (first[0].webhook, first[1]) == (again[0].webhook, again[1])
    assert (first[0].replayed, again[0].replayed) == (False, True)
    assert len(await service.list_webhooks(actor.user_id)) == 1
    with pytest.raises(IdempotencyKeyReused):
        await service.create_webhook(actor.user_id, WebhookFields(url=URL), Idempotency("key", b"other"))
    assert first[0].webhook is not None
    rotation = Idempotency("rotation", b"hash")
    once = await service.rotate_secret(actor.user_id, first[0].webhook.id, None, rotation)
    assert (await service.rotate_secret(actor.user_id, first[0].webhook.id, None, rotation))[1] == once[1] != first[1]


async def test_after_a_rotation_of_the_key_only_the_new_one_is_needed(service: WebhookService, database: Database, actor: Actor) -> None:
    made, _ = await hook(service, actor.user_id, URL)
    await service.rotate_secret(actor.user_id, made.id, None, None)
    ((secret, old_secret),) = await sealed(database, actor.user_id)
    assert old_secret is not None
    expected = seal_of().open(secret, made.id), seal_of().open(old_secret, made.id)
    with pytest.raises(NotOpened):
        seal_of(OTHER_KEY).open(secret, made.id)
    await WebhookService(PostgresWebhooks(database), seal_of(OTHER_KEY, KEY), new_id).reseal()
    ((secret, old_secret),) = await sealed(database, actor.user_id)
    assert old_secret is not None
    assert (seal_of(OTHER_KEY).open(secret, made.id), seal_of(OTHER_KEY).open(old_secret, made.id)) == expected


async def test_a_secret_opens_for_its_own_webhook_alone(service: WebhookService, database: Database, actor: Actor) -> None:
    await hook(service, actor.user_id, URL)
    ((secret, _),) = await sealed(database, actor.user_id)
    with pytest.raises(NotOpened):
        seal_of().open(secret, uuid4())


async def test_a_deleted_account_leaves_no_webhook(service: WebhookService, database: Database, actor: Actor) -> None:
    made, _ = await hook(service, actor.user_id, URL)
    await database.fetchrow("SELECT task.request_test($1, $2, $3, 'msg_1')", actor.user_id, made.id, uuid4())
    await database.fetchrow("SELECT task.close_account($1)", actor.user_id)

    async def left() -> str:
        row = await database.fetchrow("SELECT o_left FROM task.remove_account($1, 100)", actor.user_id)
        assert row is not None
        return str(row[0])

    assert [await left(), await left()] == ["some", "none"]
    for table in ("webhooks", "webhook_deliveries"):
        assert await database.fetch(f"SELECT FROM task.{table} WHERE user_id = $1", actor.user_id) == []
