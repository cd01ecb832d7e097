"""Every RPC, field and comment of `proto/`, read from the descriptor set that the build generates."""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from taskmanager.rpc.v1 import access_pb2

DESCRIPTORS = Path(__file__).resolve().parents[2] / "gen" / "descriptors.binpb"
OURS = "taskmanager."

# The field numbers of descriptor.proto that source code info uses in its paths.
MESSAGES, ENUMS, SERVICES = 4, 5, 6
FIELDS, NESTED_MESSAGES, NESTED_ENUMS, VALUES, METHODS = 2, 3, 4, 2, 2

Address = tuple[int, ...]
Comments = Mapping[Address, str]


@dataclass(frozen=True, slots=True)
class Element:
    """A declaration in a proto file, and the comment directly before it."""

    kind: str
    name: str
    comment: str


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method. `verb` and `template` come from its google.api.http rule, empty without one. `body` is the name of the body's field, or `*`.

    `writes`: the method has side effects. `streams`: it answers with a stream of messages. `scope`: the scope that an API token needs; empty if the
    method takes no API token.
    """

    name: str
    access: int
    verb: str
    template: str
    body: str
    comment: str
    writes: bool
    streams: bool
    scope: str

    @property
    def path(self) -> str:
        """The path of the gRPC call."""
        service, _, method = self.name.rpartition(".")
        return f"/{service}/{method}"

    @property
    def snake_name(self) -> str:
        """Its own name in snake_case."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.name.rpartition(".")[2]).lower()

    @property
    def program(self) -> str:
        """The service that serves it: auth or task."""
        return self.name.split(".")[1]

    @property
    def is_authenticated(self) -> bool:
        """Whether it needs an access token."""
        return self.access == access_pb2.ACCESS_AUTHENTICATED

    @property
    def is_internal(self) -> bool:
        """Whether only the system's own services may call it."""
        return self.access == access_pb2.ACCESS_INTERNAL

    @property
    def is_idempotent(self) -> bool:
        """Whether the proto says that the method has the same effect if it is called twice."""
        level: int = _method(self.name).GetOptions().idempotency_level
        return level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN

    @property
    def request(self) -> type[Message]:
        """The class of its request."""
        return message_factory.GetMessageClass(_method(self.name).input_type)

    @property
    def response(self) -> type[Message]:
        """The class of its answer."""
        return message_factory.GetMessageClass(_method(self.name).output_type)


@cache
def files() -> Sequence[descriptor_pb2.FileDescriptorProto]:
    """Returns the project's proto files with their comments, and imports their generated modules."""
    found = [file for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file if file.package.startswith(OURS)]
    for file in found:
        importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    # Parse again: options are decoded with the extensions that are registered at parse time.
    again = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    return [file for file in again if file.package.startswith(OURS)]


@cache
def rpcs() -> Sequence[Rpc]:
    """Returns all methods of all services."""
    return [rpc for file in files() for rpc in rpcs_of(file)]


def named(name: str) -> Rpc:
    """Returns the method whose full name ends with `name`."""
    (found,) = (rpc for rpc in rpcs() if f".{rpc.name}".endswith(f".{name}"))
    return found


def rpcs_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Rpc]:
    """Yields the methods of a file's services."""
    comments = _comments(file)
    for i, service in enumerate(file.service):
        for j, method in enumerate(service.method):
            rule: Any = method.options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern") or ""
            yield Rpc(
                name=f"{file.package}.{service.name}.{method.name}",
                access=method.options.Extensions[access_pb2.access],
                verb=verb.upper(),
                template=getattr(rule, verb) if verb else "",
                body=rule.body,
                comment=comments.get((SERVICES, i, METHODS, j), ""),
                writes=method.options.idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
                streams=method.server_streaming,
                scope=method.options.Extensions[access_pb2.scope],
            )


def elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Element]:
    """Yields all declarations of a file."""
    comments = _comments(file)
    for i, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield _element(comments, "service", name, (SERVICES, i))
        for j, method in enumerate(service.method):
            yield _element(comments, "method", f"{name}.{method.name}", (SERVICES, i, METHODS, j))
    for i, message in enumerate(file.message_type):
        yield from _of_message(comments, message, file.package, (MESSAGES, i))
    for i, enum in enumerate(file.enum_type):
        yield from _of_enum(comments, enum, file.package, (ENUMS, i))


def is_output_only(field: FieldDescriptor) -> bool:
    """Whether the server sets the field and ignores it in requests."""
    behavior: Any = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]  # type: ignore[index]  # the stubs do not know custom options
    return field_behavior_pb2.OUTPUT_ONLY in behavior


def is_immutable(field: FieldDescriptor) -> bool:
    """Whether a client can set the field only at the creation."""
    behavior: Any = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]  # type: ignore[index]  # the stubs do not know custom options
    return field_behavior_pb2.IMMUTABLE in behavior


def _method(name: str) -> Any:
    files()
    return descriptor_pool.Default().FindMethodByName(name)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Comments:
    return {tuple(location.path): location.leading_comments for location in file.source_code_info.location}


def _element(comments: Comments, kind: str, name: str, path: Address) -> Element:
    return Element(kind, name, comments.get(path, "").strip())


def _of_message(comments: Comments, message: descriptor_pb2.DescriptorProto, scope: str, path: Address) -> Iterator[Element]:
    name = f"{scope}.{message.name}"
    yield _element(comments, "message", name, path)
    for i, field in enumerate(message.field):
        yield _element(comments, "field", f"{name}.{field.name}", (*path, FIELDS, i))
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _of_message(comments, nested, name, (*path, NESTED_MESSAGES, i))
    for i, enum in enumerate(message.enum_type):
        yield from _of_enum(comments, enum, name, (*path, NESTED_ENUMS, i))


def _of_enum(comments: Comments, enum: descriptor_pb2.EnumDescriptorProto, scope: str, path: Address) -> Iterator[Element]:
    name = f"{scope}.{enum.name}"
    yield _element(comments, "enum", name, path)
    for i, value in enumerate(enum.value):
        yield _element(comments, "enum value", f"{name}.{value.name}", (*path, VALUES, i))
