"""Webhooks and the attempts to send to them, as frozen dataclasses. `raw` is the JSON that the server sent."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self, TypedDict

from task_manager_client.json_fields import Json, OpenEnum, optional_duration_of, optional_time_of, time_of


class WebhookState(OpenEnum):
    """Whether the server sends to a webhook. UNKNOWN stands for a state that a newer server has."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    DISABLED = "DISABLED"
    UNKNOWN = "UNKNOWN"


class WebhookDetails(TypedDict, total=False):
    """The fields of a webhook that a client may leave out. In an update, a field that is present is set. No `event_types` means all types."""

    description: str
    event_types: list[str]
    state: WebhookState


class WebhookFields(WebhookDetails, total=False):
    """The fields of a webhook that a client can set."""

    url: str


@dataclass(frozen=True, slots=True)
class WebhookFailure:
    """The last attempt that failed, or a gap in what was sent. `http_status` is 0 if there was no answer."""

    at: datetime
    http_status: int
    error: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the failure in the API's JSON."""
        return cls(time_of(raw["at"]), raw.get("http_status", 0), raw.get("error", ""), raw)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook. The times are aware and in UTC."""

    id: str
    url: str
    description: str
    event_types: tuple[str, ...]
    state: WebhookState
    disabled_reason: str
    created_at: datetime
    updated_at: datetime
    last_success_at: datetime | None
    last_failure: WebhookFailure | None
    etag: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the webhook in the API's JSON."""
        failure = raw.get("last_failure")
        return cls(
            id=raw["id"],
            url=raw["url"],
            description=raw.get("description", ""),
            event_types=tuple(raw.get("event_types", ())),
            state=WebhookState(raw["state"]),
            disabled_reason=raw.get("disabled_reason", ""),
            created_at=time_of(raw["created_at"]),
            updated_at=time_of(raw["updated_at"]),
            last_success_at=optional_time_of(raw.get("last_success_at")),
            last_failure=None if failure is None else WebhookFailure.from_json(failure),
            etag=raw["etag"],
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A new webhook, with the secret that signs what it gets. The server shows the secret once."""

    webhook: Webhook
    secret: str = field(repr=False)
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the webhook and its secret in the API's JSON."""
        return cls(Webhook.from_json(raw["webhook"]), raw["secret"], raw)


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """An attempt to send a message to a webhook. `error` is empty if it succeeded; `http_status` is 0 if there was no answer."""

    id: str
    message_id: str
    type: str
    attempt: int
    sent_at: datetime
    duration: timedelta
    succeeded: bool
    http_status: int
    error: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the attempt in the API's JSON."""
        return cls(
            id=raw["id"],
            message_id=raw["message_id"],
            type=raw["type"],
            attempt=raw["attempt"],
            sent_at=time_of(raw["sent_at"]),
            duration=optional_duration_of(raw.get("duration")) or timedelta(),
            succeeded=raw.get("succeeded", False),
            http_status=raw.get("http_status", 0),
            error=raw.get("error", ""),
            raw=raw,
        )
