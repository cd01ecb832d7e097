"""Reads the id and the etag that a message of a resource has itself, as the resource of an update does.

The bounds of the protos cannot demand them there, because a creation ignores both.
"""

import re
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidField

MAX_ETAG_CHARACTERS: Final = 64
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def resource_id(field: str, text: str) -> UUID:
    """Returns the id in a text. Raises InvalidField for `field`."""
    # Only the form that buf.validate accepts. UUID() also accepts braces, `urn:uuid:` and an id without hyphens.
    if not _UUID.fullmatch(text):
        raise InvalidField.of(field, "must be a valid UUID")
    return UUID(text)


def resource_etag(field: str, text: str) -> str:
    """Returns the etag. Raises InvalidField for `field` if it is too long."""
    if len(text) > MAX_ETAG_CHARACTERS:
        raise InvalidField.of(field, f"must be at most {MAX_ETAG_CHARACTERS} characters")
    return text
