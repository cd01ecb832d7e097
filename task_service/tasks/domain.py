"""What a task is. Plain values; knows no storage and no wire format."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from task_service.query.domain import Status

MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 20
DEFAULT_PRIORITY: Final = 3
# AIP-158: a page may hold fewer tasks than asked for. In bytes of text, which is nearly all of a page.
MAX_PAGE_BYTES: Final = 2 * 1024 * 1024
# Of text in the answer of a batch: with all that is around it an answer stays below the 4 MiB that gRPC clients take.
MAX_ANSWER_BYTES: Final = 3 * 1024 * 1024

# 18 digits fit into PostgreSQL's bigint.
_ETAG: Final = re.compile(r'"[1-9][0-9]{0,17}"')

# The fields that a client sets, by their names in the API and in the table.
WRITABLE_FIELDS: Final = ("title", "description", "status", "priority", "due_date", "labels")


@dataclass(frozen=True, slots=True)
class TaskFields:
    """What a client says about a task. The defaults are those of a new task."""

    title: str = ""
    description: str = ""
    status: Status = Status.PENDING
    priority: int = DEFAULT_PRIORITY
    due_date: datetime | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it is stored. Times are aware, in UTC, to the microsecond; `version` grows by one with each change."""

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

    @property
    def etag(self) -> str:
        """Changes with every change of the task; a strong entity tag (RFC 9110 §8.8.3)."""
        return etag_of(self.version)

    @property
    def text_bytes(self) -> int:
        """About what the task takes on a page, in bytes."""
        return len(self.title.encode()) + len(self.description.encode()) + sum(len(label.encode()) for label in self.labels)


def etag_of(version: int) -> str:
    """The etag of a task in that version."""
    return f'"{version}"'


def version_of(etag: str) -> int | None:
    """The version that an etag of ours is of; None if it is of none that there can be."""
    return int(etag[1:-1]) if _ETAG.fullmatch(etag) else None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a user's change log: behind the change `seq`, of the log that the epoch names."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Listed:
    """Tasks of a list as they were together at one moment, which is that of the place in the user's change log.

    `total_size`: how many the list has in all, None unless it was asked for.
    """

    tasks: Sequence[Task]
    place: Place
    total_size: int | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who writes, in which session, by which call: what the change log keeps of it."""

    user_id: UUID
    session_id: UUID
    request_id: str
