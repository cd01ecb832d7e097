"""The values that the API returns, as frozen dataclasses. `raw` is the JSON that the server sent, with the fields that this version does not know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self, TypeAlias, TypedDict

Json: TypeAlias = Mapping[str, Any]


class Status(StrEnum):
    """The progress of a task. UNKNOWN stands for a status that a newer server has."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def _missing_(cls, value: object) -> "Status":  # noqa: ARG003 - the signature of Enum
        return cls.UNKNOWN


class ChangeKind(StrEnum):
    """What happened to a task. UNKNOWN stands for a kind that a newer server has."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"
    RESTORED = "RESTORED"
    CHECKPOINT = "CHECKPOINT"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def _missing_(cls, value: object) -> "ChangeKind":  # noqa: ARG003 - the signature of Enum
        return cls.UNKNOWN


class TaskDetails(TypedDict, total=False):
    """The fields of a task that a client may leave out. In an update, a field that is present is set; None clears `due_date`."""

    description: str
    status: Status | str
    priority: int
    due_date: datetime | None
    labels: Sequence[str]


class TaskFields(TaskDetails, total=False):
    """The fields of a task that a client can set."""

    title: str


class TaskUpdate(TaskFields, total=False):
    """One request of batch_update_tasks: `id`, the fields to change and, if the change depends on it, the task's `etag`."""

    id: str
    etag: str


@dataclass(frozen=True, slots=True)
class Task:
    """A task. The times are aware and in UTC."""

    id: str
    user_id: str
    title: str
    description: str
    status: Status
    priority: int
    due_date: datetime | None
    labels: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    deleted_at: datetime | None
    etag: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the task in the API's JSON."""
        return cls(
            id=raw["id"],
            user_id=raw["user_id"],
            title=raw["title"],
            description=raw.get("description", ""),
            status=Status(raw["status"]),
            priority=raw["priority"],
            due_date=_optional_time(raw.get("due_date")),
            labels=tuple(raw.get("labels", ())),
            created_at=_time(raw["created_at"]),
            updated_at=_time(raw["updated_at"]),
            completed_at=_optional_time(raw.get("completed_at")),
            deleted_at=_optional_time(raw.get("deleted_at")),
            etag=raw["etag"],
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of a list. `next_page_token` is empty on the last page; `total_size` is None unless it was asked for.

    `watch(page.resume_token)` reports every change that the page does not show.
    """

    tasks: tuple[Task, ...]
    next_page_token: str
    total_size: int | None
    resume_token: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the page in the API's JSON."""
        return cls(tasks_of(raw), raw.get("next_page_token", ""), raw.get("total_size"), raw.get("resume_token", ""), raw)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a task, with the task after it. `task` is None in a CHECKPOINT. `watch(change.resume_token)` resumes after this change."""

    kind: ChangeKind
    task: Task | None
    resume_token: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the change in the API's JSON."""
        task = raw.get("task")
        return cls(ChangeKind(raw["kind"]), None if task is None else Task.from_json(task), raw["resume_token"], raw)


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    id: str
    email: str
    name: str
    created_at: datetime
    updated_at: datetime
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the account in the API's JSON."""
        return cls(raw["id"], raw["email"], raw["name"], _time(raw["created_at"]), _time(raw["updated_at"]), raw)


@dataclass(frozen=True, slots=True)
class Session:
    """A session of the account. `current` is true for the session of the call."""

    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    address: str
    current: bool
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the session in the API's JSON."""
        return cls(
            id=raw["id"],
            created_at=_time(raw["created_at"]),
            last_used_at=_time(raw["last_used_at"]),
            expires_at=_time(raw["expires_at"]),
            user_agent=raw.get("user_agent", ""),
            address=raw.get("address", ""),
            current=raw.get("current", False),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """The answer of Login and RefreshToken. `expires_in` is in seconds."""

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int
    refresh_token: str = field(repr=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the tokens in the API's JSON."""
        return cls(raw["access_token"], raw["token_type"], raw["expires_in"], raw["refresh_token"])


def tasks_of(raw: Json) -> tuple[Task, ...]:
    """Returns the tasks of an answer that has the field `tasks`."""
    return tuple(Task.from_json(task) for task in raw.get("tasks", ()))


def sessions_of(raw: Json) -> tuple[Session, ...]:
    """Returns the sessions of an answer of ListSessions."""
    return tuple(Session.from_json(session) for session in raw.get("sessions", ()))


def task_body(fields: TaskFields | TaskDetails | TaskUpdate) -> dict[str, Any]:
    """Returns the JSON of the fields to send. A naive `due_date` is in the local time zone. None is left out: a mask clears the field."""
    body: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if (due_date := fields.get("due_date")) is not None:
        # Not astimezone for a naive time: in the gap of a clock change it moves the time back.
        at = due_date.astimezone(UTC) if due_date.tzinfo else datetime.fromtimestamp(due_date.timestamp(), UTC)
        body["due_date"] = at.isoformat().replace("+00:00", "Z")
    if "labels" in body:
        body["labels"] = list(body["labels"])
    return body


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _optional_time(text: str | None) -> datetime | None:
    return None if text is None else _time(text)
