"""What the descriptors define for a method: who may call it, its request message, and the fields that its REST path names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from taskmanager.rpc.v1 import access_pb2

from servicekit.errors import Violation
from servicekit.scopes import SCOPES

_VARIABLE = re.compile(r"\{([a-z_.]+)\}")


class MissingAccess(Exception):
    """A method does not declare who may call it. The server must not start."""


class WrongScope(Exception):
    """A method declares a scope that does not exist, or that its access does not need. The server must not start."""


class ClientStreams(Exception):
    """A method takes a stream of requests, which this server does not support. The server must not start."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC, as `proto/` defines it."""

    service: str
    name: str
    access: access_pb2.Access
    request_type: type[Message]
    path: "PathBinding | None"
    # The method answers with a stream of messages.
    streams: bool = False
    # The method changes nothing.
    only_reads: bool = False
    # The answer is a list of messages, so it may be large: it has a repeated message, and is no resource itself.
    answers_many: bool = False
    # The scope that an API token needs. Empty: the method takes no API token.
    scope: str = ""

    @property
    def snake_name(self) -> str:
        """`GetTask` → `get_task`: the name of the handler's method."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()


@dataclass(frozen=True, slots=True)
class PathBinding:
    """A REST path that names fields of the request. The transcoder lets body and query override them, so `violations` compares them with the path."""

    pattern: re.Pattern[str]
    fields: tuple[str, ...]

    def violations(self, original_path: str, request: Any) -> list[Violation]:
        """Returns the fields of the request that differ from the path; all of them if the path has another form, such as `/tasks/1/`."""
        match = self.pattern.fullmatch(original_path.partition("?")[0])
        segments = match.groups() if match else (None,) * len(self.fields)
        return [
            Violation(name, "must be the one in the path")
            for name, segment in zip(self.fields, segments, strict=True)
            if segment is None or _field(request, name) != unquote(segment)
        ]


def methods_of(service: ServiceDescriptor) -> Iterator[Method]:
    """Yields the methods of a service.

    Raises MissingAccess if one has no `access` option, WrongScope if one has a wrong `scope` option, ClientStreams if one takes a stream.
    """
    for descriptor in service.methods:
        if descriptor.client_streaming:
            raise ClientStreams(f"{descriptor.full_name} takes a stream of requests: let it take one")
        access: Any = descriptor.GetOptions().Extensions[access_pb2.access]  # type: ignore[index]  # the stubs do not know custom options
        if access == access_pb2.ACCESS_UNSPECIFIED:
            raise MissingAccess(f"{descriptor.full_name} does not say who may call it: set (taskmanager.rpc.v1.access)")
        scope: str = descriptor.GetOptions().Extensions[access_pb2.scope]  # type: ignore[index]  # as above
        if scope and (scope not in SCOPES or access != access_pb2.ACCESS_AUTHENTICATED):
            raise WrongScope(f"{descriptor.full_name} has the scope {scope}: only authenticated methods have one, of {', '.join(SCOPES)}")
        yield Method(
            service=service.full_name,
            name=descriptor.name,
            access=access,
            request_type=message_factory.GetMessageClass(descriptor.input_type),
            path=_path_binding(descriptor),
            streams=descriptor.server_streaming,
            only_reads=descriptor.GetOptions().idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
            answers_many=descriptor.output_type.name == f"{descriptor.name}Response"
            and any(field.is_repeated and field.message_type is not None for field in descriptor.output_type.fields),
            scope=scope,
        )


def is_internal(service: ServiceDescriptor) -> bool:
    """Whether only the system's own services may call the methods of a service."""
    return all(method.access == access_pb2.ACCESS_INTERNAL for method in methods_of(service))


def http_path(rule: http_pb2.HttpRule) -> str:
    """Returns the path of a rule with any verb; empty if it has none."""
    verb = rule.WhichOneof("pattern")
    path: str = getattr(rule, verb) if verb else ""
    return path


def _path_binding(descriptor: MethodDescriptor) -> PathBinding | None:
    path = http_path(descriptor.GetOptions().Extensions[annotations_pb2.http])
    fields = tuple(_VARIABLE.findall(path))
    if not fields:
        return None
    literals = _VARIABLE.split(path)[::2]
    return PathBinding(re.compile("([^/]+?)".join(re.escape(literal) for literal in literals)), fields)


def _field(message: Any, dotted: str) -> str:
    for name in dotted.split("."):
        message = getattr(message, name)
    return str(message)
