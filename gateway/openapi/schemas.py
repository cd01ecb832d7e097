"""The messages of the API as JSON Schemas. A resource has one for answers, one for requests that create or replace it, and one for changes."""

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from google.protobuf import descriptor_pb2

from gateway.openapi.bounds import Schema, bounds_of
from gateway.openapi.descriptors import Descriptors, Field, Message

_FieldProto = descriptor_pb2.FieldDescriptorProto

# The JSON of scalars (https://protobuf.dev/programming-guides/json/). 64-bit integers are texts, because JavaScript's numbers have 53 bits.
_INT32: Final[Schema] = {"type": "integer", "format": "int32"}
_INT64: Final[Schema] = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_SCALARS: Final[Mapping[int, Schema]] = {
    _FieldProto.TYPE_STRING: {"type": "string"},
    _FieldProto.TYPE_BOOL: {"type": "boolean"},
    _FieldProto.TYPE_INT32: _INT32,
    _FieldProto.TYPE_UINT32: _INT32,
    _FieldProto.TYPE_INT64: _INT64,
    _FieldProto.TYPE_UINT64: _INT64,
    _FieldProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _FieldProto.TYPE_FLOAT: {"type": "number", "format": "float"},
    _FieldProto.TYPE_BYTES: {"type": "string", "format": "byte"},
}
_FIELD_MASK: Final = "google.protobuf.FieldMask"
# The JSON of well-known messages.
_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    _FIELD_MASK: {"type": "string"},
}


class Use(enum.Enum):
    """What a client does with a message. The value is the suffix of its schema's name."""

    ANSWER = ""
    INPUT = "Input"
    PATCH = "Patch"


class Schemas:
    """The schemas that the document refers to, collected while operations ask for them.

    addressed: the fields by which the path of a REST call names the object to change, as paths from the request, by the request's full name. In a
    batch these fields are in the body, because a request in it has no path.
    """

    def __init__(self, descriptors: Descriptors, addressed: Mapping[str, tuple[str, ...]]) -> None:
        self._descriptors = descriptors
        self._addressed = addressed
        self._found: dict[str, Schema] = {}

    @property
    def found(self) -> dict[str, Schema]:
        """The components, by name."""
        return dict(sorted(self._found.items()))

    def reference(self, name: str, use: Use) -> Schema:
        """Returns the reference to the schema of a message."""
        message = self._descriptors.messages[name]
        component = _short(message.name, message.package) + (use.value if _is_sent_both_ways(message) else "")
        return self._component(component, lambda: self._object(message, use, message.comment))

    def body(self, message: Message, without: Iterable[str]) -> Schema:
        """Returns the reference to the schema of a request body: the message without the fields that the path has."""
        left_out = set(without)
        if not left_out:
            return self.reference(message.name, Use.INPUT)
        component = _short(message.name, message.package).removesuffix("Request") + "Body"
        rest = tuple(field for field in message.fields if field.name not in left_out)
        body = Message(message.name, message.package, message.comment, rest, is_map_entry=False)
        return self._component(component, lambda: self._object(body, Use.INPUT, message.comment))

    def object_of(self, request: Message, field: Field) -> Schema:
        """Returns the reference to the schema of the object in a request. A request with a field mask changes the object, so no field is required."""
        changes = any(other.type_name == _FIELD_MASK for other in request.fields)
        return self.reference(field.type_name, Use.PATCH if changes else Use.INPUT)

    def detail(self, name: str) -> Schema:
        """Returns the reference to the schema of a message that errors contain as a google.protobuf.Any: its type is in `@type`."""
        message = self._descriptors.messages[name]
        schema = self._object(message, Use.ANSWER, message.comment.partition("\n\n")[0])
        type_ = {"type": "string", "const": f"type.googleapis.com/{name}", "description": "The type of the detail."}
        schema |= {"properties": {"@type": type_, **schema["properties"]}, "required": ["@type", *schema.get("required", [])]}
        return self._component(_short(name, message.package), lambda: schema)

    def parameter(self, field: Field) -> Schema:
        """Returns the schema of a field in the path or the query. Raises ValueError for a message without a text form."""
        if field.is_message and field.type_name not in _WELL_KNOWN:
            raise ValueError(f"{field.name} cannot be a parameter: it is a message")
        return self._described(field, Use.INPUT, described=False)

    def _object(self, message: Message, use: Use, description: str) -> Schema:
        fields = [field for field in message.fields if use is Use.ANSWER or not field.output_only]
        schema: Schema = {"type": "object", "description": description, "properties": {}}
        schema["properties"] = {field.name: self._field(message, field, use) for field in fields}
        if required := [field.name for field in fields if _is_required(field, use)]:
            schema["required"] = required
        return schema

    def _field(self, message: Message, field: Field, use: Use) -> Schema:
        if use is not Use.ANSWER and field.is_message and not field.repeated and field.type_name not in _WELL_KNOWN:
            return self._addressed_object(message, field)
        return self._described(field, use)

    def _addressed_object(self, request: Message, field: Field) -> Schema:
        reference = self.object_of(request, field)
        prefix = f"{field.name}."
        names = [path.removeprefix(prefix) for path in self._addressed.get(request.name, ()) if path.startswith(prefix)]
        if not names:
            return reference | {"description": field.comment}
        target = self._descriptors.messages[field.type_name]
        properties = {name: self._described(target.field(name), Use.ANSWER) for name in names}
        return {"description": field.comment, "allOf": [reference, {"type": "object", "properties": properties, "required": names}]}

    def _described(self, field: Field, use: Use, *, described: bool = True) -> Schema:
        schema = self._type(field, use)
        bounds = bounds_of(field.proto.options)
        if field.repeated and schema.get("type") != "object":
            schema = {"type": "array", "items": schema | bounds.pop("items", {})}
        return schema | bounds | ({"description": field.comment} if described and field.comment else {})

    def _type(self, field: Field, use: Use) -> Schema:
        if field.type_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[field.type_name])
        if field.is_message:
            message = self._descriptors.messages[field.type_name]
            if message.is_map_entry:
                return {"type": "object", "additionalProperties": self._described(message.field("value"), use)}
            return self.reference(field.type_name, use)
        if field.proto.type == _FieldProto.TYPE_ENUM:
            return self._enum(field.type_name)
        return dict(_SCALARS[field.proto.type])

    def _enum(self, name: str) -> Schema:
        enum_ = self._descriptors.enums[name]
        texts = "\n".join(f"- `{value}`: {comment}" for value, comment in enum_.values.items())
        schema = {"type": "string", "enum": list(enum_.values), "description": f"{enum_.comment}\n\n{texts}"}
        return self._component(_short(name, enum_.package), lambda: schema)

    def _component(self, name: str, make: Callable[[], Schema]) -> Schema:
        if name not in self._found:
            self._found[name] = {}  # set before the call, so that a message that contains itself ends
            self._found[name] = make()
        return {"$ref": f"#/components/schemas/{name}"}


def _short(name: str, package: str) -> str:
    """Returns the name without its package: `TaskStatus` for `taskmanager.task.v1.Task.Status`."""
    return name.removeprefix(f"{package}.").replace(".", "")


def _is_sent_both_ways(message: Message) -> bool:
    """Whether the message is a resource: some of its fields are the server's, and others the client's."""
    return len({field.output_only for field in message.fields}) == 2


def _is_required(field: Field, use: Use) -> bool:
    if use is Use.PATCH:
        return False
    if use is Use.INPUT:
        return field.required
    if not field.has_presence:
        return True
    if field.output_only:
        return "Absent" not in field.comment
    return not field.is_message
