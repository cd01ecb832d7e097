"""One row for each RPC for clients: the REST request, the same call as a gRPC message, and the status of success. The rows are written by hand, so
that they check the generated mapping.

`$name` in a path, body or message stands for a field of the World in which the call runs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from string import Template
from typing import Any
from uuid import uuid4

import httpx

from tests.support.accounts import PASSWORD, Account, log_in, make_account, make_api_token

AUTH = "taskmanager.auth.v1.AuthService"
USER = "taskmanager.auth.v1.UserService"
API_TOKEN = "taskmanager.auth.v1.ApiTokenService"
EVENT = "taskmanager.auth.v1.EventService"
TASK = "taskmanager.task.v1.TaskService"
PROJECT = "taskmanager.task.v1.ProjectService"
WEBHOOK = "taskmanager.task.v1.WebhookService"


@dataclass(frozen=True, slots=True)
class World:
    """The data that calls refer to: an account with two tasks and two projects, the second of which is archived, one more of each in the bin,
    a webhook, a second session and an API token; and an email without an account.
    """

    email: str
    free_email: str
    password: str
    refresh_token: str
    session_id: str
    task_id: str
    second_task_id: str
    binned_task_id: str
    project_id: str
    second_project_id: str
    binned_project_id: str
    webhook_id: str
    api_token_id: str
    api_token: str
    # After all changes of the tasks so far.
    resume_token: str


NAMES = tuple(World.__dataclass_fields__)
UNMADE = "(the world was made without it)"


@dataclass(frozen=True, slots=True)
class Row:
    """A call that succeeds. `body` is the JSON body, or None; `message` is the gRPC request in JSON form.

    For a streaming method the tests use the first message. Batches have two items.
    """

    rpc: str
    verb: str
    path: str
    status: int
    message: Mapping[str, Any]
    body: Any = None


FULL_TASK: Mapping[str, Any] = {
    "title": "Write the plan",
    "description": "All of it.",
    "status": "IN_PROGRESS",
    "priority": 4,
    "due_date": "2030-01-02T03:04:05.678901Z",
    "labels": ["work", "später"],
    "time_zone": "Europe/Berlin",
    "recurrence": {"rrule": "FREQ=MONTHLY;BYMONTHDAY=1", "anchor": "COMPLETION"},
    "reminders": [{"before_due": "3600s"}],
}
NEW_TASK: Mapping[str, Any] = {**FULL_TASK, "project_id": "$project_id"}
FULL_PROJECT: Mapping[str, Any] = {"name": "Home", "description": "All about the house.", "color": "#00ff7f"}
# Nothing listens there, and nothing of the world's reminds.
FULL_WEBHOOK: Mapping[str, Any] = {
    "url": "http://127.0.0.1:9/hook?of=ada",
    "description": "All about reminders.",
    "event_types": ["task.reminder", "project.deleted"],
    "state": "PAUSED",
}
REGISTRATION = {"email": "$free_email", "password": PASSWORD, "name": "Ada"}
LOGIN = {"email": "$email", "password": "$password"}
REFRESH = {"refresh_token": "$refresh_token"}
CHANGE = {"current_password": "$password", "new_password": "another horse, another battery"}
CONFIRMATION = {"password": "$password"}
EXCHANGE = {"api_token": "$api_token"}
NEW_TOKEN = {"name": "A script", "scopes": ["tasks:read", "account:read"]}
CREATIONS = {"requests": [{"task": NEW_TASK}, {"task": {"title": "Write another"}}]}
CHANGES: Mapping[str, Any] = {
    "title": "Changed",
    "labels": ["new"],
    "due_date": "2040-01-02T03:04:05Z",
    "recurrence": {"rrule": "FREQ=DAILY"},
    "reminders": [{"at": "2040-01-01T03:04:05Z"}],
}
# In JSON the paths of a mask are in camel case.
MASK = "title,labels,dueDate,recurrence,reminders"
UPDATES = {"requests": [{"task": {"id": "$task_id", **CHANGES}, "update_mask": MASK}, {"task": {"id": "$second_task_id", "status": "COMPLETED"}}]}
DELETIONS = {"requests": [{"id": "$task_id"}, {"id": "$second_task_id"}]}

ROWS = (
    Row(f"{AUTH}.Register", "POST", "/api/v1/auth/register", 201, REGISTRATION, body=REGISTRATION),
    Row(f"{AUTH}.Login", "POST", "/api/v1/auth/login", 200, LOGIN, body=LOGIN),
    Row(f"{AUTH}.RefreshToken", "POST", "/api/v1/auth/refresh", 200, REFRESH, body=REFRESH),
    Row(f"{AUTH}.Logout", "POST", "/api/v1/auth/logout", 200, REFRESH, body=REFRESH),
    Row(f"{AUTH}.ListSessions", "GET", "/api/v1/auth/sessions", 200, {}),
    Row(f"{AUTH}.RevokeSession", "DELETE", "/api/v1/auth/sessions/$session_id", 200, {"session_id": "$session_id"}),
    Row(f"{AUTH}.ChangePassword", "POST", "/api/v1/auth/password", 200, CHANGE, body=CHANGE),
    Row(f"{AUTH}.ExchangeApiToken", "POST", "/api/v1/auth/exchange", 200, EXCHANGE, body=EXCHANGE),
    Row(f"{API_TOKEN}.CreateApiToken", "POST", "/api/v1/auth/tokens", 201, {"api_token": NEW_TOKEN}, body=NEW_TOKEN),
    Row(f"{API_TOKEN}.ListApiTokens", "GET", "/api/v1/auth/tokens", 200, {}),
    Row(f"{API_TOKEN}.DeleteApiToken", "DELETE", "/api/v1/auth/tokens/$api_token_id", 200, {"id": "$api_token_id"}),
    Row(f"{USER}.GetMe", "GET", "/api/v1/users/me", 200, {}),
    Row(
        f"{USER}.UpdateMe",
        "PATCH",
        "/api/v1/users/me?update_mask=name",
        200,
        {"user": {"name": "Grace"}, "update_mask": "name"},
        body={"name": "Grace"},
    ),
    Row(f"{USER}.DeleteMe", "POST", "/api/v1/users/me:delete", 200, CONFIRMATION, body=CONFIRMATION),
    Row(f"{TASK}.CreateTask", "POST", "/api/v1/tasks", 201, {"task": NEW_TASK}, body=NEW_TASK),
    Row(f"{TASK}.GetTask", "GET", "/api/v1/tasks/$task_id", 200, {"id": "$task_id"}),
    Row(
        f"{TASK}.ListTasks",
        "GET",
        "/api/v1/tasks?page_size=2&status=pending&priority=3&order_by=due_date,title desc"
        "&filter=title:%22task%22 OR due_date >= 2030-01-01T00:00:00%2B01:00&show_deleted=true&include_total_size=true",
        200,
        {
            "page_size": 2,
            "status": "PENDING",
            "priority": 3,
            "order_by": "due_date,title desc",
            "filter": 'title:"task" OR due_date >= 2030-01-01T00:00:00+01:00',
            "show_deleted": True,
            "include_total_size": True,
        },
    ),
    Row(
        f"{TASK}.UpdateTask",
        "PATCH",
        f"/api/v1/tasks/$task_id?update_mask={MASK}",
        200,
        {"task": {"id": "$task_id", **CHANGES}, "update_mask": MASK},
        body=CHANGES,
    ),
    Row(f"{TASK}.ReplaceTask", "PUT", "/api/v1/tasks/$task_id", 200, {"task": {"id": "$task_id", **FULL_TASK}}, body=FULL_TASK),
    Row(f"{TASK}.DeleteTask", "DELETE", "/api/v1/tasks/$task_id", 200, {"id": "$task_id"}),
    Row(f"{TASK}.UndeleteTask", "POST", "/api/v1/tasks/$binned_task_id:undelete", 200, {"id": "$binned_task_id"}, body={}),
    Row(
        f"{TASK}.MoveTask",
        "POST",
        "/api/v1/tasks/$task_id:move",
        200,
        {"id": "$task_id", "project_id": "$project_id", "parent_id": ""},
        body={"project_id": "$project_id", "parent_id": ""},
    ),
    Row(f"{TASK}.ListTaskChanges", "GET", "/api/v1/tasks/$task_id/history?page_size=2", 200, {"id": "$task_id", "page_size": 2}),
    Row(f"{TASK}.BatchGetTasks", "GET", "/api/v1/tasks:batchGet?ids=$task_id&ids=$second_task_id", 200, {"ids": ["$task_id", "$second_task_id"]}),
    Row(f"{TASK}.BatchCreateTasks", "POST", "/api/v1/tasks:batchCreate", 200, CREATIONS, body=CREATIONS),
    Row(f"{TASK}.BatchUpdateTasks", "POST", "/api/v1/tasks:batchUpdate", 200, UPDATES, body=UPDATES),
    Row(f"{TASK}.BatchDeleteTasks", "POST", "/api/v1/tasks:batchDelete", 200, DELETIONS, body=DELETIONS),
    Row(
        f"{TASK}.WatchTasks",
        "GET",
        "/api/v1/tasks:watch?resume_token=$resume_token&show_projects=true",
        200,
        {"resume_token": "$resume_token", "show_projects": True},
    ),
    Row(f"{PROJECT}.CreateProject", "POST", "/api/v1/projects", 201, {"project": FULL_PROJECT}, body=FULL_PROJECT),
    Row(f"{PROJECT}.GetProject", "GET", "/api/v1/projects/$project_id", 200, {"id": "$project_id"}),
    Row(
        f"{PROJECT}.ListProjects",
        "GET",
        "/api/v1/projects?page_size=2&order_by=name desc&show_archived=true&show_deleted=true",
        200,
        {"page_size": 2, "order_by": "name desc", "show_archived": True, "show_deleted": True},
    ),
    Row(
        f"{PROJECT}.UpdateProject",
        "PATCH",
        "/api/v1/projects/$project_id?update_mask=name,color",
        200,
        {"project": {"id": "$project_id", "name": "Changed", "color": "#ffffff"}, "update_mask": "name,color"},
        body={"name": "Changed", "color": "#ffffff"},
    ),
    Row(f"{PROJECT}.DeleteProject", "DELETE", "/api/v1/projects/$project_id?force=true", 200, {"id": "$project_id", "force": True}),
    Row(f"{PROJECT}.UndeleteProject", "POST", "/api/v1/projects/$binned_project_id:undelete", 200, {"id": "$binned_project_id"}, body={}),
    Row(f"{PROJECT}.ArchiveProject", "POST", "/api/v1/projects/$project_id:archive", 200, {"id": "$project_id"}, body={}),
    Row(f"{PROJECT}.UnarchiveProject", "POST", "/api/v1/projects/$second_project_id:unarchive", 200, {"id": "$second_project_id"}, body={}),
    Row(
        f"{PROJECT}.MoveProject",
        "POST",
        "/api/v1/projects/$project_id:move",
        200,
        {"id": "$project_id", "after_id": "$second_project_id"},
        body={"after_id": "$second_project_id"},
    ),
    Row(f"{WEBHOOK}.CreateWebhook", "POST", "/api/v1/webhooks", 201, {"webhook": FULL_WEBHOOK}, body=FULL_WEBHOOK),
    Row(f"{WEBHOOK}.GetWebhook", "GET", "/api/v1/webhooks/$webhook_id", 200, {"id": "$webhook_id"}),
    Row(f"{WEBHOOK}.ListWebhooks", "GET", "/api/v1/webhooks", 200, {}),
    Row(
        f"{WEBHOOK}.UpdateWebhook",
        "PATCH",
        "/api/v1/webhooks/$webhook_id?update_mask=url,state",
        200,
        {"webhook": {"id": "$webhook_id", "url": "https://hooks.example/tasks", "state": "PAUSED"}, "update_mask": "url,state"},
        body={"url": "https://hooks.example/tasks", "state": "PAUSED"},
    ),
    Row(f"{WEBHOOK}.DeleteWebhook", "DELETE", "/api/v1/webhooks/$webhook_id", 200, {"id": "$webhook_id"}),
    Row(f"{WEBHOOK}.RotateWebhookSecret", "POST", "/api/v1/webhooks/$webhook_id:rotateSecret", 200, {"id": "$webhook_id"}, body={}),
    Row(f"{WEBHOOK}.TestWebhook", "POST", "/api/v1/webhooks/$webhook_id:test", 200, {"id": "$webhook_id"}, body={}),
    Row(f"{WEBHOOK}.ListWebhookDeliveries", "GET", "/api/v1/webhooks/$webhook_id/deliveries", 200, {"id": "$webhook_id"}),
)

# The requests of the internal methods.
INTERNAL: Mapping[str, Mapping[str, Any]] = {f"{EVENT}.ListEvents": {"after": "0", "max_age": "900s", "kind": "SESSION_REVOKED"}}


def row_of(rpc: str) -> Row:
    """Returns the row of a method."""
    (row,) = (row for row in ROWS if row.rpc == rpc)
    return row


def filled(value: Any, world: World) -> Any:
    """Returns a path, body or message in which the world's values replace the names. Raises KeyError if the world was made without one of them."""
    made = {name: given for name, given in asdict(world).items() if given != UNMADE}
    return json.loads(Template(json.dumps(value)).substitute(made))


async def make_world(rest: httpx.AsyncClient, *used: Any) -> tuple[World, Account]:
    """Creates a world. Returns it with the account that acts in it.

    With arguments, which are paths, bodies or messages, the world has only the objects that these name, and in place of all others UNMADE.
    """
    needs = _names_in(used)
    account = await make_account(rest)
    made = {"email": account.email, "free_email": f"{uuid4().hex}@example.com", "password": account.password, "refresh_token": account.refresh_token}
    if "session_id" in needs:
        made["session_id"] = str((await log_in(rest, account)).claims["sid"])
    made |= await _tasks(rest, account, needs) | await _projects(rest, account, needs)
    # Only now, because the positions of projects in the examples follow from the number of changes before.
    for place, name in (("tasks", "binned_task_id"), ("projects", "binned_project_id")):
        if name in made:
            await _done(rest, account, "DELETE", f"/api/v1/{place}/{made[name]}")
    if "second_project_id" in needs:
        await _done(rest, account, "POST", f"/api/v1/projects/{made['second_project_id']}:archive")
    if "resume_token" in needs:
        made["resume_token"] = await resume_token_of(rest, account)
    if "webhook_id" in needs:
        hook = await _done(rest, account, "POST", "/api/v1/webhooks", {**FULL_WEBHOOK, "state": "ACTIVE"})
        made["webhook_id"] = hook["webhook"]["id"]
    if needs & {"api_token_id", "api_token"}:
        made["api_token_id"], made["api_token"] = await make_api_token(rest, account, "tasks:read")
    return World(**{name: made.get(name, UNMADE) for name in NAMES}), account


def _names_in(used: Sequence[Any]) -> set[str]:
    """Returns the names of the world's fields in paths, bodies and messages; all names, if there are none of these."""
    text = json.dumps(used)
    return {name for name in NAMES if not used or re.search(rf"\${name}\b", text)}


async def _tasks(rest: httpx.AsyncClient, account: Account, needs: set[str]) -> dict[str, str]:
    titles = {"task_id": "The task", "second_task_id": "The second task", "binned_task_id": "The binned task"}
    if not needs & titles.keys():
        return {}
    requests = [{"task": {"title": title}} for title in titles.values()]
    answer = await _done(rest, account, "POST", "/api/v1/tasks:batchCreate", {"requests": requests})
    return {name: task["id"] for name, task in zip(titles, answer["tasks"], strict=True)}


async def _projects(rest: httpx.AsyncClient, account: Account, needs: set[str]) -> dict[str, str]:
    names = {"project_id": "The project", "second_project_id": "The second project", "binned_project_id": "The binned project"}
    return {
        field: str((await _done(rest, account, "POST", "/api/v1/projects", {"name": name}))["id"]) for field, name in names.items() if field in needs
    }


async def _done(rest: httpx.AsyncClient, account: Account, verb: str, path: str, body: Any = None) -> Any:
    answer = await rest.request(verb, path, json=body, headers=account.headers)
    assert answer.is_success, answer.text
    return answer.json()


async def make_empty_world(rest: httpx.AsyncClient) -> tuple[World, Account]:
    """Creates a world whose account has no tasks, projects and webhooks: their ids are of nothing."""
    account = await make_account(rest)
    session_id = str((await log_in(rest, account)).claims["sid"])
    token_id, token = await make_api_token(rest, account, "tasks:read")
    secrets = (account.email, f"{uuid4().hex}@example.com", account.password, account.refresh_token)
    return World(*secrets, session_id, *[NO_ID] * 7, token_id, token, "no-token"), account


async def resume_token_of(rest: httpx.AsyncClient, account: Account) -> str:
    """Returns a resume token for all changes from now on."""
    listed = await rest.get("/api/v1/tasks?page_size=1", headers=account.headers)
    assert listed.status_code == httpx.codes.OK, listed.text
    return str(listed.json()["resume_token"])


NO_ID = "0190b5a0-0000-7000-8000-000000000001"
NOWHERE = World("nobody@example.com", "free@example.com", "no-password", "no-token", *[NO_ID] * 9, "tm_none", "no-token")
