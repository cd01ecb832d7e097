"""The messages, enums and methods of a descriptor set by full name, each with the comment of its proto file."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2

# Field numbers of descriptor.proto, of which the paths in source code info consist.
_MESSAGES, _FILE_ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _MESSAGE_ENUMS = 2, 3, 4
_VALUES, _METHODS = 2, 2

_Path = tuple[int, ...]
_FieldProto = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True)
class Field:
    """A field of a message. `type_name` is the full name of its message or enum, or empty."""

    proto: _FieldProto
    comment: str

    @property
    def name(self) -> str:
        """The field's name, which is also its name in JSON."""
        return self.proto.name

    @property
    def type_name(self) -> str:
        """The full name of the field's message or enum; empty for a scalar."""
        return self.proto.type_name.removeprefix(".")

    @property
    def repeated(self) -> bool:
        """Whether the field is a list or a map."""
        return self.proto.label == _FieldProto.LABEL_REPEATED

    @property
    def is_message(self) -> bool:
        """Whether the field's value, or each of its values, is a message."""
        return self.proto.type == _FieldProto.TYPE_MESSAGE

    @property
    def has_presence(self) -> bool:
        """Whether the field can be absent. The gateway prints every field that cannot."""
        return not self.repeated and (self.is_message or self.proto.proto3_optional)

    @property
    def output_only(self) -> bool:
        """Whether only the server sets the field."""
        return field_behavior_pb2.OUTPUT_ONLY in self._behaviour

    @property
    def required(self) -> bool:
        """Whether a request must have the field."""
        return field_behavior_pb2.REQUIRED in self._behaviour

    @cached_property
    def _behaviour(self) -> tuple[int, ...]:
        return tuple(self.proto.options.Extensions[field_behavior_pb2.field_behavior])


@dataclass(frozen=True)
class Message:
    """A message. `name` is its full name."""

    name: str
    package: str
    comment: str
    fields: tuple[Field, ...]
    is_map_entry: bool

    def field(self, name: str) -> Field:
        """Returns a field. Raises KeyError if the message does not have it."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name}")


@dataclass(frozen=True)
class Enum:
    """An enum. `values` has the comment of each value, by name and without the value 0, which by convention means that no value is given."""

    name: str
    package: str
    comment: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Method:
    """A method of a service, with the full names of its request and its answer."""

    name: str
    comment: str
    request: str
    answer: str
    proto: descriptor_pb2.MethodDescriptorProto


@dataclass(frozen=True)
class Service:
    """A service. `name` is its full name."""

    name: str
    comment: str
    methods: tuple[Method, ...]


class Descriptors:
    """The contents of a serialized FileDescriptorSet."""

    def __init__(self, content: bytes) -> None:
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, Enum] = {}
        self.services: dict[str, Service] = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
            _File(self, file).read()


class _File:
    def __init__(self, into: Descriptors, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._into = into
        self._file = file
        self._comments: dict[_Path, str] = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}

    def read(self) -> None:
        for index, message in enumerate(self._file.message_type):
            self._read_message(message, self._file.package, (_MESSAGES, index))
        for index, enum in enumerate(self._file.enum_type):
            self._read_enum(enum, self._file.package, (_FILE_ENUMS, index))
        for index, service in enumerate(self._file.service):
            path = (_SERVICES, index)
            name = f"{self._file.package}.{service.name}"
            methods = tuple(self._methods(service, path))
            self._into.services[name] = Service(name, self._comment(path), methods)

    def _read_message(self, message: descriptor_pb2.DescriptorProto, scope: str, path: _Path) -> None:
        name = f"{scope}.{message.name}"
        fields = tuple(Field(field, self._comment((*path, _FIELDS, index))) for index, field in enumerate(message.field))
        self._into.messages[name] = Message(name, self._file.package, self._comment(path), fields, message.options.map_entry)
        for index, nested in enumerate(message.nested_type):
            self._read_message(nested, name, (*path, _NESTED, index))
        for index, enum in enumerate(message.enum_type):
            self._read_enum(enum, name, (*path, _MESSAGE_ENUMS, index))

    def _read_enum(self, enum: descriptor_pb2.EnumDescriptorProto, scope: str, path: _Path) -> None:
        name = f"{scope}.{enum.name}"
        values = {value.name: self._comment((*path, _VALUES, index)) for index, value in enumerate(enum.value) if value.number}
        self._into.enums[name] = Enum(name, self._file.package, self._comment(path), values)

    def _methods(self, service: descriptor_pb2.ServiceDescriptorProto, path: _Path) -> Iterator[Method]:
        for index, method in enumerate(service.method):
            comment = self._comment((*path, _METHODS, index))
            yield Method(method.name, comment, method.input_type.removeprefix("."), method.output_type.removeprefix("."), method)

    def _comment(self, path: _Path) -> str:
        """Returns a comment as Markdown: the lines of a paragraph are joined, and lists and code keep their lines."""
        lines = [line.removeprefix(" ").rstrip() for line in self._comments.get(path, "").splitlines()]
        return re.sub(r"(?<=\S)\n {2}(?=\S)", " ", re.sub(r"(?<=\S)\n(?=[^\s-])", " ", "\n".join(lines))).strip()
