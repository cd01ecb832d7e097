"""The contract's rules for descriptors, as functions that return the violations."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.support.descriptors import Rpc, elements, is_output_only

STRING_BOUNDS = ("max_len", "max_bytes", "len", "len_bytes", "uuid", "tuuid", "const", "in")
BYTES_BOUNDS = ("max_len", "len", "const", "in")
LOWER_BOUNDS = ("gt", "gte", "const", "in")
UPPER_BOUNDS = ("lt", "lte", "const", "in")
INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_SINT32: "sint32",
    FieldDescriptor.TYPE_SINT64: "sint64",
    FieldDescriptor.TYPE_FIXED32: "fixed32",
    FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_SFIXED32: "sfixed32",
    FieldDescriptor.TYPE_SFIXED64: "sfixed64",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
}

# An error line in a method's comment: `- NOT_FOUND (TASK_NOT_FOUND): …`, with one or more reasons.
ERROR_LINE = re.compile(r"^\s*- ([A-Z_]+) \(([A-Z_, ]+)\): ", re.MULTILINE)


def uncommented(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    """Returns the declarations without a comment directly before them."""
    return [f"{element.kind} {element.name}" for element in elements(file) if not element.comment]


def without_http_rule(rpcs: Sequence[Rpc]) -> list[str]:
    """Returns the methods for clients without a REST path, and the internal methods with one."""
    return [rpc.name for rpc in rpcs if bool(rpc.template) == rpc.is_internal]


def without_access(rpcs: Sequence[Rpc]) -> list[str]:
    """Returns the methods without the `access` option."""
    return [rpc.name for rpc in rpcs if rpc.access == 0]


def unbounded(message: Any, exceptions: Mapping[str, str], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yields the fields of a request, including nested messages, that have no bounds. `exceptions` maps field names to reasons."""
    for field in message.fields:
        if is_output_only(field):
            continue
        if field.full_name not in exceptions and (lacking := _lacking(field, _rules(field))):
            yield f"{field.full_name}: {lacking}"
        inner = _value_type(field)
        if inner is not None and not inner.full_name.startswith("google.protobuf.") and inner.full_name not in seen:
            yield from unbounded(inner, exceptions, seen | {inner.full_name})


def errors_named(comment: str) -> list[tuple[str, str]]:
    """Returns the (status, reason) pairs in a method's comment."""
    _, found, listed = comment.partition("Errors include")
    return [(code, reason.strip()) for code, reasons in ERROR_LINE.findall(listed) for reason in reasons.split(",")] if found else []


def status_of_reason(comment: str) -> str:
    """Returns the status in the comment of an ErrorReason value, or ''."""
    match = re.search(r"Status ([A-Z_]+)[.;]", comment)
    return match[1] if match else ""


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    rules: Any = field.GetOptions().Extensions[validate_pb2.field]  # type: ignore[index]  # the stubs do not know custom options
    return rules  # type: ignore[no-any-return]


def _value_type(field: FieldDescriptor) -> Descriptor | None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        field = field.message_type.fields_by_name["value"]
    return field.message_type


def _lacking(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> str:
    """Returns the name of the missing bound, or ''."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        if not rules.map.HasField("max_pairs"):
            return "max_pairs"
        return _lacking_one(entry["key"], rules.map.keys) or _lacking_one(entry["value"], rules.map.values)
    if field.is_repeated:
        return _lacking_one(field, rules.repeated.items) if rules.repeated.HasField("max_items") else "max_items"
    return _lacking_one(field, rules)


def _lacking_one(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> str:
    """Like `_lacking`, for a single value."""
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return "" if _has(rules.string, STRING_BOUNDS) else "max_len"
        case FieldDescriptor.TYPE_BYTES:
            return "" if _has(rules.bytes, BYTES_BOUNDS) else "max_len"
        case FieldDescriptor.TYPE_ENUM:
            return "" if rules.enum.defined_only or _has(rules.enum, ("const", "in")) else "defined_only"
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            return _lacking_message(field.message_type.full_name, rules)
        case number if number in INTEGERS:
            return _lacking_range(getattr(rules, INTEGERS[number]))
    return ""


def _lacking_message(name: str, rules: validate_pb2.FieldRules) -> str:
    match name.removeprefix("google.protobuf."):
        case "Timestamp":
            return _lacking_range(rules.timestamp)
        case "Duration":
            return _lacking_range(rules.duration)
        case "FieldMask":
            return "" if rules.cel or rules.HasField("field_mask") else "cel"
        case other if other != name:
            return f"{name} has no bounds at all"
    return ""


def _lacking_range(rules: Any) -> str:
    if not _has(rules, LOWER_BOUNDS):
        return "gte"
    return "" if _has(rules, UPPER_BOUNDS) else "lte"


def _has(rules: Any, names: Sequence[str]) -> bool:
    given = {field.name for field, _ in rules.ListFields()}
    return not given.isdisjoint(names)
