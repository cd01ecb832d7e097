"""A task and its etag: plain values, independent of storage and wire format."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple, NewType
from uuid import UUID

from task_service.due.domain import Anchor, Due, Series
from task_service.query.domain import Status

MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 20
DEFAULT_PRIORITY: Final = 3
# The maximum size of the text on a page; text is nearly all of a page. A page may have fewer tasks than requested (AIP-158).
MAX_PAGE_BYTES: Final = 2 * 1024 * 1024
MAX_BYTES_PER_CHARACTER: Final = 4  # in UTF-8
# The maximum size of the text in the answer of a batch. With everything else, the answer stays below the 4 MiB that gRPC clients accept.
MAX_ANSWER_BYTES: Final = 3 * 1024 * 1024

# A task as the bytes of an answer.
Encoded = NewType("Encoded", bytes)

# 18 digits fit into PostgreSQL's bigint.
_ETAG: Final = re.compile(r'"[1-9][0-9]{0,17}"')

# The fields that UpdateTask and ReplaceTask set, by their names in the API.
WRITABLE_FIELDS: Final = ("title", "description", "status", "priority", "due_date", "labels", "due_on", "time_zone", "recurrence", "reminders")


@dataclass(frozen=True, slots=True)
class Reminder:
    """When to remind of a task: at a time, or a number of seconds before it is due. The other one is None."""

    at: datetime | None = None
    before_due: int | None = None


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How a task repeats: a rule in its canonical text, and its series. A request has no series."""

    rrule: str
    anchor: Anchor
    series: Series | None = None


@dataclass(frozen=True, slots=True)
class TaskFields:
    """The fields of a task that a client sets. The defaults are those of a new task.

    At most one of `due_date` and `due_on` is set. In a write to the repository, `due_date` is the end of `due_on`, as in Task.
    """

    title: str = ""
    description: str = ""
    status: Status = Status.PENDING
    priority: int = DEFAULT_PRIORITY
    due_date: datetime | None = None
    labels: tuple[str, ...] = ()
    due_on: date | None = None
    time_zone: str = ""
    recurrence: Recurrence | None = None
    reminders: tuple[Reminder, ...] = ()
    # Only a creation sets them.
    project_id: UUID | None = None
    parent_id: UUID | None = None


class Task(NamedTuple):
    """A task as it is stored. Times are aware, in UTC, to the microsecond; `version` grows by one with each change.

    `due_date` is the time at which the task is due: if it has a `due_on`, the end of that day. The fields have the order of the columns of a list. A
    NamedTuple costs a third of a frozen dataclass.
    """

    user_id: UUID
    id: UUID
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
    version: int
    project_id: UUID | None = None
    parent_id: UUID | None = None
    # None for a task from before there were positions.
    position: str | None = None
    due_on: date | None = None
    time_zone: str = ""
    recurrence: Recurrence | None = None
    previous_id: UUID | None = None
    next_id: UUID | None = None
    reminders: tuple[Reminder, ...] = ()

    @property
    def due(self) -> Due:
        """When the task is due, as the client has set it."""
        return Due(None if self.due_on else self.due_date, self.due_on, self.time_zone)

    @property
    def place(self) -> str:
        """The position among the tasks with the same project and parent."""
        return "0" + self.id.hex if self.position is None else self.position

    @property
    def etag(self) -> str:
        """A strong entity tag (RFC 9110 §8.8.3), which changes with every change of the task."""
        return etag_of(self.version)

    @property
    def characters(self) -> int:
        """The number of characters of the text that `text_bytes` measures."""
        return len(self.title) + len(self.description) + sum(map(len, self.labels))

    @property
    def text_bytes(self) -> int:
        """The approximate size of the task on a page, in bytes."""
        return len(self.title.encode()) + len(self.description.encode()) + sum(len(label.encode()) for label in self.labels)


def position_of(seq: int) -> str:
    """Returns the position of a task that the change with this number creates: see task.position_of."""
    digits = f"{seq:x}"
    return chr(96 + len(digits)) + digits


def seq_of(position: str) -> int:
    """Returns the number of the change that has created a task with this position."""
    return int(position[1:], 16)


def etag_of(version: int) -> str:
    """Returns the etag of a task in that version."""
    return f'"{version}"'


def version_of(etag: str) -> int | None:
    """Returns the version in an etag, or None if no version has this etag."""
    return int(etag[1:-1]) if _ETAG.fullmatch(etag) else None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a user's change log: after the change `seq`, in the log with this epoch."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Listed:
    """Tasks of a list, all from one snapshot, and the place in the user's change log in that snapshot.

    `total_size` is the number of tasks in the whole list, or None if it was not requested.
    """

    tasks: Sequence[Task]
    place: Place
    total_size: int | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """The user, the session and the request of a write. The change log stores them.

    `by_api_token`: `session_id` is the id of an API token, and `name` its name. A session has no name.
    """

    user_id: UUID
    session_id: UUID
    request_id: str
    by_api_token: bool = False
    name: str = ""
