"""What makes a write safe to retry: the idempotency key that the client chose and the etags that it requires, read from the call's metadata.

Sources: the Idempotency-Key header field (draft-ietf-httpapi-idempotency-key-header), If-Match (RFC 9110 §13.1.1).
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from servicekit.errors import InvalidField
from servicekit.rpc.call import Call

IDEMPOTENCY_KEY: Final = "idempotency-key"
IDEMPOTENCY_REPLAYED: Final = "idempotency-replayed"
IF_MATCH: Final = "if-match"

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
# An entity-tag (RFC 9110 §8.8.3), and a list of them.
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS: Final = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")


# The etags of which a resource must have one now; None where any will do.
Etags = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A write's name, chosen by its client, and the hash of all that the client asked for under it."""

    key: str
    request_hash: bytes


def idempotency(request: Any, call: Call) -> Idempotency | None:
    """The key that the call came with and its request's hash, or None without a key. Raises InvalidField."""
    key = call.metadata.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidField.of(IDEMPOTENCY_KEY, "must have 1 to 255 printable ASCII characters")
    # The type of the message is the method's own.
    said = (request.DESCRIPTOR.full_name, call.metadata.get(IF_MATCH, ""), "")
    return Idempotency(key, hashlib.sha256("\0".join(said).encode() + request.SerializeToString(deterministic=True)).digest())


def required_etags(etag: str, call: Call) -> Etags:
    """What the etag in a message, empty for none, and If-Match ask for. A weak tag matches nothing. Raises InvalidField."""
    header = call.metadata.get(IF_MATCH)
    if header is None or header.strip() == "*":
        return (etag,) if etag else None
    if not _TAGS.fullmatch(header.strip()):
        raise InvalidField.of(IF_MATCH, 'must be * or a list of entity tags such as "3", in double quotes')
    tags = tuple(re.findall(_TAG, header))
    if etag and etag not in tags:
        raise InvalidField.of(IF_MATCH, "must have the etag that is in the message")
    return (etag,) if etag else tags


def refuse_if_match(call: Call) -> None:
    """For calls that it says nothing about: it must not be taken for a promise. Raises InvalidField."""
    if IF_MATCH in call.metadata:
        raise InvalidField.of(IF_MATCH, "has no meaning here: each request of a batch has an etag of its own, and what is new has none")
