"""The calls of ProjectService. Every write has an idempotency key, so that it can be repeated."""

from typing import Final, Unpack

from task_manager_client.operation import Operation, given, nothing, segment, write_headers
from task_manager_client.project_values import Project, ProjectDetails, ProjectFields, ProjectPage
from task_manager_client.steps import Request

_PROJECTS: Final = "/api/v1/projects"


def create_project(name: str, *, idempotency_key: str | None = None, **details: Unpack[ProjectDetails]) -> Operation[Project]:
    """Creates a project, which comes last. Raises InvalidField, LimitReached."""
    request = Request("POST", _PROJECTS, headers=write_headers(idempotency_key), body={"name": name, **details})
    return Operation(request, Project.from_json, repeatable=True)


def get_project(id: str) -> Operation[Project]:  # noqa: A002 - the API's name
    """Returns a project. Raises ProjectNotFound."""
    return Operation(Request("GET", _path(id)), Project.from_json, repeatable=True)


def list_projects(
    *, order_by: str = "", show_archived: bool = False, show_deleted: bool = False, page_size: int = 0, page_token: str = ""
) -> Operation[ProjectPage]:
    """Returns one page of the projects, in their order if no other one is given. Raises InvalidField, InvalidPageToken."""
    query = given(order_by=order_by, show_archived=show_archived, show_deleted=show_deleted, page_size=page_size, page_token=page_token)
    return Operation(Request("GET", _PROJECTS, query), ProjectPage.from_json, repeatable=True)


def update_project(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
    **fields: Unpack[ProjectFields],
) -> Operation[Project]:
    """Changes exactly the given fields. Raises ProjectNotFound, InvalidField; with an etag, EtagMismatch."""
    request = Request("PATCH", _path(id), {"update_mask": ",".join(fields)}, write_headers(idempotency_key, etag), {**fields})
    return Operation(request, Project.from_json, repeatable=True)


def delete_project(
    id: str,  # noqa: A002 - the API's name
    *,
    force: bool = False,
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[None]:
    """Moves a project to the bin, with `force` its tasks too. Raises ProjectNotFound, ProjectNotEmpty; with an etag, EtagMismatch.

    The server moves many tasks in several steps. After DeadlineExceeded, the same call continues.
    """
    request = Request("DELETE", _path(id), given(force=force), write_headers(idempotency_key, etag))
    return Operation(request, nothing, repeatable=True)


def undelete_project(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[Project]:
    """Restores a project from the bin, and the tasks that went there with it.

    Raises ProjectNotFound, ProjectNotDeleted, LimitReached; with an etag, EtagMismatch. The server restores many tasks in several steps. After
    DeadlineExceeded, the same call continues.
    """
    return _action("undelete", id, etag, idempotency_key)


def archive_project(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[Project]:
    """Archives a project: no task can be added to it or moved into it. Raises ProjectNotFound; with an etag, EtagMismatch."""
    return _action("archive", id, etag, idempotency_key)


def unarchive_project(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[Project]:
    """Ends the archiving of a project. Raises ProjectNotFound; with an etag, EtagMismatch."""
    return _action("unarchive", id, etag, idempotency_key)


def move_project(
    id: str,  # noqa: A002 - the API's name
    *,
    before_id: str = "",
    after_id: str = "",
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[Project]:
    """Moves a project before or after another one, or to the end. Raises ProjectNotFound, SiblingNotFound; with an etag, EtagMismatch."""
    return _action("move", id, etag, idempotency_key, before_id=before_id, after_id=after_id)


def _action(
    verb: str,
    id: str,  # noqa: A002 - the API's name
    etag: str | None,
    idempotency_key: str | None,
    **body: str,
) -> Operation[Project]:
    request = Request("POST", f"{_path(id)}:{verb}", headers=write_headers(idempotency_key, etag), body=given(**body))
    return Operation(request, Project.from_json, repeatable=True)


def _path(project_id: str) -> str:
    return f"{_PROJECTS}/{segment(project_id)}"
