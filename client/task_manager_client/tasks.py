"""The calls of TaskService, except the stream. Every write has an idempotency key, so that it can be repeated."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Unpack

from task_manager_client.operation import Operation, given, nothing, segment, write_headers
from task_manager_client.steps import Request
from task_manager_client.values import (
    NewTask,
    NewTaskDetails,
    Status,
    Task,
    TaskChangePage,
    TaskDetails,
    TaskFields,
    TaskPage,
    TaskUpdate,
    task_body,
    tasks_of,
)

_TASKS: Final = "/api/v1/tasks"


def create_task(title: str, *, idempotency_key: str | None = None, **details: Unpack[NewTaskDetails]) -> Operation[Task]:
    """Creates a task, the last one in its project or below its parent.

    Raises InvalidField, ProjectNotFound, ProjectArchived, ParentNotFound, TooDeep, TooManySubtasks.
    """
    request = Request("POST", _TASKS, headers=write_headers(idempotency_key), body={"title": title, **task_body(details)})
    return Operation(request, Task.from_json, repeatable=True)


def get_task(id: str) -> Operation[Task]:  # noqa: A002 - the API's name
    """Returns a task. Raises TaskNotFound."""
    return Operation(Request("GET", _path(id)), Task.from_json, repeatable=True)


def list_tasks(
    *,
    filter: str = "",  # noqa: A002 - the API's name
    order_by: str = "",
    status: Status | str = "",
    priority: int = 0,
    show_deleted: bool = False,
    include_total_size: bool = False,
    page_size: int = 0,
    page_token: str = "",
    skip: int = 0,
    project_id: str | None = None,
    parent_id: str | None = None,
) -> Operation[TaskPage]:
    """Returns one page of the matching tasks: those of a project ("" is the inbox), the subtasks of a task ("" means no subtasks), or any.

    Raises InvalidField, for example for a wrong filter, and InvalidPageToken.
    """
    query = given(
        filter=filter,
        order_by=order_by,
        status=status,
        priority=priority,
        show_deleted=show_deleted,
        include_total_size=include_total_size,
        page_size=page_size,
        page_token=page_token,
        skip=skip,
    )
    query |= {name: value for name, value in (("project_id", project_id), ("parent_id", parent_id)) if value is not None}
    return Operation(Request("GET", _TASKS, query), TaskPage.from_json, repeatable=True)


def update_task(
    id: str,  # noqa: A002 - the API's name
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
    **fields: Unpack[TaskFields],
) -> Operation[Task]:
    """Changes exactly the given fields; None clears a field. Raises TaskNotFound, InvalidField; with an etag, EtagMismatch."""
    query = {"update_mask": ",".join(fields)}
    request = Request("PATCH", _path(id), query, write_headers(idempotency_key, etag), task_body(fields))
    return Operation(request, Task.from_json, repeatable=True)


def replace_task(
    id: str,  # noqa: A002 - the API's name
    title: str,
    *,
    etag: str | None = None,
    idempotency_key: str | None = None,
    **details: Unpack[TaskDetails],
) -> Operation[Task]:
    """Sets every field; a field that is not given gets the value of a new task. Raises as update_task."""
    request = Request("PUT", _path(id), headers=write_headers(idempotency_key, etag), body={"title": title, **task_body(details)})
    return Operation(request, Task.from_json, repeatable=True)


def delete_task(id: str, *, etag: str | None = None, idempotency_key: str | None = None) -> Operation[None]:  # noqa: A002 - the API's name
    """Moves a task to the bin, with its subtasks. Raises TaskNotFound, TooManyDescendants; with an etag, EtagMismatch."""
    return Operation(Request("DELETE", _path(id), headers=write_headers(idempotency_key, etag)), nothing, repeatable=True)


def undelete_task(id: str, *, etag: str | None = None, idempotency_key: str | None = None) -> Operation[Task]:  # noqa: A002 - the API's name
    """Restores a task from the bin, and the subtasks that went there with it.

    Raises TaskNotFound, TaskNotDeleted, ParentDeleted, ProjectDeleted; with an etag, EtagMismatch.
    """
    request = Request("POST", f"{_path(id)}:undelete", headers=write_headers(idempotency_key, etag), body={})
    return Operation(request, Task.from_json, repeatable=True)


def move_task(
    id: str,  # noqa: A002 - the API's name
    *,
    project_id: str | None = None,
    parent_id: str | None = None,
    before_id: str = "",
    after_id: str = "",
    etag: str | None = None,
    idempotency_key: str | None = None,
) -> Operation[Task]:
    """Moves a task, with its subtasks, to another place: before or after another task, or to the end.

    A project or parent that is None stays as it is. "" means the inbox, or no parent. With a parent the project is the parent's; a project without a
    parent makes it a task at the top of that project. Raises TaskNotFound, ProjectNotFound, ProjectArchived, ParentNotFound, SiblingNotFound,
    ParentCycle, TooDeep, TooManySubtasks, TooManyDescendants; with an etag, EtagMismatch.
    """
    places = {"project_id": project_id, "parent_id": parent_id}
    body = {**{name: value for name, value in places.items() if value is not None}, **given(before_id=before_id, after_id=after_id)}
    request = Request("POST", f"{_path(id)}:move", headers=write_headers(idempotency_key, etag), body=body)
    return Operation(request, Task.from_json, repeatable=True)


def list_task_changes(id: str, *, page_size: int = 0, page_token: str = "") -> Operation[TaskChangePage]:  # noqa: A002 - the API's name
    """Returns one page of the history of a task, newest first, also of one in the bin. Raises TaskNotFound, InvalidPageToken."""
    query = given(page_size=page_size, page_token=page_token)
    return Operation(Request("GET", f"{_path(id)}/history", query), TaskChangePage.from_json, repeatable=True)


def batch_get_tasks(ids: Sequence[str]) -> Operation[tuple[Task, ...]]:
    """Returns up to 50 tasks, in the order of their ids. Raises TaskNotFound, whose metadata has the `index`."""
    return Operation(Request("GET", f"{_TASKS}:batchGet", {"ids": list(ids)}), tasks_of, repeatable=True)


def batch_create_tasks(tasks: Iterable[NewTask], *, idempotency_key: str | None = None) -> Operation[tuple[Task, ...]]:
    """Creates up to 1000 tasks, all or none. Raises as create_task; the metadata of the error has the `index`."""
    return _batch("Create", [{"task": task_body(task)} for task in tasks], idempotency_key)


def batch_update_tasks(updates: Iterable[TaskUpdate], *, idempotency_key: str | None = None) -> Operation[tuple[Task, ...]]:
    """Changes up to 1000 tasks, all or none. Raises as update_task; the metadata of the error has the `index`."""
    return _batch("Update", [{"task": task_body(update), "update_mask": _mask(update)} for update in updates], idempotency_key)


def batch_delete_tasks(ids: Iterable[str], *, idempotency_key: str | None = None) -> Operation[None]:
    """Moves up to 1000 tasks to the bin, all or none. Raises as delete_task; the metadata of the error has the `index`."""
    body = {"requests": [{"id": id} for id in ids]}  # noqa: A001 - the API's name
    return Operation(Request("POST", f"{_TASKS}:batchDelete", headers=write_headers(idempotency_key), body=body), nothing, repeatable=True)


def watch_request(resume_token: str, *, show_projects: bool) -> Request:
    """Returns the request that opens a stream of changes."""
    return Request("GET", f"{_TASKS}:watch", given(resume_token=resume_token, show_projects=show_projects))


def _batch(verb: str, requests: Sequence[Mapping[str, Any]], idempotency_key: str | None) -> Operation[tuple[Task, ...]]:
    request = Request("POST", f"{_TASKS}:batch{verb}", headers=write_headers(idempotency_key), body={"requests": requests})
    return Operation(request, tasks_of, repeatable=True)


def _mask(update: TaskUpdate) -> str:
    # In JSON, names in a field mask are in camelCase.
    return ",".join(_camel_case(name) for name in update if name not in {"id", "etag"})


def _camel_case(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(word.capitalize() for word in more)


def _path(task_id: str) -> str:
    return f"{_TASKS}/{segment(task_id)}"
