"""A project: plain values, independent of storage and wire format."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from task_service.tasks.domain import etag_of

# The maximum number of projects of a user that are not in the bin. task.require_room has it too.
MAX_PROJECTS: Final = 1000

# The fields that UpdateProject sets, by their names in the API.
WRITABLE_FIELDS: Final = ("name", "description", "color")


@dataclass(frozen=True, slots=True)
class ProjectFields:
    """The fields of a project that a client sets. The defaults are those of a new project."""

    name: str = ""
    description: str = ""
    color: str = ""


class Project(NamedTuple):
    """A project as it is stored. Times are aware, in UTC, to the microsecond; `version` grows by one with each change.

    The fields have the order of the columns.
    """

    user_id: UUID
    id: UUID
    name: str
    description: str
    color: str
    position: str
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    version: int

    @property
    def etag(self) -> str:
        """A strong entity tag (RFC 9110 §8.8.3), which changes with every change of the project."""
        return etag_of(self.version)

    @property
    def text_bytes(self) -> int:
        """The approximate size of the project on a page, in bytes."""
        return len(self.name.encode()) + len(self.description.encode())
