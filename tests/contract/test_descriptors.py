"""The rules for every RPC, message and error reason of `proto/`."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from taskmanager.rpc.v1 import access_pb2, error_reason_pb2

import auth_service
import servicekit
import task_service
from gateway.replies import LOCAL_REPLIES
from servicekit.errors import InvalidField, Kind, ServiceError
from servicekit.rpc.status import CODES, failure_of
from tests.contract import rules
from tests.support.descriptors import Element, Rpc, elements, files, rpcs, rpcs_of

ERROR_REASON = "taskmanager.rpc.v1.ErrorReason"
UNSPECIFIED = "ERROR_REASON_UNSPECIFIED"

# Fields that have no bound, or no bound on one side, each with the reason.
UNBOUNDED = {
    "taskmanager.task.v1.ListTasksRequest.page_size": "AIP-158: a page size above the maximum counts as the maximum",
    "taskmanager.task.v1.ListTaskChangesRequest.page_size": "the same",
    "taskmanager.task.v1.ListProjectsRequest.page_size": "the same",
    **dict.fromkeys(
        (f"taskmanager.task.v1.{message}.{name}" for message in ("ListTasksRequest", "MoveTaskRequest") for name in ("project_id", "parent_id")),
        "a rule in CEL bounds it: a UUID, or empty",
    ),
    "taskmanager.task.v1.Task.project_id": "the checks of creations bound it; the other methods ignore it",
    "taskmanager.task.v1.Task.parent_id": "the same",
    "taskmanager.task.v1.Project.color": "its pattern bounds it",
    "taskmanager.task.v1.Project.etag": "the handler of updates bounds it; creations ignore it",
    "taskmanager.task.v1.Webhook.etag": "the handler of updates bounds it; creations ignore it",
    "taskmanager.task.v1.Task.etag": "the handlers of updates bound it; creations ignore it",
    "taskmanager.auth.v1.ListEventsRequest.after": "after the last event there are no events",
}

API = Path(__file__).resolve().parents[2] / "docs" / "api.md"

every_rpc = pytest.mark.parametrize("rpc", rpcs(), ids=lambda rpc: rpc.name)
every_file = pytest.mark.parametrize("file", files(), ids=lambda file: file.name)


def test_the_descriptor_set_has_the_services_of_the_contract() -> None:
    services = {rpc.name.rpartition(".")[0] for rpc in rpcs()}
    assert services >= {"taskmanager.auth.v1.AuthService", "taskmanager.auth.v1.UserService", "taskmanager.task.v1.TaskService"}


@every_rpc
def test_a_method_says_who_may_call_it(rpc: Rpc) -> None:
    assert rules.without_access([rpc]) == []


@every_rpc
def test_a_method_has_a_rest_path_unless_it_is_internal(rpc: Rpc) -> None:
    assert rules.without_http_rule([rpc]) == []


@every_rpc
def test_every_field_of_a_request_has_bounds(rpc: Rpc) -> None:
    assert list(rules.unbounded(rpc.request.DESCRIPTOR, UNBOUNDED)) == []


@every_rpc
def test_a_method_says_which_errors_it_gives(rpc: Rpc) -> None:
    named = rules.errors_named(rpc.comment)
    assert named, "the comment must contain `Errors include:`, followed by lines like `- STATUS (REASON): when`"
    statuses = _statuses_of_reasons()
    for status, reason in named:
        assert reason in statuses, f"{reason} is not in ErrorReason"
        assert status == statuses[reason], f"{reason} belongs to {statuses[reason]}"


@every_file
def test_everything_has_a_comment(file: descriptor_pb2.FileDescriptorProto) -> None:
    assert rules.uncommented(file) == []


def test_the_readme_has_a_row_for_every_rpc_that_the_gateway_serves() -> None:
    rows = re.findall(r"^\| `(\w+\.\w+)` \| `(\w+) ", API.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted((".".join(rpc.name.split(".")[-2:]), rpc.verb) for rpc in rpcs() if not rpc.is_internal)


@pytest.mark.parametrize("reason", [name for name in sorted(error_reason_pb2.ErrorReason.keys()) if name != UNSPECIFIED])
def test_an_error_reason_has_its_status_and_an_example(reason: str) -> None:
    comment = _reason_comments()[reason]
    assert "Example: " in comment
    assert rules.status_of_reason(comment) in {code.name for code in CODES.values()}


def test_every_error_in_the_code_has_a_reason_of_the_catalogue() -> None:
    wrong = {f"{error.__module__}.{error.__name__}": error.reason for error in _errors() if error.reason not in _reason_comments()}
    assert wrong == {}


def test_every_error_in_the_code_has_the_status_of_its_reason() -> None:
    statuses = _statuses_of_reasons()
    wrong = {error.__name__: CODES[error.kind].name for error in _errors() if CODES[error.kind].name != statuses[error.reason]}
    assert wrong == {}


def test_every_reason_of_the_catalogue_is_given_by_something() -> None:
    """An error class of the services or a local reply of the gateway uses the reason."""
    by_gateway = {error_reason_pb2.ErrorReason.Name(reply.reason) for reply in LOCAL_REPLIES if reply.reason is not None}
    assert set(_reason_comments()) - {UNSPECIFIED} - by_gateway - {error.reason for error in _errors()} == set()


def test_every_kind_of_error_has_a_status_of_its_own() -> None:
    assert set(CODES) == set(Kind)
    assert len(set(CODES.values())) == len(Kind)


def test_whatever_is_raised_becomes_a_failure() -> None:
    for error in (InvalidField.of("title", "is too long"), RuntimeError("secret")):
        failure = failure_of(error)
        assert failure.reason in _reason_comments()
        assert "secret" not in failure.message


# The rules above can fail: each one finds a planted violation.


def _planted() -> descriptor_pb2.FileDescriptorProto:
    """Returns a proto file that breaks every rule."""
    file = descriptor_pb2.FileDescriptorProto(name="planted.proto", package="planted", syntax="proto3")
    message = file.message_type.add(name="Thing")
    types = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="text", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    message.field.add(name="count", number=2, type=types.TYPE_INT32, label=types.LABEL_OPTIONAL)
    message.field.add(name="data", number=3, type=types.TYPE_BYTES, label=types.LABEL_OPTIONAL)
    message.field.add(name="items", number=4, type=types.TYPE_STRING, label=types.LABEL_REPEATED)
    message.field.add(name="due", number=5, type=types.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=types.LABEL_OPTIONAL)
    message.field.add(name="mask", number=6, type=types.TYPE_MESSAGE, type_name=".google.protobuf.FieldMask", label=types.LABEL_OPTIONAL)
    message.field.add(name="kind", number=7, type=types.TYPE_ENUM, type_name=".taskmanager.rpc.v1.Access", label=types.LABEL_OPTIONAL)
    message.field.add(name="pairs", number=8, type=types.TYPE_MESSAGE, type_name=".planted.Thing.PairsEntry", label=types.LABEL_REPEATED)
    entry = message.nested_type.add(name="PairsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/field_mask.proto", "taskmanager/rpc/v1/access.proto"])
    file.service.add(name="Things").method.add(name="MakeThing", input_type=".planted.Thing", output_type=".planted.Thing")
    return file


def test_planted_fields_without_bounds_are_found() -> None:
    pool = descriptor_pool.DescriptorPool()
    for name in ("google/protobuf/timestamp.proto", "google/protobuf/field_mask.proto", "google/protobuf/descriptor.proto"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(name).serialized_pb)
    pool.AddSerializedFile(access_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(_planted())
    found = dict(line.split(": ", 1) for line in rules.unbounded(pool.FindMessageTypeByName("planted.Thing"), {}))
    assert found == {
        "planted.Thing.text": "max_len",
        "planted.Thing.count": "gte",
        "planted.Thing.data": "max_len",
        "planted.Thing.items": "max_items",
        "planted.Thing.due": "gte",
        "planted.Thing.mask": "cel",
        "planted.Thing.kind": "defined_only",
        "planted.Thing.pairs": "max_pairs",
    }


def test_a_planted_method_that_says_nothing_is_found() -> None:
    (rpc,) = rpcs_of(_planted())
    assert rules.without_access([rpc]) == ["planted.Things.MakeThing"]
    assert rules.without_http_rule([rpc]) == ["planted.Things.MakeThing"]
    assert rules.errors_named(rpc.comment) == []
    assert rules.errors_named("Errors include:\n - NOT_FOUND (NEVER_HEARD_OF): no") == [("NOT_FOUND", "NEVER_HEARD_OF")]


def test_planted_things_without_comment_are_found() -> None:
    assert {"service planted.Things", "method planted.Things.MakeThing", "message planted.Thing", "field planted.Thing.text"} <= set(
        rules.uncommented(_planted())
    )
    for file in files():
        if file.enum_type:
            bare = descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString())
            bare.source_code_info.Clear()
            kinds = {element.split(" taskmanager")[0] for element in rules.uncommented(bare)}
            assert {"enum", "enum value"} <= kinds


def test_every_exception_to_the_bounds_is_needed() -> None:
    lacking = {line.partition(":")[0] for rpc in rpcs() for line in rules.unbounded(rpc.request.DESCRIPTOR, {})}
    assert lacking == set(UNBOUNDED)


def _reason_comments() -> dict[str, str]:
    found: dict[str, str] = {}
    for element in _elements():
        scope, _, name = element.name.rpartition(".")
        if element.kind == "enum value" and scope == ERROR_REASON:
            found[name] = element.comment
    return found


def _statuses_of_reasons() -> dict[str, str]:
    return {reason: rules.status_of_reason(comment) for reason, comment in _reason_comments().items()}


def _elements() -> Iterator[Element]:
    for file in files():
        yield from elements(file)


def _errors() -> set[type[ServiceError]]:
    """Returns all error classes of the product code."""
    packages = (servicekit, auth_service, task_service)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    names = {package.__name__ for package in packages}
    return {error for error in _with_subclasses(ServiceError) if error.__module__.partition(".")[0] in names}


def _with_subclasses(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield error
    for subclass in error.__subclasses__():
        yield from _with_subclasses(subclass)
