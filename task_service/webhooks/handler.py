"""Maps the messages of taskmanager.task.v1.WebhookService to domain values and back. Must not access storage."""

from uuid import UUID

from taskmanager.task.v1 import webhook_pb2, webhook_service_pb2

from servicekit.rpc.call import Call
from servicekit.rpc.retry import IDEMPOTENCY_REPLAYED, idempotency, required_etags
from task_service.webhooks.domain import WebhookDeletion, WebhookWritten
from task_service.webhooks.messages import delivery_to_message, etag, to_fields, to_message, to_update
from task_service.webhooks.service import WebhookService


class WebhookHandler:
    """The RPCs of WebhookService. Each method is named after its RPC, in snake_case."""

    def __init__(self, service: WebhookService) -> None:
        self._service = service

    async def create_webhook(self, request: webhook_service_pb2.CreateWebhookRequest, call: Call) -> webhook_service_pb2.CreateWebhookResponse:
        """CreateWebhook."""
        made = await self._service.create_webhook(call.identity.user_id, to_fields(request.webhook), idempotency(request, call))
        written, secret = made
        return webhook_service_pb2.CreateWebhookResponse(webhook=_webhook(written, call), secret=secret)

    async def get_webhook(self, request: webhook_service_pb2.GetWebhookRequest, call: Call) -> webhook_pb2.Webhook:
        """GetWebhook."""
        return to_message(await self._service.get_webhook(call.identity.user_id, UUID(request.id)))

    async def list_webhooks(self, _: webhook_service_pb2.ListWebhooksRequest, call: Call) -> webhook_service_pb2.ListWebhooksResponse:
        """ListWebhooks."""
        response = webhook_service_pb2.ListWebhooksResponse()
        for webhook in await self._service.list_webhooks(call.identity.user_id):
            to_message(webhook, response.webhooks.add)
        return response

    async def update_webhook(self, request: webhook_service_pb2.UpdateWebhookRequest, call: Call) -> webhook_pb2.Webhook:
        """UpdateWebhook."""
        update = to_update(request, required_etags(etag(request.webhook), call))
        return _webhook(await self._service.update_webhook(call.identity.user_id, update, idempotency(request, call)), call)

    async def delete_webhook(self, request: webhook_service_pb2.DeleteWebhookRequest, call: Call) -> webhook_service_pb2.DeleteWebhookResponse:
        """DeleteWebhook."""
        deletion = WebhookDeletion(UUID(request.id), required_etags(request.etag, call))
        _note(await self._service.delete_webhook(call.identity.user_id, deletion, idempotency(request, call)), call)
        return webhook_service_pb2.DeleteWebhookResponse()

    async def rotate_webhook_secret(
        self, request: webhook_service_pb2.RotateWebhookSecretRequest, call: Call
    ) -> webhook_service_pb2.RotateWebhookSecretResponse:
        """RotateWebhookSecret."""
        etags = required_etags(request.etag, call)
        written, secret = await self._service.rotate_secret(call.identity.user_id, UUID(request.id), etags, idempotency(request, call))
        _note(written, call)
        return webhook_service_pb2.RotateWebhookSecretResponse(secret=secret)

    async def test_webhook(self, request: webhook_service_pb2.TestWebhookRequest, call: Call) -> webhook_pb2.WebhookDelivery:
        """TestWebhook."""
        return delivery_to_message(await self._service.test_webhook(call.identity.user_id, UUID(request.id)))

    async def list_webhook_deliveries(
        self, request: webhook_service_pb2.ListWebhookDeliveriesRequest, call: Call
    ) -> webhook_service_pb2.ListWebhookDeliveriesResponse:
        """ListWebhookDeliveries."""
        response = webhook_service_pb2.ListWebhookDeliveriesResponse()
        for delivery in await self._service.list_deliveries(call.identity.user_id, UUID(request.id)):
            delivery_to_message(delivery, response.deliveries.add)
        return response


def _note(written: WebhookWritten, call: Call) -> None:
    if written.replayed:
        call.response_headers[IDEMPOTENCY_REPLAYED] = "true"


def _webhook(written: WebhookWritten, call: Call) -> webhook_pb2.Webhook:
    _note(written, call)
    assert written.webhook is not None
    return to_message(written.webhook)
