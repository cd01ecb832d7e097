"""The operations of a write, and its result. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from servicekit.rpc.retry import Etags
from task_service.tasks.domain import Encoded, Task, TaskFields


@dataclass(frozen=True, slots=True)
class Creation:
    """Creates a task with this id."""

    id: UUID
    fields: TaskFields


@dataclass(frozen=True, slots=True)
class Update:
    """Sets the fields of a task that `mask` names, and no others."""

    id: UUID
    fields: TaskFields
    mask: Sequence[str]
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """Moves a task to the bin."""

    id: UUID
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class Undeletion:
    """Restores a task from the bin."""

    id: UUID
    etags: Etags = None


# The operations of one write, in order: one or several, all of one kind.
Operation = Creation | Update | Deletion | Undeletion
Operations = Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Written:
    """The tasks after the write, in the order of the operations; no tasks for deletions.

    `replayed` means that this write changed nothing, because the same request was executed before with the same idempotency key. The tasks are then
    those of the first answer. `encoded`: the only task as the bytes of an answer, if a cache has made them.
    """

    tasks: Sequence[Task]
    replayed: bool = False
    encoded: Encoded | None = None
