"""The clients know everything that the descriptors define: RPCs, fields, enum values and reasons."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from taskmanager.auth.v1 import api_token_service_pb2, auth_service_pb2, user_pb2
from taskmanager.rpc.v1.error_reason_pb2 import ErrorReason
from taskmanager.task.v1 import project_pb2, project_service_pb2, task_pb2, task_service_pb2, webhook_pb2, webhook_service_pb2

import task_manager_client
from task_manager_client import (
    Actor,
    Anchor,
    ApiToken,
    AsyncClient,
    Change,
    ChangeKind,
    Client,
    ExchangedToken,
    NewApiToken,
    NewTask,
    NewWebhook,
    Project,
    ProjectFields,
    ProjectPage,
    Recurrence,
    Reminder,
    Session,
    Status,
    Task,
    TaskChange,
    TaskChangePage,
    TaskFields,
    TaskManagerError,
    TaskPage,
    TaskUpdate,
    User,
    Webhook,
    WebhookDelivery,
    WebhookFailure,
    WebhookFields,
    WebhookState,
)
from task_manager_client.errors import BY_REASON
from task_manager_client.values import TokenAnswer
from tests.support.descriptors import is_immutable, is_output_only, rpcs
from tests.support.tour import ROOT

# The client refreshes its tokens by itself. Both watches have a name without the noun, because there is only one stream.
OTHER_NAMES = {"refresh_token": None, "watch_tasks": "watch"}
METHODS = [name for rpc in rpcs() if rpc.verb and (name := OTHER_NAMES.get(rpc.snake_name, rpc.snake_name))]
# Each makes several calls of one RPC.
OTHER_METHODS = {"iter_tasks", "iter_projects", "iter_task_changes"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_with_a_path_has_a_documented_method(kind: type, name: str) -> None:
    method = getattr(kind, name)
    assert method.__name__ == name
    assert method.__doc__


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def face(kind: type) -> dict[str, str]:
        return {name: str(inspect.signature(value)) for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}

    blocking, awaiting = face(Client), face(AsyncClient)
    assert blocking.pop("close") == awaiting.pop("aclose") == "(self) -> None"
    assert blocking == awaiting
    assert set(blocking) == {*METHODS, *OTHER_METHODS}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Task, task_pb2.Task),
        (TaskPage, task_service_pb2.ListTasksResponse),
        (Recurrence, task_pb2.Recurrence),
        (Reminder, task_pb2.Reminder),
        (Change, task_service_pb2.WatchTasksResponse),
        (TaskChange, task_service_pb2.TaskChange),
        (TaskChangePage, task_service_pb2.ListTaskChangesResponse),
        (Actor, task_service_pb2.TaskChange.Actor),
        (Project, project_pb2.Project),
        (ProjectPage, project_service_pb2.ListProjectsResponse),
        (Webhook, webhook_pb2.Webhook),
        (WebhookFailure, webhook_pb2.Webhook.Failure),
        (WebhookDelivery, webhook_pb2.WebhookDelivery),
        (NewWebhook, webhook_service_pb2.CreateWebhookResponse),
        (User, user_pb2.User),
        (Session, auth_service_pb2.Session),
        (TokenAnswer, auth_service_pb2.TokenResponse),
        (ApiToken, api_token_service_pb2.ApiToken),
        (NewApiToken, api_token_service_pb2.CreateApiTokenResponse),
        (ExchangedToken, auth_service_pb2.ExchangeApiTokenResponse),
    ],
)
def test_a_value_has_the_fields_of_its_message(value: Any, message: Any) -> None:
    assert {field.name for field in dataclasses.fields(value)} - {"raw"} == set(message.DESCRIPTOR.fields_by_name)


def test_a_client_can_set_every_field_that_the_server_does_not_set() -> None:
    settable = {field.name for field in task_pb2.Task.DESCRIPTOR.fields if not is_output_only(field)} - {"etag"}
    later = settable - {field.name for field in task_pb2.Task.DESCRIPTOR.fields if is_immutable(field)}
    assert (set(get_type_hints(NewTask)), set(get_type_hints(TaskFields))) == (settable, later)
    assert set(get_type_hints(TaskUpdate)) == later | {"id", "etag"}
    of_project = {field.name for field in project_pb2.Project.DESCRIPTOR.fields if not is_output_only(field)} - {"etag"}
    assert set(get_type_hints(ProjectFields)) == of_project
    of_webhook = {field.name for field in webhook_pb2.Webhook.DESCRIPTOR.fields if not is_output_only(field)} - {"etag"}
    assert set(get_type_hints(WebhookFields)) == of_webhook


@pytest.mark.parametrize(
    ("method", "request_type", "more"),
    [
        ("list_tasks", task_service_pb2.ListTasksRequest, set()),
        ("list_task_changes", task_service_pb2.ListTaskChangesRequest, set()),
        ("move_task", task_service_pb2.MoveTaskRequest, {"idempotency_key"}),
        ("list_projects", project_service_pb2.ListProjectsRequest, set()),
        ("delete_project", project_service_pb2.DeleteProjectRequest, {"idempotency_key"}),
        ("undelete_project", project_service_pb2.UndeleteProjectRequest, {"idempotency_key"}),
        ("archive_project", project_service_pb2.ArchiveProjectRequest, {"idempotency_key"}),
        ("unarchive_project", project_service_pb2.UnarchiveProjectRequest, {"idempotency_key"}),
        ("move_project", project_service_pb2.MoveProjectRequest, {"idempotency_key"}),
        ("delete_webhook", webhook_service_pb2.DeleteWebhookRequest, {"idempotency_key"}),
        ("rotate_webhook_secret", webhook_service_pb2.RotateWebhookSecretRequest, {"idempotency_key"}),
        ("watch", task_service_pb2.WatchTasksRequest, {"checkpoints"}),
    ],
)
def test_a_method_takes_every_field_of_its_request(method: str, request_type: Any, more: set[str]) -> None:
    parameters = set(inspect.signature(getattr(Client, method)).parameters) - {"self"}
    assert parameters == set(request_type.DESCRIPTOR.fields_by_name) | more


@pytest.mark.slow("it runs mypy")
def test_a_type_checker_knows_arguments_and_results(tmp_path: Path) -> None:
    program = """
from typing import assert_type
from task_manager_client import AsyncClient, Change, Client, Project, Recurrence, Task, TaskChange, TaskPage
client = Client()
assert_type(client.create_task("x", priority=4, labels=["a"], project_id="p", recurrence=Recurrence("FREQ=DAILY")), Task)
assert_type(client.create_project("x", color="#00ff00"), Project)
for change in client.iter_task_changes("x"):
    assert_type(change, TaskChange)
for task in client.iter_tasks(filter="x"):
    assert_type(task, Task)
async def use(client: AsyncClient) -> None:
    assert_type(await client.list_tasks(), TaskPage)
    async for change in client.watch():
        assert_type(change, Change)
"""
    wrong = [
        "create_task('x', priorty=4)",
        "update_task('x', title=3)",
        "update_task('x', project_id='y')",
        "create_task()",
        "create_task('x').titel",
    ]
    path = tmp_path / "program.py"
    path.write_text(program + "".join(f"client.{call}\n" for call in wrong))
    checked = subprocess.run([sys.executable, "-m", "mypy", "--strict", path], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error:" in line]
    first = program.count("\n") + 1
    assert lines == list(range(first, first + len(wrong))), checked.stdout


def test_every_enum_value_and_no_other_is_known() -> None:
    assert set(Status) - {Status.UNKNOWN} == set(task_pb2.Task.Status.keys()) - {"STATUS_UNSPECIFIED"}
    assert set(ChangeKind) - {ChangeKind.UNKNOWN} == set(task_service_pb2.WatchTasksResponse.Kind.keys()) - {"KIND_UNSPECIFIED"}
    assert set(WebhookState) - {WebhookState.UNKNOWN} == set(webhook_pb2.Webhook.State.keys()) - {"STATE_UNSPECIFIED"}
    assert set(Anchor) - {Anchor.UNKNOWN} == set(task_pb2.Recurrence.Anchor.keys()) - {"ANCHOR_UNSPECIFIED"}
    assert Status("SOMEDAY") is Status.UNKNOWN
    assert ChangeKind("SNOOZED") is ChangeKind.UNKNOWN
    assert Anchor("CREATION") is Anchor.UNKNOWN


def test_every_reason_has_a_class_of_its_own() -> None:
    assert set(BY_REASON) == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert len(set(BY_REASON.values())) == len(BY_REASON)
    assert {kind.__name__.lower() for kind in BY_REASON.values()} == {reason.replace("_", "").lower() for reason in BY_REASON}


def test_every_error_can_be_imported_from_the_package() -> None:
    def below(kind: type[TaskManagerError]) -> set[type[TaskManagerError]]:
        return {kind, *(each for child in kind.__subclasses__() for each in below(child))}

    names = {kind.__name__ for kind in below(TaskManagerError) if not kind.__module__.startswith("task_manager_client.cli.")}
    assert names <= set(task_manager_client.__all__)
    assert all(hasattr(task_manager_client, name) for name in names)


def test_an_error_can_be_in_a_set() -> None:
    errors = [kind("text") for kind in BY_REASON.values()]
    assert len({*errors, *errors}) == len(errors)
