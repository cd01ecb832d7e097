"""The places at which the pages of a list of projects begin, and how page tokens hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidPageToken
from servicekit.rpc.paging import Key
from task_service.projects.domain import Project
from task_service.projects.order import ProjectField, ProjectOrder

SortValue = str | datetime

_TEXTS: Final = frozenset({ProjectField.POSITION, ProjectField.NAME})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ProjectPlace:
    """A place in an ordered list: after the project with this id and this value of the order's field."""

    value: SortValue
    id: UUID


def place_after(project: Project, order: ProjectOrder) -> ProjectPlace:
    """Returns the place directly after `project`."""
    return ProjectPlace(getattr(project, order.field.value), project.id)


def to_token(place: ProjectPlace) -> list[Key]:
    """Returns the place in the form that a page token holds: times in microseconds since 1970."""
    value = place.value
    return [(value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value, str(place.id)]


def from_token(keys: Sequence[Key], order: ProjectOrder) -> ProjectPlace:
    """Returns the place in a page token of a query with that order. Raises InvalidPageToken if the token has another form."""
    match keys:
        case [str(value), str(last)] if order.field in _TEXTS:
            return ProjectPlace(value, UUID(last))
        case [int(microseconds), str(last)] if order.field not in _TEXTS:
            return ProjectPlace(_EPOCH + timedelta(microseconds=microseconds), UUID(last))
    raise InvalidPageToken
