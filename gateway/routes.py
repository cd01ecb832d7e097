"""The RPCs that the gateway routes, read from the descriptor set. This module must not contain the name of any RPC, path or message.

So an ordinary new RPC changes nothing here. The gateway uses only its `taskmanager.rpc.v1.access` option, its `google.api.http` rule and its
`idempotency_level`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2
from taskmanager.rpc.v1 import access_pb2

# AIP-133 names a method that creates a resource Create<Resource>. Register is the only other name. BatchCreate… (AIP-233) is a custom method that
# returns a list, and its status is 200.
CREATING_NAMES: Final = ("Create", "Register")

_TIMESTAMP: Final = ".google.protobuf.Timestamp"

# A token of an HTTP rule's path template: `{id}`, `{name=shelves/*}`, `*`, `**` or a literal.
_TOKEN: Final = re.compile(r"\{[^{}=]+(?:=(?P<pattern>[^{}]+))?\}|\*\*|\*|[^{}*]+")


class DescriptorError(ValueError):
    """The descriptor set lacks something that the gateway needs."""


@dataclass(frozen=True)
class RestPath:
    """A REST path of an RPC, from `google.api.http`: the HTTP method, the path template, and the field in the body (`*`: the whole request)."""

    method: str
    template: str
    body: str = ""

    @property
    def whole_body(self) -> bool:
        """Whether the body has every field of the request, so the query has none."""
        return self.body == "*"

    @property
    def variable(self) -> bool:
        """Whether more than one path matches the template."""
        return any(token in self.template for token in "{*")

    @property
    def regex(self) -> str:
        """An RE2 expression that matches the whole path, without the query."""
        return "".join(_token_regex(token) for token in _TOKEN.finditer(self.template))


@dataclass(frozen=True)
class Rpc:
    """A method that clients can call through the gateway.

    safe: the method has no side effects, so Envoy may retry it even if the first attempt may have reached the service.
    creates: the method creates a resource, so the status of its REST answer is 201.
    streams: at least one side sends more than one message, so the whole call has no time limit.
    times: the names, in JSON too, of the fields of the request that a client sets to a time.
    scope: the scope that an API token needs; empty if the method takes no API token.
    """

    service: str
    name: str
    cluster: str
    public: bool
    safe: bool
    creates: bool
    streams: bool
    rest: tuple[RestPath, ...]
    times: tuple[str, ...]
    scope: str

    @property
    def path(self) -> str:
        """The path of the gRPC call."""
        return f"/{self.service}/{self.name}"


@dataclass(frozen=True)
class Resource:
    """A REST path with the RPCs of its methods, in the order of the descriptor set.

    template: the path template of one of its RPCs. Another one may name the variables differently.
    """

    template: RestPath
    rpcs: tuple[tuple[RestPath, Rpc], ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """The HTTP methods. If GET is one, HEAD is another, except for a stream, which has no length and does not end."""
        given = [rest.method for rest, _ in self.rpcs]
        return tuple(sorted({*given, *(["HEAD"] if self.has_head else [])}))

    @property
    def has_head(self) -> bool:
        """Whether HEAD is answered like GET, without the body."""
        return any(rest.method == "GET" and not rpc.streams for rest, rpc in self.rpcs)

    @property
    def public(self) -> bool:
        """Whether none of the methods needs an access token."""
        return all(rpc.public for _, rpc in self.rpcs)


@dataclass(frozen=True)
class RouteTable:
    """Every routed RPC, in the order of the descriptor set. It contains no method with ACCESS_INTERNAL."""

    rpcs: tuple[Rpc, ...]

    @property
    def public(self) -> tuple[Rpc, ...]:
        """The methods that need no access token."""
        return tuple(rpc for rpc in self.rpcs if rpc.public)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """The REST paths. A path with a literal behind its last variable (`/tasks/{id}:undelete`) is before `/tasks/{id}`, which matches it too."""
        grouped: dict[str, list[tuple[RestPath, Rpc]]] = {}
        for rpc in self.rpcs:
            for rest in rpc.rest:
                grouped.setdefault(rest.regex, []).append((rest, rpc))
        found = [Resource(pairs[0][0], tuple(pairs)) for pairs in grouped.values()]
        return tuple(sorted(found, key=lambda resource: resource.template.template.endswith("}")))

    @property
    def transcoded_services(self) -> tuple[str, ...]:
        """The services with at least one REST path, without duplicates."""
        return tuple(dict.fromkeys(rpc.service for rpc in self.rpcs if rpc.rest))

    @property
    def rest_prefix(self) -> str:
        """The folder of all REST paths, with a slash at its end."""
        folders = [rest.template.rpartition("/")[0] for rpc in self.rpcs for rest in rpc.rest]
        return os.path.commonpath(folders).rstrip("/") + "/"

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters of the methods, without duplicates."""
        return tuple(dict.fromkeys(rpc.cluster for rpc in self.rpcs))


def read_routes(descriptors: bytes) -> RouteTable:
    """Returns the route table of a serialized FileDescriptorSet.

    Raises DescriptorError if the bytes are not a descriptor set, or if a method lacks the access option.
    """
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    except Exception as error:  # protobuf's DecodeError is not exported under one stable name
        raise DescriptorError(f"not a descriptor set: {error}") from error
    return RouteTable(tuple(_routed(files)))


def _routed(files: descriptor_pb2.FileDescriptorSet) -> Iterator[Rpc]:
    messages = {f".{file.package}.{message.name}": message for file in files.file for message in file.message_type}
    for file in files.file:
        for service in file.service:
            for method in service.method:
                access = _option(method, access_pb2.access)
                if access == access_pb2.ACCESS_UNSPECIFIED:
                    raise DescriptorError(f"{file.package}.{service.name}.{method.name} does not say who may call it")
                if access != access_pb2.ACCESS_INTERNAL:
                    yield _rpc(file.package, service.name, method, tuple(sorted(_times(method.input_type, messages, set()))))


def _rpc(package: str, service: str, method: descriptor_pb2.MethodDescriptorProto, times: tuple[str, ...]) -> Rpc:
    rest = tuple(_rest_paths(_option(method, annotations_pb2.http)))
    return Rpc(
        service=f"{package}.{service}",
        name=method.name,
        cluster=cluster_of(package),
        public=_option(method, access_pb2.access) == access_pb2.ACCESS_PUBLIC,
        safe=method.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
        creates=method.name.startswith(CREATING_NAMES) and any(path.method == "POST" for path in rest),
        streams=method.client_streaming or method.server_streaming,
        rest=rest,
        times=times,
        scope=_option(method, access_pb2.scope),
    )


def _times(name: str, messages: Mapping[str, descriptor_pb2.DescriptorProto], seen: set[str]) -> Iterator[str]:
    """Yields the names of the fields of type Timestamp in the message and in those that it contains, except those that only the server sets."""
    if name not in messages or name in seen:
        return
    seen.add(name)
    for field in messages[name].field:
        if field_behavior_pb2.OUTPUT_ONLY in field.options.Extensions[field_behavior_pb2.field_behavior]:
            continue
        if field.type_name == _TIMESTAMP:
            yield from {field.name, field.json_name}
        else:
            yield from _times(field.type_name, messages, seen)


def cluster_of(package: str) -> str:
    """Returns the service that serves a package: `task_service` for `taskmanager.task.v1`. Raises DescriptorError for another form of name."""
    parts = package.split(".")
    if len(parts) != 3:
        raise DescriptorError(f"package {package} is not of the form taskmanager.<service>.<version>")
    return f"{parts[1]}_service"


def _option(method: descriptor_pb2.MethodDescriptorProto, extension: Any) -> Any:
    return method.options.Extensions[extension]


def _rest_paths(rule: http_pb2.HttpRule) -> Iterator[RestPath]:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        yield RestPath(rule.custom.kind, rule.custom.path, rule.body)
    elif kind:
        yield RestPath(kind.upper(), getattr(rule, kind), rule.body)
    for binding in rule.additional_bindings:
        yield from _rest_paths(binding)


def _token_regex(token: re.Match[str]) -> str:
    text = token.group("pattern") or ("*" if token.group().startswith("{") else token.group())
    return "".join({"**": ".+", "*": "[^/]+"}.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", text))
