"""Converts projects and operations from and to the forms that they have in PostgreSQL."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from task_service.projects.domain import Project, ProjectFields
from task_service.projects.writes import Archiving, ProjectCreation, ProjectDeletion, ProjectMove, ProjectOperation, ProjectUndeletion, ProjectUpdate
from task_service.tasks.domain import version_of

IDS: Final = ("user_id", "id")
TIMES: Final = ("archived_at", "created_at", "updated_at", "deleted_at")


def project_of_snapshot(snapshot: Mapping[str, Any]) -> Project:
    """Returns the project in a snapshot of the change log. A value that is null is missing there."""
    values: dict[str, Any] = {name: snapshot.get(name) for name in Project._fields}
    values |= {name: UUID(values[name]) for name in IDS}
    values |= {name: None if values[name] is None else datetime.fromisoformat(values[name]) for name in TIMES}
    return Project(**values)


def to_operation(operation: ProjectOperation) -> Mapping[str, Any]:
    """Returns the operation in the form that task.write_project takes."""
    values: dict[str, Any] = {"id": str(operation.id)}
    if not isinstance(operation, ProjectCreation) and operation.etags is not None:
        values["versions"] = [version for version in map(version_of, operation.etags) if version is not None]
    match operation:
        case ProjectCreation(fields=fields):
            values |= _of_fields(fields)
        case ProjectUpdate(fields=fields, mask=mask):
            values |= _of_fields(fields) | {"mask": mask}
        case Archiving(archived=archived):
            values |= {"archived": archived, "mask": ["archived"]}
        case ProjectMove():
            values |= {"before_id": _text(operation.before_id), "after_id": _text(operation.after_id)}
        case ProjectDeletion():
            values |= {"force": operation.force, "continues": operation.continues}
        case ProjectUndeletion():
            values |= {"continues": operation.continues}
    return values


def _of_fields(fields: ProjectFields) -> dict[str, Any]:
    return {"name": fields.name, "description": fields.description, "color": fields.color}


def _text(value: UUID | None) -> str | None:
    """Returns the id as text: asyncpg's ids, which orjson does not know, too."""
    return None if value is None else str(value)
