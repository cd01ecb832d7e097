"""The order of a list of projects, and the query of one. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidField
from servicekit.rpc.paging import Key


class ProjectField(Enum):
    """A field that lists of projects can be ordered by, by its name in the API."""

    POSITION = "position"
    NAME = "name"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@dataclass(frozen=True, slots=True)
class ProjectOrder:
    """An order of projects. Those with equal values are ordered by id, in the same direction."""

    field: ProjectField = ProjectField.POSITION
    descending: bool = False


@dataclass(frozen=True, slots=True)
class ProjectQuery:
    """The query of a list, which must stay the same from page to page."""

    user_id: UUID
    order: ProjectOrder = ProjectOrder()
    show_archived: bool = False
    show_deleted: bool = False

    def identity(self) -> list[Key]:
        """Returns the query in the form to which page tokens are bound."""
        flags = (self.order.descending, self.show_archived, self.show_deleted)
        return ["ListProjects", str(self.user_id), self.order.field.value, *map(int, flags)]


_FIELDS: Final[Mapping[str, ProjectField]] = {field.value: field for field in ProjectField}
_DIRECTIONS: Final[Mapping[tuple[str, ...], bool]] = {(): False, ("asc",): False, ("desc",): True}


def parse_project_order(text: str) -> ProjectOrder:
    """Parses an `order_by` (AIP-132) of one field, such as `name desc`. An empty text means by position. Raises InvalidField."""
    name, *direction = text.split() or [ProjectField.POSITION.value]
    field, descending = _FIELDS.get(name), _DIRECTIONS.get(tuple(direction))
    if field is None or descending is None:
        raise InvalidField.of("order_by", f"must be one of {', '.join(_FIELDS)}, with asc or desc behind it if wanted")
    return ProjectOrder(field, descending)
