"""Determines the fields that an update sets (AIP-134)."""

from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from servicekit.errors import InvalidField


def fields_to_set(update_mask: FieldMask, resource: Message, writable: Sequence[str]) -> Sequence[str]:
    """Returns the fields that the mask names; `*` names all writable ones. Raises InvalidField if the mask names a field that is not writable.

    Without a mask, returns the writable fields that are present in the resource.
    """
    # A copy, because other layers must not hold a part of the message.
    paths = tuple(update_mask.paths)
    if not paths:
        return [field.name for field, _ in resource.ListFields() if field.name in writable]
    if paths == ("*",):
        return writable
    for path in paths:
        if path not in writable:
            raise InvalidField.of("update_mask", f"must name only {', '.join(writable)}, or be *")
    return paths
