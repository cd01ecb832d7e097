"""Which fields an update sets (AIP-134)."""

from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from servicekit.errors import InvalidField


def fields_to_set(update_mask: FieldMask, resource: Message, writable: Sequence[str]) -> Sequence[str]:
    """Those that the mask names, `*` being all that are writable; without a mask those present. Raises InvalidField for any that is not writable."""
    # A value of its own: what the message has is not for other layers.
    paths = tuple(update_mask.paths)
    if not paths:
        return [field.name for field, _ in resource.ListFields() if field.name in writable]
    if paths == ("*",):
        return writable
    for path in paths:
        if path not in writable:
            raise InvalidField.of("update_mask", f"must name only {', '.join(writable)}, or be *")
    return paths
