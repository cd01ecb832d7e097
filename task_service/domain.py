"""What a task is. Plain values; knows no storage and no wire format."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidField

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


class Status(IntEnum):
    """How far a task has come. The numbers are those of the API and of the table."""

    PENDING = 1
    IN_PROGRESS = 2
    COMPLETED = 3


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


class ChangeKind(IntEnum):
    """What happened to a task. The numbers are those of the API and of the table."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    RESTORED = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a user's change log, with the task as it left it. `seq` counts from 1 without a gap, in the order of the commits."""

    seq: int
    kind: ChangeKind
    task: Task


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a user's change log: behind the change `seq`, of the log that the epoch names."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes in order, and, as of the same moment, the log's epoch and the number of its last change, 0 before the first."""

    epoch: str
    last_seq: int
    changes: Sequence[Change]


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


class OrderField(IntEnum):
    """A field that lists can be ordered by."""

    CREATED_AT = 1
    UPDATED_AT = 2
    DUE_DATE = 3
    PRIORITY = 4
    TITLE = 5


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One key of an order."""

    field: OrderField
    descending: bool


Order = tuple[OrderKey, ...]
NEWEST_FIRST: Final[Order] = (OrderKey(OrderField.CREATED_AT, descending=True),)
_ORDER_FIELDS: Final[Mapping[str, OrderField]] = {field.name.lower(): field for field in OrderField}


def parse_order(text: str) -> Order:
    """An `order_by` (AIP-132), such as `priority desc, due_date`. Empty is newest first. Raises InvalidField."""
    if not text.strip():
        return NEWEST_FIRST
    keys = tuple(_order_key(part) for part in text.split(","))
    if len({key.field for key in keys}) < len(keys):
        raise InvalidField.of("order_by", "must not name a field twice")
    return keys


def _order_key(text: str) -> OrderKey:
    name, *direction = text.split() or [""]
    field = _ORDER_FIELDS.get(name)
    if field is None or direction not in ([], ["asc"], ["desc"]):
        raise InvalidField.of("order_by", f"must be a list of {', '.join(_ORDER_FIELDS)}, each with asc or desc behind it if wanted")
    return OrderKey(field, descending=direction == ["desc"])
