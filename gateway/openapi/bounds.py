"""The bounds of `buf.validate` as JSON Schema. A bound that JSON Schema cannot state, such as a CEL expression, is only in the field's comment."""

from typing import Any, Final

from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2
from taskmanager.rpc.v1 import text_pb2

Schema = dict[str, Any]

# Regular expressions that JavaScript, Python and RE2 understand alike.
_NO_NUL: Final = r"^[^\x00]*$"
_NOT_BLANK: Final = r"\S"
_NEITHER: Final = r"^[^\x00]*[^\s\x00][^\x00]*$"
_INTEGERS: Final = ("int32", "int64", "uint32", "uint64")


def bounds_of(options: descriptor_pb2.FieldOptions) -> Schema:
    """Returns the keywords for the rules of a field."""
    extension: Any = validate_pb2.field  # the stubs do not know that it is an extension of FieldOptions
    return _of(options.Extensions[extension])


def _of(rules: validate_pb2.FieldRules) -> Schema:
    kind = rules.WhichOneof("type")
    if kind == "string":
        return _string(rules.string)
    if kind == "repeated":
        return _list(rules.repeated)
    return _number(getattr(rules, kind)) if kind in _INTEGERS else {}


def _string(rules: validate_pb2.StringRules) -> Schema:
    schema: Schema = {}
    if rules.HasField("min_len"):
        schema["minLength"] = rules.min_len
    if rules.HasField("max_len"):
        schema["maxLength"] = rules.max_len
    elif rules.HasField("max_bytes"):
        schema["maxLength"] = rules.max_bytes  # a character has at least one byte
    for format_ in ("email", "uuid"):
        if getattr(rules, format_):
            schema["format"] = format_
    no_nul, not_blank = rules.Extensions[text_pb2.no_nul], rules.Extensions[text_pb2.not_blank]
    if no_nul or not_blank:
        schema["pattern"] = _NEITHER if no_nul and not_blank else _NO_NUL if no_nul else _NOT_BLANK
    return schema


def _list(rules: validate_pb2.RepeatedRules) -> Schema:
    schema: Schema = {}
    if rules.HasField("min_items"):
        schema["minItems"] = rules.min_items
    if rules.HasField("max_items"):
        schema["maxItems"] = rules.max_items
    if rules.unique:
        schema["uniqueItems"] = True
    items = _of(rules.items)
    return schema | {"items": items} if items else schema


def _number(rules: Any) -> Schema:
    keywords = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
    return {keyword: getattr(rules, rule) for rule, keyword in keywords.items() if rules.HasField(rule)}
