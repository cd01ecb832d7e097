"""The values that the API returns, as frozen dataclasses. `raw` is the JSON that the server sent, with the fields that this version does not know."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Self, TypedDict

from task_manager_client.due_values import Recurrence, Reminder
from task_manager_client.json_fields import Json, OpenEnum, optional_day_of, optional_time_of, sent_time, time_of
from task_manager_client.project_values import Project


class Status(OpenEnum):
    """The progress of a task. UNKNOWN stands for a status that a newer server has."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    UNKNOWN = "UNKNOWN"


class ChangeKind(OpenEnum):
    """What happened to a task or a project. A REMINDER changes nothing. UNKNOWN stands for a kind that a newer server has."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"
    RESTORED = "RESTORED"
    CHECKPOINT = "CHECKPOINT"
    REMINDER = "REMINDER"
    UNKNOWN = "UNKNOWN"


class TaskDetails(TypedDict, total=False):
    """The fields of a task that a client may leave out. In an update, a field that is present is set; None clears it.

    At most one of `due_date` and `due_on` is set: to set one clears the other. `time_zone` is an IANA name, for `due_on` and `recurrence`; "" is UTC.
    """

    description: str
    status: Status | str
    priority: int
    due_date: datetime | None
    due_on: date | None
    time_zone: str
    recurrence: Recurrence | None
    reminders: Sequence[Reminder]
    labels: Sequence[str]


class NewTaskDetails(TaskDetails, total=False):
    """The fields of a new task that a client may leave out. Later only move_task changes `project_id` and `parent_id`."""

    project_id: str
    parent_id: str


class NewTask(NewTaskDetails, total=False):
    """The fields of a new task, for batch_create_tasks."""

    title: str


class TaskFields(TaskDetails, total=False):
    """The fields of a task that an update can set."""

    title: str


class TaskUpdate(TaskFields, total=False):
    """One request of batch_update_tasks: `id`, the fields to change and, if the change depends on it, the task's `etag`."""

    id: str
    etag: str


@dataclass(frozen=True, slots=True)
class Task:
    """A task. The times are aware and in UTC.

    `project_id` is "" for the inbox, `parent_id` is "" for a task that is no subtask. `due_at` is `due_date`, or the midnight at which `due_on` ends.
    """

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
    project_id: str
    parent_id: str
    position: str
    due_on: date | None
    time_zone: str
    due_at: datetime | None
    recurrence: Recurrence | None
    previous_id: str
    next_id: str
    reminders: tuple[Reminder, ...]
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
            due_date=optional_time_of(raw.get("due_date")),
            labels=tuple(raw.get("labels", ())),
            created_at=time_of(raw["created_at"]),
            updated_at=time_of(raw["updated_at"]),
            completed_at=optional_time_of(raw.get("completed_at")),
            deleted_at=optional_time_of(raw.get("deleted_at")),
            etag=raw["etag"],
            project_id=raw.get("project_id", ""),
            parent_id=raw.get("parent_id", ""),
            position=raw.get("position", ""),
            due_on=optional_day_of(raw.get("due_on")),
            time_zone=raw.get("time_zone", ""),
            due_at=optional_time_of(raw.get("due_at")),
            recurrence=None if raw.get("recurrence") is None else Recurrence.from_json(raw["recurrence"]),
            previous_id=raw.get("previous_id", ""),
            next_id=raw.get("next_id", ""),
            reminders=tuple(Reminder.from_json(reminder) for reminder in raw.get("reminders", ())),
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
    """A change of a task or of a project, with the task or the project after it. A CHECKPOINT has neither.

    `watch(change.resume_token)` resumes after this change.
    """

    kind: ChangeKind
    task: Task | None
    resume_token: str
    project: Project | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the change in the API's JSON."""
        task, project = raw.get("task"), raw.get("project")
        return cls(
            ChangeKind(raw["kind"]),
            None if task is None else Task.from_json(task),
            raw["resume_token"],
            None if project is None else Project.from_json(project),
            raw,
        )


@dataclass(frozen=True, slots=True)
class Actor:
    """Who made a change: a session, or an API token with its name. The server's own changes, such as reminders, have neither."""

    session_id: str
    api_token_id: str
    name: str

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the actor in the API's JSON."""
        return cls(raw.get("session_id", ""), raw.get("api_token_id", ""), raw.get("name", ""))


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A change in the history of a task: what happened, when, to which fields, by whom, and the task after it."""

    kind: ChangeKind
    at: datetime
    changed_fields: tuple[str, ...]
    actor: Actor
    task: Task
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the change in the API's JSON."""
        return cls(
            kind=ChangeKind(raw["kind"]),
            at=time_of(raw["at"]),
            changed_fields=tuple(raw.get("changed_fields", ())),
            actor=Actor.from_json(raw.get("actor", {})),
            task=Task.from_json(raw["task"]),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class TaskChangePage:
    """A page of the history of a task, newest first. `next_page_token` is empty on the last page."""

    changes: tuple[TaskChange, ...]
    next_page_token: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the page in the API's JSON."""
        return cls(tuple(TaskChange.from_json(change) for change in raw.get("changes", ())), raw.get("next_page_token", ""), raw)


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
        return cls(raw["id"], raw["email"], raw["name"], time_of(raw["created_at"]), time_of(raw["updated_at"]), raw)


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
            created_at=time_of(raw["created_at"]),
            last_used_at=time_of(raw["last_used_at"]),
            expires_at=time_of(raw["expires_at"]),
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


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token of the account, without its text. `hint` is how the text begins; `last_used_at` is None if the token was never used."""

    id: str
    name: str
    scopes: tuple[str, ...]
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the API token in the API's JSON."""
        return cls(
            id=raw["id"],
            name=raw["name"],
            scopes=tuple(raw["scopes"]),
            hint=raw["hint"],
            created_at=time_of(raw["created_at"]),
            last_used_at=optional_time_of(raw.get("last_used_at")),
            expires_at=time_of(raw["expires_at"]),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A new API token. `token` is its text, which no other answer contains."""

    api_token: ApiToken
    token: str = field(repr=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the API token in the API's JSON."""
        return cls(ApiToken.from_json(raw["api_token"]), raw["token"])


@dataclass(frozen=True, slots=True)
class ExchangedToken:
    """The answer of ExchangeApiToken. `expires_in` is in seconds."""

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the access token in the API's JSON."""
        return cls(raw["access_token"], raw["token_type"], raw["expires_in"])


def api_tokens_of(raw: Json) -> tuple[ApiToken, ...]:
    """Returns the API tokens of an answer of ListApiTokens."""
    return tuple(ApiToken.from_json(token) for token in raw.get("api_tokens", ()))


def tasks_of(raw: Json) -> tuple[Task, ...]:
    """Returns the tasks of an answer that has the field `tasks`."""
    return tuple(Task.from_json(task) for task in raw.get("tasks", ()))


def sessions_of(raw: Json) -> tuple[Session, ...]:
    """Returns the sessions of an answer of ListSessions."""
    return tuple(Session.from_json(session) for session in raw.get("sessions", ()))


def task_body(fields: TaskDetails | NewTaskDetails | TaskFields | NewTask | TaskUpdate) -> dict[str, Any]:
    """Returns the JSON of the fields to send. A naive time is in the local time zone. None is left out: a mask clears the field."""
    body: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if (due_date := fields.get("due_date")) is not None:
        body["due_date"] = sent_time(due_date)
    if (due_on := fields.get("due_on")) is not None:
        body["due_on"] = due_on.isoformat()
    if (recurrence := fields.get("recurrence")) is not None:
        body["recurrence"] = recurrence.to_json()
    if "reminders" in body:
        body["reminders"] = [reminder.to_json() for reminder in body["reminders"]]
    if "labels" in body:
        body["labels"] = list(body["labels"])
    return body
