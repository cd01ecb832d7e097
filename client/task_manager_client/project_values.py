"""Projects, as frozen dataclasses. `raw` is the JSON that the server sent."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self, TypedDict

from task_manager_client.json_fields import Json, optional_time_of, time_of


class ProjectDetails(TypedDict, total=False):
    """The fields of a project that a client may leave out. In an update, a field that is present is set. `color` is `#rrggbb`, or "" for none."""

    description: str
    color: str


class ProjectFields(ProjectDetails, total=False):
    """The fields of a project that a client can set."""

    name: str


@dataclass(frozen=True, slots=True)
class Project:
    """A project. Projects are in the order of `position`. The times are aware and in UTC."""

    id: str
    user_id: str
    name: str
    description: str
    color: str
    position: str
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    etag: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the project in the API's JSON."""
        return cls(
            id=raw["id"],
            user_id=raw["user_id"],
            name=raw["name"],
            description=raw.get("description", ""),
            color=raw.get("color", ""),
            position=raw.get("position", ""),
            archived_at=optional_time_of(raw.get("archived_at")),
            created_at=time_of(raw["created_at"]),
            updated_at=time_of(raw["updated_at"]),
            deleted_at=optional_time_of(raw.get("deleted_at")),
            etag=raw["etag"],
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """A page of a list of projects. `next_page_token` is empty on the last page."""

    projects: tuple[Project, ...]
    next_page_token: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the page in the API's JSON."""
        return cls(tuple(Project.from_json(project) for project in raw.get("projects", ())), raw.get("next_page_token", ""), raw)
