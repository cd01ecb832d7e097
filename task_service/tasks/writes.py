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
class NextTask:
    """The task that follows a recurring one at its completion. The rest of it is as the completed one has it."""

    id: UUID
    fields: TaskFields


@dataclass(frozen=True, slots=True)
class Update:
    """Sets the fields of a task that `mask` names, and no others.

    `basis`: the version of the task for which the fields and `next` were computed, if they depend on the task. `next`: what follows if the update
    completes the task.
    """

    id: UUID
    fields: TaskFields
    mask: Sequence[str]
    etags: Etags = None
    basis: int | None = None
    next: NextTask | None = None


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


@dataclass(frozen=True, slots=True)
class Move:
    """Moves a task to another place, parent or project.

    `project_id` and `parent_id` count only if the flag beside them is set; None is the inbox, or no parent. At most one of `before_id` and `after_id`
    is set; neither means the end of the list.
    """

    id: UUID
    etags: Etags = None
    moves_project: bool = False
    project_id: UUID | None = None
    moves_parent: bool = False
    parent_id: UUID | None = None
    before_id: UUID | None = None
    after_id: UUID | None = None


# The operations of one write, in order: one or several, all of one kind; one Move.
Operation = Creation | Update | Deletion | Undeletion | Move
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
