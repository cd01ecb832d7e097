"""What a write asks for, and what comes of it. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from servicekit.rpc.retry import Etags
from task_service.tasks.domain import Task, TaskFields


@dataclass(frozen=True, slots=True)
class Creation:
    """A task to make, with the id that it gets."""

    id: UUID
    fields: TaskFields


@dataclass(frozen=True, slots=True)
class Update:
    """The fields named in `mask` to set, and no others."""

    id: UUID
    fields: TaskFields
    mask: Sequence[str]
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A task to move to the bin."""

    id: UUID
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class Undeletion:
    """A task to bring back from the bin."""

    id: UUID
    etags: Etags = None


# What one write does, in order: one or several, all of one kind.
Operation = Creation | Update | Deletion | Undeletion
Operations = Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Written:
    """The tasks as they are then, in the order of the operations; of deletions none.

    `replayed`: nothing was done, since it had been done before under the same idempotency key, and the tasks are those of then.
    """

    tasks: Sequence[Task]
    replayed: bool = False
