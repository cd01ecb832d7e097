"""A webhook, what is sent to it, and what came of that: plain values, independent of storage and wire format."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from servicekit.rpc.retry import Etags
from task_service.feed.domain import ChangeKind
from task_service.projects.domain import Project
from task_service.query.domain import Status
from task_service.tasks.domain import Task, etag_of

# The maximum number of webhooks of a user. task.create_webhook has it too.
MAX_WEBHOOKS: Final = 10
# The most attempts that a client can list. task.log_delivery has it too.
MAX_DELIVERIES: Final = 1000
# The fields that UpdateWebhook sets, by their names in the API.
WRITABLE_FIELDS: Final = ("url", "description", "event_types", "state")
PING: Final = "ping"

_OF_TASKS: Final = {
    ChangeKind.CREATED: "task.created",
    ChangeKind.UPDATED: "task.updated",
    ChangeKind.DELETED: "task.deleted",
    ChangeKind.RESTORED: "task.restored",
    ChangeKind.REMINDER: "task.reminder",
}
COMPLETED: Final = "task.completed"
_OF_PROJECTS: Final = {
    ChangeKind.CREATED: "project.created",
    ChangeKind.UPDATED: "project.updated",
    ChangeKind.DELETED: "project.deleted",
    ChangeKind.RESTORED: "project.restored",
}
# The types that a webhook can select.
EVENT_TYPES: Final = (*_OF_TASKS.values(), COMPLETED, *_OF_PROJECTS.values())


class State(IntEnum):
    """Whether the sender sends. The API and the table use the same numbers."""

    ACTIVE = 1
    PAUSED = 2
    DISABLED = 3


class Webhook(NamedTuple):
    """A webhook as it is stored, without its secrets and the place up to which it was told. The fields have the order of the columns."""

    user_id: UUID
    id: UUID
    url: str
    description: str
    event_types: Sequence[str]
    state: int
    disabled_reason: str
    created_at: datetime
    updated_at: datetime
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure_status: int
    last_failure_error: str
    version: int

    @property
    def etag(self) -> str:
        """A strong entity tag (RFC 9110 §8.8.3), which changes with every change of the webhook that is not only about attempts to send."""
        return etag_of(self.version)


@dataclass(frozen=True, slots=True)
class WebhookFields:
    """The fields of a webhook that a client sets. The defaults are those of a new webhook."""

    url: str = ""
    description: str = ""
    event_types: Sequence[str] = ()
    state: State = State.ACTIVE


@dataclass(frozen=True, slots=True)
class WebhookCreation:
    """Creates a webhook with this id and this secret, which is sealed."""

    id: UUID
    fields: WebhookFields
    sealed: bytes


@dataclass(frozen=True, slots=True)
class WebhookUpdate:
    """Sets the fields of a webhook that `mask` names, and no others."""

    id: UUID
    fields: WebhookFields
    mask: Sequence[str]
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class WebhookDeletion:
    """Deletes a webhook."""

    id: UUID
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Gives a webhook another secret, which is sealed. The old one counts for another day."""

    id: UUID
    sealed: bytes
    etags: Etags = None


WebhookOperation = WebhookCreation | WebhookUpdate | WebhookDeletion | Rotation


@dataclass(frozen=True, slots=True)
class WebhookWritten:
    """The webhook after the write, and its sealed secret; None after a deletion that was replayed."""

    webhook: Webhook | None
    sealed: bytes | None
    replayed: bool = False


class Delivery(NamedTuple):
    """An attempt to send a message. `outcome`: see OUTCOMES. The fields have the order of the columns."""

    id: UUID
    message_id: str
    type: str
    attempt: int
    sent_at: datetime
    duration_ms: int
    outcome: int
    http_status: int
    error: str

    @property
    def has_ended(self) -> bool:
        """Whether the attempt has an outcome. Only a test is stored before it has one."""
        return self.outcome >= SUCCEEDED


# The outcomes of a delivery that has ended.
SUCCEEDED: Final = 2
FAILED: Final = 3


@dataclass(frozen=True, slots=True)
class Told:
    """One entry of a user's change log, as it is told. `at` is the time of the change."""

    seq: int
    kind: ChangeKind
    at: datetime
    changed_fields: Sequence[str]
    subject: Task | Project

    @property
    def type(self) -> str:
        """The type of the message. Completing a task is no other update."""
        if isinstance(self.subject, Project):
            return _OF_PROJECTS[self.kind]
        if self.kind is ChangeKind.UPDATED and "status" in self.changed_fields and self.subject.status is Status.COMPLETED:
            return COMPLETED
        return _OF_TASKS[self.kind]

    def message_id(self, webhook_id: UUID) -> str:
        """Returns the id of the message: the same whenever the change is told to the webhook."""
        # With the time: after a restore from a backup, another change can have the number.
        return message_id(uuid5(webhook_id, f"{self.seq} {self.at.isoformat()} {self.subject.id}"))


def message_id(id: UUID) -> str:  # noqa: A002 - what it is
    """Returns an id in the form of Standard Webhooks. It has no dot, which would end it in what is signed."""
    return f"msg_{id.hex}"


@dataclass(frozen=True, slots=True)
class Key:
    """What identifies a webhook."""

    user_id: UUID
    id: UUID


@dataclass(frozen=True, slots=True)
class Taken:
    """A webhook that a lease holds, with the next changes. `last_seq`: of the log. `secrets` are sealed; the first is the current one."""

    url: str
    event_types: Sequence[str]
    secrets: Sequence[bytes]
    version: int
    failures: int
    last_seq: int
    changes: Sequence[Told]

    def wants(self, told: Told) -> bool:
        """Whether the webhook has selected the type."""
        return not self.event_types or told.type in self.event_types


@dataclass(frozen=True, slots=True)
class WaitingTest:
    """A test that a worker has taken."""

    url: str
    secrets: Sequence[bytes]
    message_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: the HTTP status, 0 without an answer, and what went wrong, which is empty for 2xx."""

    status: int
    error: str

    @property
    def succeeded(self) -> bool:
        """Whether the receiver has the message."""
        return not self.error


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to send the message, and its answer."""

    id: UUID
    message_id: str
    type: str
    number: int
    sent_at: datetime
    duration_ms: int
    answer: Answer


class Result(IntEnum):
    """What follows from an attempt: see task.settle_webhook."""

    PASSED = 0
    SUCCEEDED = 1
    FAILED = 2
    GONE = 3


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a lease has done: it has passed the changes up to `seq`; the last of them with the attempt, if there is one.

    `version`: of the webhook as it was taken. `release`: the lease ends.
    """

    version: int
    seq: int
    result: Result = Result.PASSED
    attempt: Attempt | None = None
    retry_seconds: float = 0.0
    release: bool = False
