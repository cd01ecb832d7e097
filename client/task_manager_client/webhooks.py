"""The calls of WebhookService. Every write but a test has an idempotency key, so that it can be repeated."""

from typing import Final, Unpack

from task_manager_client.json_fields import Json
from task_manager_client.operation import Operation, nothing, segment, write_headers
from task_manager_client.steps import Request
from task_manager_client.webhook_values import NewWebhook, Webhook, WebhookDelivery, WebhookDetails, WebhookFields

_WEBHOOKS: Final = "/api/v1/webhooks"


def create_webhook(url: str, *, idempotency_key: str | None = None, **details: Unpack[WebhookDetails]) -> Operation[NewWebhook]:
    """Creates a webhook, which gets the changes from now on. Raises InvalidField, LimitReached."""
    request = Request("POST", _WEBHOOKS, headers=write_headers(idempotency_key), body={"url": url, **details})
    return Operation(request, NewWebhook.from_json, repeatable=True)


def get_webhook(id: str) -> Operation[Webhook]:  # noqa: A002 - the API's name
    """Returns a webhook. Raises WebhookNotFound."""
    return Operation(Request("GET", _path(id)), Webhook.from_json, repeatable=True)


def list_webhooks() -> Operation[tuple[Webhook, ...]]:
    """Returns all webhooks."""
    return Operation(Request("GET", _WEBHOOKS), _webhooks, repeatable=True)


def update_webhook(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
    **fields: Unpack[WebhookFields],
) -> Operation[Webhook]:
    """Changes exactly the given fields. Raises WebhookNotFound, InvalidField; with an etag, EtagMismatch."""
    request = Request("PATCH", _path(id), {"update_mask": ",".join(fields)}, write_headers(idempotency_key, etag), {**fields})
    return Operation(request, Webhook.from_json, repeatable=True)


def delete_webhook(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[None]:
    """Deletes a webhook. Raises WebhookNotFound; with an etag, EtagMismatch."""
    return Operation(Request("DELETE", _path(id), headers=write_headers(idempotency_key, etag)), nothing, repeatable=True)


def rotate_webhook_secret(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[str]:
    """Gives a webhook another secret and returns it. The old one signs too for 24 hours. Raises WebhookNotFound; with an etag, EtagMismatch."""
    request = Request("POST", f"{_path(id)}:rotateSecret", headers=write_headers(idempotency_key, etag), body={})
    return Operation(request, _secret, repeatable=True)


def test_webhook(id: str) -> Operation[WebhookDelivery]:  # noqa: A002 - the API's name
    """Sends a ping to a webhook and returns the attempt. Raises WebhookNotFound, Overloaded if another test is under way."""
    return Operation(Request("POST", f"{_path(id)}:test", body={}), WebhookDelivery.from_json, repeatable=False)


def list_webhook_deliveries(id: str) -> Operation[tuple[WebhookDelivery, ...]]:  # noqa: A002 - the API's name
    """Returns the attempts of the last 7 days, the newest first. Raises WebhookNotFound."""
    return Operation(Request("GET", f"{_path(id)}/deliveries"), _deliveries, repeatable=True)


def _webhooks(raw: Json) -> tuple[Webhook, ...]:
    return tuple(Webhook.from_json(each) for each in raw.get("webhooks", ()))


def _deliveries(raw: Json) -> tuple[WebhookDelivery, ...]:
    return tuple(WebhookDelivery.from_json(each) for each in raw.get("deliveries", ()))


def _secret(raw: Json) -> str:
    secret: str = raw["secret"]
    return secret


def _path(webhook_id: str) -> str:
    return f"{_WEBHOOKS}/{segment(webhook_id)}"
