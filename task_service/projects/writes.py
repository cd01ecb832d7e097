"""The operations of a write of a project, and its result. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from servicekit.rpc.retry import Etags
from task_service.projects.domain import Project, ProjectFields


@dataclass(frozen=True, slots=True)
class ProjectCreation:
    """Creates a project with this id."""

    id: UUID
    fields: ProjectFields


@dataclass(frozen=True, slots=True)
class ProjectUpdate:
    """Sets the fields of a project that `mask` names, and no others."""

    id: UUID
    fields: ProjectFields
    mask: Sequence[str]
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class Archiving:
    """Archives a project, or ends that."""

    id: UUID
    archived: bool
    etags: Etags = None


@dataclass(frozen=True, slots=True)
class ProjectMove:
    """Moves a project to another place. At most one of `before_id` and `after_id` is set; neither means the end."""

    id: UUID
    etags: Etags = None
    before_id: UUID | None = None
    after_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ProjectDeletion:
    """Moves a project to the bin; with `force`, its tasks too. `continues`: an earlier write of the same call has begun with the tasks."""

    id: UUID
    etags: Etags = None
    force: bool = False
    continues: bool = False


@dataclass(frozen=True, slots=True)
class ProjectUndeletion:
    """Restores a project from the bin, with the tasks that it took along. `continues`: an earlier write of the same call has begun."""

    id: UUID
    etags: Etags = None
    continues: bool = False


ProjectOperation = ProjectCreation | ProjectUpdate | Archiving | ProjectMove | ProjectDeletion | ProjectUndeletion
# Those that may change tasks.
Cascade = ProjectDeletion | ProjectUndeletion


@dataclass(frozen=True, slots=True)
class ProjectWritten:
    """The project after the write, or None if a deletion was replayed.

    `replayed`: see Written of tasks. `more`: the write has changed as many tasks as one write may, and others are left.
    """

    project: Project | None
    replayed: bool = False
    more: bool = False
