"""What is wrong with the requests of WebhookService beyond the bounds in the protos. Each method is named `check_` and its RPC, in snake_case.

The pipeline calls it before the handler and adds its violations to those of the bounds, so an error names every invalid field.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from taskmanager.task.v1 import webhook_pb2, webhook_service_pb2

from servicekit.errors import InvalidField, Violation, collected
from servicekit.rpc.call import Call
from servicekit.rpc.field_mask import fields_to_set
from servicekit.rpc.retry import violations_of_unconditional_write, violations_of_write
from task_service.webhooks.domain import EVENT_TYPES, WRITABLE_FIELDS
from task_service.webhooks.messages import etag, webhook_id
from task_service.webhooks.targets import Network, faults


class WebhookChecks:
    """The checks."""

    def __init__(self, allowed: Sequence[Network], *, http: bool) -> None:
        """`allowed`: networks whose addresses a URL may have although they are not public. `http`: whether http is accepted too."""
        self._allowed = allowed
        self._http = http

    def check_create_webhook(self, request: webhook_service_pb2.CreateWebhookRequest, call: Call) -> Sequence[Violation]:
        """CreateWebhook."""
        found = violations_of_unconditional_write(call)
        return [*found, *self._of_fields(request.webhook, WRITABLE_FIELDS)] if request.HasField("webhook") else found

    def check_update_webhook(self, request: webhook_service_pb2.UpdateWebhookRequest, call: Call) -> Sequence[Violation]:
        """UpdateWebhook."""
        return [*violations_of_write(request.webhook.etag, call), *self._of_update(request)]

    def check_delete_webhook(self, request: webhook_service_pb2.DeleteWebhookRequest, call: Call) -> Sequence[Violation]:
        """DeleteWebhook."""
        return violations_of_write(request.etag, call)

    def check_rotate_webhook_secret(self, request: webhook_service_pb2.RotateWebhookSecretRequest, call: Call) -> Sequence[Violation]:
        """RotateWebhookSecret."""
        return violations_of_write(request.etag, call)

    def check_test_webhook(self, _: webhook_service_pb2.TestWebhookRequest, call: Call) -> Sequence[Violation]:
        """TestWebhook."""
        return violations_of_unconditional_write(call)

    def _of_update(self, request: webhook_service_pb2.UpdateWebhookRequest) -> Iterator[Violation]:
        webhook = request.webhook
        # Without a webhook the bounds have a violation already.
        if not request.HasField("webhook"):
            return
        yield from collected(partial(webhook_id, webhook), partial(etag, webhook))
        try:
            mask = fields_to_set(request.update_mask, webhook, WRITABLE_FIELDS)
        except InvalidField as wrong:
            yield from wrong.violations
        else:
            yield from self._of_fields(webhook, mask)

    def _of_fields(self, webhook: webhook_pb2.Webhook, mask: Sequence[str]) -> Iterator[Violation]:
        if "url" in mask and not webhook.HasField("url"):
            yield Violation("webhook.url", "must have 1 to 2000 characters")
        if webhook.url and (wrong := faults(webhook.url, http=self._http, allowed=self._allowed)):
            yield Violation("webhook.url", wrong)
        # The first one alone, because an error has room for few of these texts.
        for index, kind in enumerate(webhook.event_types):
            if kind not in EVENT_TYPES:
                yield Violation(f"webhook.event_types[{index}]", f"must be one of {', '.join(EVENT_TYPES)}")
                break
        if webhook.state == webhook_pb2.Webhook.DISABLED and "state" in mask:
            yield Violation("webhook.state", "must be ACTIVE or PAUSED")
