"""Converts webhooks, attempts to send, and what is sent, between domain values and messages. Must not access storage."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from google.protobuf.json_format import MessageToDict
from taskmanager.task.v1 import webhook_pb2, webhook_service_pb2

from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.resources import resource_etag, resource_id
from servicekit.rpc.retry import Etags
from servicekit.rpc.timestamps import to_timestamp
from task_service.projects.messages import to_message as project_to_message
from task_service.tasks.domain import Task
from task_service.tasks.messages import to_message as task_to_message
from task_service.webhooks.domain import SUCCEEDED, WRITABLE_FIELDS, Delivery, State, Told, Webhook, WebhookFields, WebhookUpdate

TIMES: Final = ("created_at", "updated_at", "last_success_at")


def to_message(webhook: Webhook, new: Callable[[], webhook_pb2.Webhook] = webhook_pb2.Webhook) -> webhook_pb2.Webhook:
    """Returns the webhook as an API message. A time that is None is absent. `new` creates the empty message."""
    message = new()
    message.id = str(webhook.id)
    message.url = webhook.url
    message.description = webhook.description
    message.event_types.extend(webhook.event_types)
    message.state = webhook.state  # type: ignore[assignment]  # both enums use the same numbers
    message.disabled_reason = webhook.disabled_reason
    message.etag = webhook.etag
    for name in TIMES:
        if (time := getattr(webhook, name)) is not None:
            getattr(message, name).CopyFrom(to_timestamp(time))
    if webhook.last_failure_at is not None:
        message.last_failure.at.CopyFrom(to_timestamp(webhook.last_failure_at))
        message.last_failure.http_status = webhook.last_failure_status
        message.last_failure.error = webhook.last_failure_error
    return message


def delivery_to_message(
    delivery: Delivery, new: Callable[[], webhook_pb2.WebhookDelivery] = webhook_pb2.WebhookDelivery
) -> webhook_pb2.WebhookDelivery:
    """Returns the attempt as an API message."""
    message = new()
    message.id = str(delivery.id)
    message.message_id = delivery.message_id
    message.type = delivery.type
    message.attempt = delivery.attempt
    message.sent_at.CopyFrom(to_timestamp(delivery.sent_at))
    message.duration.FromMilliseconds(delivery.duration_ms)
    message.succeeded = delivery.outcome == SUCCEEDED
    message.http_status = delivery.http_status
    message.error = delivery.error
    return message


def to_fields(message: webhook_pb2.Webhook) -> WebhookFields:
    """Returns the fields of the message. An absent field has the default of a new webhook."""
    state = State(message.state) if message.HasField("state") else State.ACTIVE
    return WebhookFields(message.url, message.description, list(message.event_types), state)


def to_update(request: webhook_service_pb2.UpdateWebhookRequest, etags: Etags) -> WebhookUpdate:
    """Returns the update that an UpdateWebhook requests. Raises InvalidField."""
    mask = fields_to_set(request.update_mask, request.webhook, WRITABLE_FIELDS)
    return WebhookUpdate(webhook_id(request.webhook), to_fields(request.webhook), mask, etags)


def webhook_id(message: webhook_pb2.Webhook) -> UUID:
    """Returns the id of a webhook message. Raises InvalidField."""
    return resource_id("webhook.id", message.id)


def etag(message: webhook_pb2.Webhook) -> str:
    """Returns the etag of a webhook message. Raises InvalidField if it is too long. Creations do not call this: they ignore the etag."""
    return resource_etag("webhook.etag", message.etag)


def body_of_change(told: Told) -> bytes:
    """Returns the body of the request that tells of a change. The task or the project has the form of the REST API."""
    data: dict[str, Any]
    if isinstance(told.subject, Task):
        data = {"task": _as_rest(task_to_message(told.subject))}
    else:
        data = {"project": _as_rest(project_to_message(told.subject))}
    return _body(told.type, told.at, data | {"changed_fields": list(told.changed_fields)})


def body_of_test(kind: str, at: datetime) -> bytes:
    """Returns the body of a request that tells of nothing."""
    return _body(kind, at, {})


def _as_rest(message: Any) -> Mapping[str, Any]:
    values: Mapping[str, Any] = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return values


def _body(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"type": kind, "timestamp": at.astimezone(UTC).isoformat().replace("+00:00", "Z"), "data": data})
