"""What is read from the descriptors, and that a REST call may only name the resource of its path."""

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from taskmanager.auth.v1 import auth_service_pb2
from taskmanager.rpc.v1 import access_pb2
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.rpc.method import ClientStreams, Method, MissingAccess, WrongScope, methods_of

TASKS = task_service_pb2.DESCRIPTOR.services_by_name["TaskService"]
A, B = "0190b5a0-0000-7000-8000-00000000000a", "0190b5a0-0000-7000-8000-00000000000b"


def methods() -> dict[str, Method]:
    return {method.name: method for method in methods_of(TASKS)}


def service_with(access: int = 0, scope: str = "") -> ServiceDescriptor:
    """Returns a service with one method, which has a REST path and these options."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="planted.proto", package="planted", syntax="proto3")
    file.message_type.add(name="Nothing")
    method = file.service.add(name="Open").method.add(name="Call", input_type=".planted.Nothing", output_type=".planted.Nothing")
    method.options.Extensions[annotations_pb2.http].get = "/planted"
    method.options.Extensions[access_pb2.access] = access
    method.options.Extensions[access_pb2.scope] = scope
    pool.Add(file)
    return pool.FindServiceByName("planted.Open")


def test_access_and_names_are_read() -> None:
    found = methods()
    assert {method.access for method in found.values()} == {access_pb2.ACCESS_AUTHENTICATED}
    assert found["GetTask"].snake_name == "get_task"
    assert found["GetTask"].service == "taskmanager.task.v1.TaskService"
    assert found["GetTask"].request_type is task_service_pb2.GetTaskRequest
    auth = methods_of(auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"])
    public = {method.name for method in auth if method.access == access_pb2.ACCESS_PUBLIC}
    assert public == {"Register", "Login", "RefreshToken", "Logout", "ExchangeApiToken"}
    assert (found["GetTask"].scope, found["CreateTask"].scope) == ("tasks:read", "tasks:write")
    (*_, sessions) = (m for m in methods_of(auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"]) if m.name == "ListSessions")
    assert sessions.scope == ""


def test_a_method_without_access_is_refused() -> None:
    with pytest.raises(MissingAccess, match=r"planted\.Open\.Call"):
        list(methods_of(service_with()))


@pytest.mark.parametrize(
    ("access", "scope"),
    [
        (access_pb2.ACCESS_AUTHENTICATED, "tasks:delete"),
        (access_pb2.ACCESS_AUTHENTICATED, "tasks:read tasks:write"),
        (access_pb2.ACCESS_PUBLIC, "tasks:read"),
        (access_pb2.ACCESS_INTERNAL, "tasks:read"),
    ],
)
def test_a_scope_that_is_none_or_that_its_access_does_not_need_is_refused(access: int, scope: str) -> None:
    with pytest.raises(WrongScope, match=r"planted\.Open\.Call"):
        list(methods_of(service_with(access, scope)))
    (method,) = methods_of(service_with(access_pb2.ACCESS_AUTHENTICATED, "tasks:read"))
    assert method.scope == "tasks:read"


def test_only_paths_that_name_fields_bind() -> None:
    bound = {name: method.path.fields for name, method in methods().items() if method.path}
    by_id = dict.fromkeys(("GetTask", "DeleteTask", "UndeleteTask", "MoveTask", "ListTaskChanges"), ("id",))
    assert bound == by_id | dict.fromkeys(("UpdateTask", "ReplaceTask"), ("task.id",))


def contradicting(name: str, path: str, request: object) -> list[str]:
    binding = methods()[name].path
    assert binding is not None
    return [violation.field for violation in binding.violations(path, request)]


@pytest.mark.parametrize("path", [f"/api/v1/tasks/{A}", f"/api/v1/tasks/{A}?x=1", f"/api/v1/tasks/{A.replace('-', '%2D')}", f"/api/v1/tasks/{A}?"])
def test_what_the_path_says_is_accepted(path: str) -> None:
    assert contradicting("GetTask", path, task_service_pb2.GetTaskRequest(id=A)) == []
    assert contradicting("UpdateTask", path, task_service_pb2.UpdateTaskRequest(task=task_pb2.Task(id=A))) == []


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/tasks/{A}",
        f"/api/v1/tasks/{A}?id={B}",
        f"/api/v1/tasks/{A}/",
        f"/api/v1/tasks/{A}/?id={B}",
        f"/api/v1/%74asks/{A}?id={B}",
        "/elsewhere",
    ],
)
def test_what_the_path_does_not_say_is_refused(path: str) -> None:
    """A path that does not match the rule's form does not prove which resource it names, so it is rejected."""
    assert contradicting("GetTask", path, task_service_pb2.GetTaskRequest(id=B)) == ["id"]
    assert contradicting("UpdateTask", path, task_service_pb2.UpdateTaskRequest(task=task_pb2.Task(id=B))) == ["task.id"]


def test_a_method_that_takes_a_stream_is_refused() -> None:
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="planted.proto", package="planted", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="Open").method.add(name="Upload", input_type=".planted.Nothing", output_type=".planted.Nothing", client_streaming=True)
    pool.Add(file)
    with pytest.raises(ClientStreams, match=r"planted\.Open\.Upload"):
        list(methods_of(pool.FindServiceByName("planted.Open")))
