"""Iterators over all pages of a list, and over the changes of a stream that resumes by itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from task_manager_client import projects, tasks
from task_manager_client.core import Core
from task_manager_client.errors import ConnectionFailed, TaskManagerError, UnexpectedAnswer, error_of
from task_manager_client.operation import Operation
from task_manager_client.project_values import Project
from task_manager_client.steps import Emit, Emitting, NextLine, Open, Reply, Steps, Wait
from task_manager_client.values import Change, ChangeKind, Status, Task, TaskChange


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


T = TypeVar("T")
P = TypeVar("P", bound=_Page)

# The largest page of the API.
PAGE_SIZE: Final = 100
# The server sends a checkpoint at least every 45 s. Without two of them the connection is dead.
SILENCE_SECONDS: Final = 100.0


def iter_tasks(
    core: Core,
    *,
    filter: str = "",  # noqa: A002 - the API's name
    order_by: str = "",
    status: Status | str = "",
    priority: int = 0,
    show_deleted: bool = False,
    project_id: str | None = None,
    parent_id: str | None = None,
) -> Emitting[Task]:
    """Returns the matching tasks of all pages, each page when it is needed. Raises as list_tasks."""
    query: Mapping[str, Any] = {
        "filter": filter,
        "order_by": order_by,
        "status": status,
        "priority": priority,
        "show_deleted": show_deleted,
        "project_id": project_id,
        "parent_id": parent_id,
    }
    yield from _all(core, partial(tasks.list_tasks, **query), lambda page: page.tasks)


def iter_projects(core: Core, *, order_by: str = "", show_archived: bool = False, show_deleted: bool = False) -> Emitting[Project]:
    """Returns the projects of all pages, each page when it is needed. Raises as list_projects."""
    query: Mapping[str, Any] = {"order_by": order_by, "show_archived": show_archived, "show_deleted": show_deleted}
    yield from _all(core, partial(projects.list_projects, **query), lambda page: page.projects)


def iter_task_changes(core: Core, id: str) -> Emitting[TaskChange]:  # noqa: A002 - the API's name
    """Returns the whole history of a task, newest first, each page when it is needed. Raises TaskNotFound."""
    yield from _all(core, partial(tasks.list_task_changes, id), lambda page: page.changes)


def _all(core: Core, list_page: Callable[..., Operation[P]], items: Callable[[P], Sequence[T]]) -> Emitting[T]:
    """Returns the items of all pages. `list_page` takes the size and the token of a page."""
    token = ""
    while True:
        page = yield from core.call(list_page(page_size=PAGE_SIZE, page_token=token))
        for item in items(page):
            yield Emit(item)
        token = page.next_page_token
        if not token:
            return


def watch(core: Core, resume_token: str = "", *, checkpoints: bool = False, show_projects: bool = False) -> Emitting[Change]:
    """Returns every change of the account's tasks, once and in order: from now on, or after a resume token. It does not end by itself.

    Reminders are among the changes; with `show_projects` also the changes of projects.

    When the connection or the server fails, it resumes after the last change, and tries so for as long as the failure lasts; only the first stream
    must open within the limits of the retries. With `checkpoints` it also returns the messages without a change; their resume_token is newer.
    Raises InvalidResumeToken, ResumeTokenExpired, NotLoggedIn.
    """
    failures, retries = 0, core.retries
    while True:
        try:
            yield from _open(core, resume_token, show_projects=show_projects)
            while (change := (yield from _next_change())) is not None:
                failures, retries, resume_token = 0, core.retries.endless(), change.resume_token
                if checkpoints or change.kind is not ChangeKind.CHECKPOINT:
                    yield Emit(change)
            # For example because the replica stops, or because the access token has expired.
            error: TaskManagerError = ConnectionFailed("the server ended the stream")
        except TaskManagerError as failed:
            error = failed
        failures += 1
        wait = retries.wait_seconds(error, failures, repeatable=True)
        if wait is None:
            raise error
        yield Wait(wait)


def _open(core: Core, resume_token: str, *, show_projects: bool) -> Steps[None]:
    request = replace(tasks.watch_request(resume_token, show_projects=show_projects), timeout=SILENCE_SECONDS)

    def once(access_token: str) -> Steps[None]:
        reply: Reply = yield Open(replace(request, headers={"authorization": f"Bearer {access_token}"}))
        if reply.is_error:
            raise error_of(reply.status, reply.headers, reply.body)

    yield from core.authorized(once)


def _next_change() -> Steps[Change | None]:
    """Reads the next event (each has one line of data); None at the end of the stream. Lines that are no data are comments or separate events."""
    while True:
        line: str | None = yield NextLine()
        if line is None:
            return None
        if line.startswith("data:"):
            return _change(line.removeprefix("data:"))


def _change(text: str) -> Change:
    try:
        return Change.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedAnswer("the stream has an event that is not one of this API") from error
