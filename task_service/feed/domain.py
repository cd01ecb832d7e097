"""The values of the change feed."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from task_service.tasks.domain import Task


class ChangeKind(IntEnum):
    """What happened to a task. The API and the table use the same numbers."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    RESTORED = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a user's change log, with the task after the change. `seq` counts from 1 without gaps, in commit order."""

    seq: int
    kind: ChangeKind
    task: Task


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
