"""The clients know everything that the descriptors define: RPCs, fields, enum values and reasons."""

import dataclasses
import inspect
import re
from typing import Any

import pytest
from taskmanager.auth.v1 import auth_service_pb2, user_pb2
from taskmanager.rpc.v1.error_reason_pb2 import ErrorReason
from taskmanager.task.v1 import task_pb2, task_service_pb2

from task_manager_client import AsyncClient, Change, ChangeKind, Client, Session, Status, Task, TaskFields, TaskPage, User
from task_manager_client.errors import BY_REASON
from task_manager_client.values import TokenAnswer
from tests.support.descriptors import rpcs

# The client refreshes its tokens by itself. Both watches have a name without the noun, because there is only one stream.
OTHER_NAMES = {"refresh_token": None, "watch_tasks": "watch"}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.rpartition(".")[2]).lower()


METHODS = [name for rpc in rpcs() if rpc.verb and (name := OTHER_NAMES.get(_snake(rpc.name), _snake(rpc.name)))]


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
    assert set(METHODS) <= set(blocking)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Task, task_pb2.Task),
        (TaskPage, task_service_pb2.ListTasksResponse),
        (Change, task_service_pb2.WatchTasksResponse),
        (User, user_pb2.User),
        (Session, auth_service_pb2.Session),
        (TokenAnswer, auth_service_pb2.TokenResponse),
    ],
)
def test_a_value_has_the_fields_of_its_message(value: Any, message: Any) -> None:
    assert {field.name for field in dataclasses.fields(value)} - {"raw"} == set(message.DESCRIPTOR.fields_by_name)


def test_a_client_can_set_every_field_that_the_server_does_not_set() -> None:
    assert set(TaskFields.__annotations__) == {"title", "description", "status", "priority", "due_date", "labels"}
    parameters = set(inspect.signature(Client.list_tasks).parameters) - {"self"}
    assert parameters == set(task_service_pb2.ListTasksRequest.DESCRIPTOR.fields_by_name)


def test_every_enum_value_and_no_other_is_known() -> None:
    assert set(Status) - {Status.UNKNOWN} == set(task_pb2.Task.Status.keys()) - {"STATUS_UNSPECIFIED"}
    assert set(ChangeKind) - {ChangeKind.UNKNOWN} == set(task_service_pb2.WatchTasksResponse.Kind.keys()) - {"KIND_UNSPECIFIED"}
    assert Status("SOMEDAY") is Status.UNKNOWN
    assert ChangeKind("REMINDER") is ChangeKind.UNKNOWN


def test_every_reason_has_a_class_of_its_own() -> None:
    assert set(BY_REASON) == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert len(set(BY_REASON.values())) == len(BY_REASON)
    assert {kind.__name__.lower() for kind in BY_REASON.values()} == {reason.replace("_", "").lower() for reason in BY_REASON}
