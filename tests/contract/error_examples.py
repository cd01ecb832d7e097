"""Provokes the errors of the catalogue over REST, one for each reason. Their requests and answers are the examples in docs/errors.md."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tests.contract.table import NO_ID, World
from tests.support import rawhttp
from tests.support.accounts import Account

TASKS: Final = "/api/v1/tasks"
PROJECTS: Final = "/api/v1/projects"
# What differs from run to run.
VARYING: Final = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "…id…"),
    (re.compile(r"[0-9a-f]{32}@example\.com"), "ada@example.com"),
    (re.compile(r"[A-Za-z0-9_-]{40,}"), "…token…"),
    (re.compile(r"[0-9.]+(?= ?s(econds)?\b)"), "…"),
)
# Longer bodies are not shown.
SHOWN_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an example runs: a world, the account that acts in it, and a client."""

    rest: httpx.AsyncClient
    world: World
    account: Account

    async def call(self, verb: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Makes a call with the account's token."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.rest.request(verb, path, json=body, headers=self.account.headers | named)

    async def public(self, verb: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Makes a call without a token."""
        return await self.rest.request(verb, path, json=body, headers=headers)


async def _another_query(scene: Scene) -> httpx.Response:
    page = (await scene.call("GET", f"{TASKS}?page_size=1&status=PENDING")).json()
    return await scene.call("GET", f"{TASKS}?page_size=1&priority=1&page_token={page['next_page_token']}")


async def _after_logout(scene: Scene) -> httpx.Response:
    token = {"refresh_token": scene.account.refresh_token}
    await scene.public("POST", "/api/v1/auth/logout", token)
    return await scene.public("POST", "/api/v1/auth/refresh", token)


async def _wrong_passwords(scene: Scene) -> httpx.Response:
    login = {"email": scene.world.free_email, "password": "a mistyped password"}
    while True:
        answer = await scene.public("POST", "/api/v1/auth/login", login)
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer


async def _old_etag(scene: Scene) -> httpx.Response:
    path = f"{TASKS}/{scene.world.task_id}"
    etag = (await scene.call("GET", path)).json()["etag"]
    await scene.call("PATCH", path, {"title": "Changed by another client"})
    return await scene.call("PATCH", path, {"title": "Changed", "etag": etag})


async def _same_key(scene: Scene) -> httpx.Response:
    await scene.call("POST", TASKS, {"title": "One"}, idempotency_key="key-1")
    return await scene.call("POST", TASKS, {"title": "Another"}, idempotency_key="key-1")


async def _large_answer(scene: Scene) -> httpx.Response:
    ids: list[str] = []
    for _ in range(2):
        requests = [{"task": {"title": "Long", "description": "x" * 10_000}}] * 200
        ids += [task["id"] for task in (await scene.call("POST", f"{TASKS}:batchCreate", {"requests": requests})).json()["tasks"]]
    return await scene.call("POST", f"{TASKS}:batchUpdate", {"requests": [{"task": {"id": each, "priority": 1}} for each in ids]})


async def _large_request(scene: Scene) -> httpx.Response:
    """The gateway answers before it has read the whole body, and then closes the connection. httpx would sometimes not see the answer."""
    body = json.dumps({"title": "too long " * 500_000}).encode()
    token = f"authorization: Bearer {scene.account.access_token}".encode()
    answer = await rawhttp.send(str(scene.rest.base_url), rawhttp.RawRequest(b"POST", TASKS.encode(), (token,), body))
    request = httpx.Request("POST", scene.rest.base_url.join(TASKS), content=body)
    return httpx.Response(answer.status_code, content=answer.content, request=request)


async def _one_too_many(scene: Scene) -> httpx.Response:
    while True:
        answer = await scene.call("POST", "/api/v1/auth/tokens", {"name": "A script", "scopes": ["tasks:read"]})
        if answer.is_error:
            return answer


async def _page_token(scene: Scene) -> httpx.Response:
    page = (await scene.call("GET", f"{TASKS}?page_size=1")).json()
    return await scene.call("GET", f"{TASKS}:watch?resume_token={page['next_page_token']}")


async def _archived_project(scene: Scene) -> httpx.Response:
    await scene.call("POST", f"{PROJECTS}/{scene.world.project_id}:archive", {})
    return await scene.call("POST", TASKS, {"title": "One more", "project_id": scene.world.project_id})


async def _subtasks(scene: Scene, parent_id: str, count: int) -> list[str]:
    """Creates subtasks and returns their ids."""
    requests = [{"task": {"title": "A subtask", "parent_id": parent_id}}] * count
    return [task["id"] for task in (await scene.call("POST", f"{TASKS}:batchCreate", {"requests": requests})).json()["tasks"]]


async def _project_with_a_task(scene: Scene) -> httpx.Response:
    await scene.call("POST", TASKS, {"title": "A task", "project_id": scene.world.project_id})
    return await scene.call("DELETE", f"{PROJECTS}/{scene.world.project_id}")


async def _task_of_a_deleted_project(scene: Scene) -> httpx.Response:
    task = (await scene.call("POST", TASKS, {"title": "A task", "project_id": scene.world.project_id})).json()
    await scene.call("DELETE", f"{PROJECTS}/{scene.world.project_id}?force=true")
    return await scene.call("POST", f"{TASKS}/{task['id']}:undelete", {})


async def _subtask_of_a_deleted_parent(scene: Scene) -> httpx.Response:
    (subtask,) = await _subtasks(scene, scene.world.task_id, 1)
    await scene.call("DELETE", f"{TASKS}/{scene.world.task_id}")
    return await scene.call("POST", f"{TASKS}/{subtask}:undelete", {})


async def _own_subtask(scene: Scene) -> httpx.Response:
    (subtask,) = await _subtasks(scene, scene.world.task_id, 1)
    return await scene.call("POST", f"{TASKS}/{scene.world.task_id}:move", {"parent_id": subtask})


async def _sixth_level(scene: Scene) -> httpx.Response:
    task_id = scene.world.task_id
    for _ in range(4):
        (task_id,) = await _subtasks(scene, task_id, 1)
    return await scene.call("POST", TASKS, {"title": "Too deep", "parent_id": task_id})


async def _one_subtask_more(scene: Scene) -> httpx.Response:
    await _subtasks(scene, scene.world.task_id, 500)
    return await scene.call("POST", TASKS, {"title": "One more", "parent_id": scene.world.task_id})


async def _many_descendants(scene: Scene) -> httpx.Response:
    for subtask in await _subtasks(scene, scene.world.task_id, 3):
        await _subtasks(scene, subtask, 333)
    await _subtasks(scene, scene.world.task_id, 1)
    return await scene.call("DELETE", f"{TASKS}/{scene.world.task_id}")


EXAMPLES: Final[Mapping[str, Callable[[Scene], Awaitable[httpx.Response]]]] = {
    "INVALID_FIELD": lambda scene: scene.call("POST", TASKS, {"title": "", "priority": 9}),
    "MALFORMED_REQUEST": lambda scene: scene.call("GET", f"{TASKS}?page_size=many"),
    "INVALID_PAGE_TOKEN": _another_query,
    "TOKEN_MISSING": lambda scene: scene.public("GET", TASKS),
    "TOKEN_INVALID": lambda scene: scene.public("GET", TASKS, authorization="Bearer of-another-system"),
    "INVALID_CREDENTIALS": lambda scene: scene.public(
        "POST", "/api/v1/auth/login", {"email": scene.account.email, "password": "a mistyped password"}
    ),
    "REFRESH_TOKEN_INVALID": _after_logout,
    "EMAIL_TAKEN": lambda scene: scene.public(
        "POST", "/api/v1/auth/register", {"email": scene.account.email, "password": "correct horse battery", "name": "Ada"}
    ),
    "TASK_NOT_FOUND": lambda scene: scene.call("GET", f"{TASKS}/{NO_ID}"),
    "TOO_MANY_ATTEMPTS": _wrong_passwords,
    "WRONG_PASSWORD": lambda scene: scene.call("POST", "/api/v1/users/me:delete", {"password": "a mistyped password"}),
    "SESSION_NOT_FOUND": lambda scene: scene.call("DELETE", f"/api/v1/auth/sessions/{NO_ID}"),
    "ETAG_MISMATCH": _old_etag,
    "IDEMPOTENCY_KEY_REUSED": _same_key,
    "TASK_NOT_DELETED": lambda scene: scene.call("POST", f"{TASKS}/{scene.world.task_id}:undelete", {}),
    "ANSWER_TOO_LARGE": _large_answer,
    "INVALID_RESUME_TOKEN": _page_token,
    "REQUEST_TOO_LARGE": _large_request,
    "PROJECT_NOT_FOUND": lambda scene: scene.call("GET", f"{PROJECTS}/{NO_ID}"),
    "PROJECT_ARCHIVED": _archived_project,
    "PROJECT_NOT_EMPTY": _project_with_a_task,
    "PROJECT_NOT_DELETED": lambda scene: scene.call("POST", f"{PROJECTS}/{scene.world.project_id}:undelete", {}),
    "PROJECT_DELETED": _task_of_a_deleted_project,
    "PARENT_NOT_FOUND": lambda scene: scene.call("POST", TASKS, {"title": "A subtask", "parent_id": scene.world.binned_task_id}),
    "PARENT_DELETED": _subtask_of_a_deleted_parent,
    "PARENT_CYCLE": _own_subtask,
    "TOO_DEEP": _sixth_level,
    "TOO_MANY_SUBTASKS": _one_subtask_more,
    "TOO_MANY_DESCENDANTS": _many_descendants,
    "WEBHOOK_NOT_FOUND": lambda scene: scene.call("GET", f"/api/v1/webhooks/{NO_ID}"),
    "SIBLING_NOT_FOUND": lambda scene: scene.call("POST", f"{PROJECTS}/{scene.world.project_id}:move", {"after_id": NO_ID}),
    "SCOPE_MISSING": lambda scene: scene.public("POST", TASKS, {"title": "Write the plan"}, authorization=f"Bearer {scene.world.api_token}"),
    "SESSION_REQUIRED": lambda scene: scene.public("GET", "/api/v1/auth/sessions", authorization=f"Bearer {scene.world.api_token}"),
    "LIMIT_REACHED": _one_too_many,
    "API_TOKEN_NOT_FOUND": lambda scene: scene.call("DELETE", f"/api/v1/auth/tokens/{NO_ID}"),
}
# The reasons that one call of one client cannot provoke on a system that works.
NOT_PROVOKED: Final[Mapping[str, str]] = {
    "ACCESS_DENIED": "the gateway routes no method that a user may not call",
    "USER_NOT_FOUND": "only within the 2 seconds until every replica knows that the account was deleted",
    "OVERLOADED": "needs more concurrent calls than a replica accepts",
    "DEPENDENCY_UNAVAILABLE": "needs an outage",
    "DEADLINE_EXCEEDED": "needs a slow database",
    "INTERNAL_ERROR": "needs a bug",
    "RESUME_TOKEN_EXPIRED": "needs a token from before a restore, or older than the change log",
    "SERVICE_STOPPING": "needs a replica that stops",
    "TOO_MANY_REGISTRATIONS": "needs more accounts than one address may register",
    "TOO_MANY_WATCHES": "needs more open streams than a user may have",
    "TOO_MANY_UPLOADS": "needs bodies that together are too large for a page of documentation",
    "SLOW_READER": "needs a client that stops reading",
    "TOO_MANY_REQUESTS": "needs a gateway with a rate limit",
}


def shown(response: httpx.Response) -> str:
    """Returns the request and its answer as text, without what differs from run to run."""
    request = response.request
    size, body = len(request.content), _without_varying(request.content.decode())
    lines = [f"{request.method} {request.url.raw_path.decode()}"]
    if body:
        lines.append(body if len(body) <= SHOWN_CHARACTERS else f"{body[:60]}… ({size} bytes)")
    lines += ["", f"HTTP/1.1 {response.status_code}", json.dumps(response.json(), indent=2, sort_keys=True, ensure_ascii=False)]
    return _without_varying("\n".join(lines))


def _without_varying(text: str) -> str:
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text
