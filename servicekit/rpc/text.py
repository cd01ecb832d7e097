"""Parses requests, and keeps text in Unicode NFC: of a request's message, the fields with the option `taskmanager.rpc.v1.text`.

It runs before the validation, so a field's limits count the characters that are stored, and labels that look alike are equal.
"""

import unicodedata
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from taskmanager.rpc.v1 import text_pb2

FORM: Final = "NFC"


class _Texts(NamedTuple):
    """The names of a message's fields: texts, lists of texts, and messages with such fields."""

    single: list[str]
    repeated: list[str]
    messages: "list[tuple[FieldDescriptor, _Texts]]"


def parser(message: type[Message]) -> Callable[[bytes], Any]:
    """Returns the function that makes such a message of bytes, with its text in NFC. It returns None for bytes that are not such a message."""
    from_bytes, normalize = message.FromString, normalization(message)

    def parse(data: bytes) -> Any:
        try:
            request = from_bytes(data)
        except DecodeError:
            return None
        # ASCII is in NFC. To look at all bytes at once is cheaper than to look at each field.
        if normalize is not None and not data.isascii():
            normalize(request)
        return request

    return parse


def normalization(message: type[Message]) -> Callable[[Any], None] | None:
    """Returns the function that normalizes the text of such a message in place, or None if it has no text."""
    texts = _texts(message.DESCRIPTOR)
    if texts is None:
        return None
    return lambda request: _normalize(request, texts)


def _texts(descriptor: Any) -> _Texts | None:
    """Returns the texts of a message, or None. Requests contain no message that contains itself."""
    texts = _Texts([], [], [])
    for field in descriptor.fields:
        options: Any = field.GetOptions()
        if field.message_type is not None:
            inner = _texts(field.message_type)
            if inner is not None:
                texts.messages.append((field, inner))
        elif options.Extensions[text_pb2.text]:
            (texts.repeated if field.is_repeated else texts.single).append(field.name)
    return texts if any(texts) else None


def _normalize(message: Any, texts: _Texts) -> None:
    for name in texts.single:
        value = getattr(message, name)
        if not unicodedata.is_normalized(FORM, value):
            setattr(message, name, unicodedata.normalize(FORM, value))
    for name in texts.repeated:
        values = getattr(message, name)
        values[:] = [unicodedata.normalize(FORM, value) for value in values]
    for field, inner in texts.messages:
        value = getattr(message, field.name)
        if field.is_repeated:
            for each in value:
                _normalize(each, inner)
        elif message.HasField(field.name):
            _normalize(value, inner)
