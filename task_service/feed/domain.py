"""The change log as clients follow it. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from task_service.tasks.domain import Task


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
class Changes:
    """Changes in order, and, as of the same moment, the log's epoch and the number of its last change, 0 before the first."""

    epoch: str
    last_seq: int
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watcher is told: a change, or None for a checkpoint; and where to go on behind it."""

    change: Change | None
    resume_token: str
