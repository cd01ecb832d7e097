"""The use cases of clients with their webhooks. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what the use cases need."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog

from servicekit.access.seal import NotOpened
from servicekit.errors import DependencyUnavailable
from servicekit.rpc.retry import Etags, Idempotency
from task_service.webhooks.domain import (
    Delivery,
    Rotation,
    Webhook,
    WebhookCreation,
    WebhookDeletion,
    WebhookFields,
    WebhookOperation,
    WebhookUpdate,
    WebhookWritten,
    message_id,
)
from task_service.webhooks.errors import WebhookNotFound
from task_service.webhooks.signing import WebhookSeal, shown

# A worker looks for tests four times a second, and waits 5 s for the answer. The default deadline of a call is 10 s.
TEST_SECONDS: Final = 8.0
TEST_POLL_SECONDS: Final = 0.1
RESEAL_INTERVAL_SECONDS: Final = 300.0
RESEALED_AT_ONCE: Final = 100

log = structlog.get_logger()


class WebhookRepository(Protocol):
    """Stores webhooks and what came of the attempts to send. All methods raise DependencyUnavailable."""

    async def find(self, user_id: UUID, webhook_id: UUID) -> Webhook | None:
        """Returns the webhook, or None if the user has none with that id."""

    async def list(self, user_id: UUID) -> Sequence[Webhook]:
        """Returns all webhooks of the user, in the order of their ids."""

    async def write(self, user_id: UUID, operation: WebhookOperation, idempotency: Idempotency | None = None) -> WebhookWritten:
        """Executes the operation. Raises WriteRefused.

        If the idempotency key was used for the same request in the last 24 hours, changes nothing and returns the answer of that request.
        """

    async def list_deliveries(self, user_id: UUID, webhook_id: UUID) -> Sequence[Delivery] | None:
        """Returns the attempts that have ended, the newest first, or None if the user has no such webhook."""

    async def insert_test(self, user_id: UUID, webhook_id: UUID, test_id: UUID, message: str) -> None:
        """Stores a test for a worker to send. Raises WebhookNotFound, WebhookTestRunning."""

    async def find_delivery(self, user_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery | None:
        """Returns an attempt, or None if there is none with that id."""

    async def list_sealed(self, except_key_id: bytes, limit: int) -> Sequence[tuple[UUID, UUID, bytes, bytes | None]]:
        """Returns users, webhooks and both secrets, of webhooks with a secret that is sealed under a key with another id."""

    async def update_sealed(self, user_id: UUID, webhook_id: UUID, was: bytes, secret: bytes, old_secret: bytes | None) -> None:
        """Sets the secrets, unless the current one has changed."""


class WebhookService:
    """Every method acts for one user and sees only that user's webhooks."""

    def __init__(self, repository: WebhookRepository, seal: WebhookSeal, new_id: Callable[[], UUID]) -> None:
        self._repository = repository
        self._seal = seal
        self._new_id = new_id

    async def get_webhook(self, user_id: UUID, webhook_id: UUID) -> Webhook:
        """Returns the webhook. Raises WebhookNotFound."""
        webhook = await self._repository.find(user_id, webhook_id)
        if webhook is None:
            raise WebhookNotFound
        return webhook

    async def list_webhooks(self, user_id: UUID) -> Sequence[Webhook]:
        """Returns all webhooks."""
        return await self._repository.list(user_id)

    async def create_webhook(self, user_id: UUID, fields: WebhookFields, idempotency: Idempotency | None) -> tuple[WebhookWritten, str]:
        """Creates a webhook. Returns it with its secret. Like every write, it raises WriteRefused."""
        webhook_id = self._new_id()
        return await self._write_secret(user_id, WebhookCreation(webhook_id, fields, self._seal.new(webhook_id)), idempotency)

    async def update_webhook(self, user_id: UUID, update: WebhookUpdate, idempotency: Idempotency | None) -> WebhookWritten:
        """Sets the fields in the mask and no others."""
        return await self._repository.write(user_id, update, idempotency)

    async def delete_webhook(self, user_id: UUID, deletion: WebhookDeletion, idempotency: Idempotency | None) -> WebhookWritten:
        """Deletes a webhook."""
        return await self._repository.write(user_id, deletion, idempotency)

    async def rotate_secret(self, user_id: UUID, webhook_id: UUID, etags: Etags, idempotency: Idempotency | None) -> tuple[WebhookWritten, str]:
        """Gives the webhook another secret, and returns it."""
        return await self._write_secret(user_id, Rotation(webhook_id, self._seal.new(webhook_id), etags), idempotency)

    async def _write_secret(
        self, user_id: UUID, operation: WebhookCreation | Rotation, idempotency: Idempotency | None
    ) -> tuple[WebhookWritten, str]:
        written = await self._repository.write(user_id, operation, idempotency)
        assert written.webhook is not None
        assert written.sealed is not None
        # The stored one, because a replayed answer has the secret of the first request.
        return written, shown(self._seal.open(written.sealed, written.webhook.id))

    async def list_deliveries(self, user_id: UUID, webhook_id: UUID) -> Sequence[Delivery]:
        """Returns the attempts, the newest first. Raises WebhookNotFound."""
        deliveries = await self._repository.list_deliveries(user_id, webhook_id)
        if deliveries is None:
            raise WebhookNotFound
        return deliveries

    async def test_webhook(self, user_id: UUID, webhook_id: UUID) -> Delivery:
        """Has a worker send a message, and returns the attempt.

        Raises WebhookNotFound, WebhookTestRunning; DependencyUnavailable if no worker sends it.
        """
        test_id = self._new_id()
        await self._repository.insert_test(user_id, webhook_id, test_id, message_id(test_id))
        ends = time.monotonic() + TEST_SECONDS
        while time.monotonic() < ends:
            await asyncio.sleep(TEST_POLL_SECONDS)
            delivery = await self._repository.find_delivery(user_id, webhook_id, test_id)
            if delivery is None:
                # The webhook was deleted meanwhile.
                raise WebhookNotFound
            if delivery.has_ended:
                return delivery
        raise DependencyUnavailable("the worker")

    async def reseal(self) -> None:
        """Seals the secrets that are sealed under another key than the first one again. Then the other keys are needed no longer."""
        for user_id, webhook_id, secret, old_secret in await self._repository.list_sealed(self._seal.key_id, RESEALED_AT_ONCE):
            try:
                new = self._seal.renewed(secret, webhook_id)
                old = None if old_secret is None else self._seal.renewed(old_secret, webhook_id)
            except NotOpened:
                log.warning("webhook_secret_not_opened", webhook_id=str(webhook_id))
                continue
            await self._repository.update_sealed(user_id, webhook_id, secret, new, old)
