"""The values of the change feed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from task_service.projects.domain import Project
from task_service.tasks.domain import Task


class ChangeKind(IntEnum):
    """What happened to a task or a project. The API and the table use the same numbers."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    RESTORED = 4
    REMINDER = 6


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a user's change log, with the task after the change, or the project. `seq` counts from 1 without gaps, in commit order."""

    seq: int
    kind: ChangeKind
    subject: Task | Project


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes in order, with the log's epoch and the number of its last change (0 before the first), all from one snapshot."""

    epoch: str
    last_seq: int
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a stream: a change, or None for a checkpoint, and the token that resumes after it."""

    change: Change | None
    resume_token: str


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One entry of a task's history. `session_id` or `api_token_id` says who made the change; the server's own changes have neither.

    `actor_name` is the name of the API token. A session has no name.
    """

    seq: int
    kind: ChangeKind
    at: datetime
    changed_fields: Sequence[str]
    session_id: UUID | None
    api_token_id: UUID | None
    actor_name: str
    task: Task


@dataclass(frozen=True, slots=True)
class History:
    """A page of a task's history, newest first. The page token is empty on the last page."""

    changes: Sequence[TaskChange]
    next_page_token: str
