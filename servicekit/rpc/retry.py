"""Reads what makes a write safe to retry from the call's metadata: the idempotency key that the client chose, and the etags that it requires.

Sources: the Idempotency-Key header field (draft-ietf-httpapi-idempotency-key-header), If-Match (RFC 9110 §13.1.1).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from servicekit.errors import InvalidField, Violation, collected
from servicekit.rpc.call import Call

IDEMPOTENCY_KEY: Final = "idempotency-key"
IDEMPOTENCY_REPLAYED: Final = "idempotency-replayed"
IF_MATCH: Final = "if-match"

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
# An entity-tag (RFC 9110 §8.8.3), and a list of them.
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS: Final = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")


# The current etag of a resource must be one of these. None accepts any etag.
Etags = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key of a write, chosen by its client, and the hash of everything that the client requested with it."""

    key: str
    request_hash: bytes


def idempotency(request: Any, call: Call) -> Idempotency | None:
    """Returns the call's idempotency key and the hash of its request, or None without a key. Raises InvalidField."""
    value = call.metadata.get(IDEMPOTENCY_KEY)
    if value is None:
        return None
    check_key(call)
    key = _without_blanks(value)
    # Each method has its own message type, so the type identifies the method.
    said = (request.DESCRIPTOR.full_name, call.metadata.get(IF_MATCH, ""), "")
    return Idempotency(key, hashlib.sha256("\0".join(said).encode() + request.SerializeToString(deterministic=True)).digest())


def check_key(call: Call) -> None:
    """Raises InvalidField if the call's idempotency key has another form."""
    key = call.metadata.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(_without_blanks(key)):
        raise InvalidField.of(IDEMPOTENCY_KEY, "must have 1 to 255 printable ASCII characters, and not only spaces")


def _without_blanks(value: str) -> str:
    """Returns the value without the blanks around it, which do not belong to it (RFC 9110 §5.5). HTTP/1.1 removes them, gRPC does not."""
    return value.strip(" \t")


def required_etags(etag: str, call: Call) -> Etags:
    """Returns the etags that the message's etag (empty for none) and If-Match require. A weak tag matches nothing. Raises InvalidField."""
    header = call.metadata.get(IF_MATCH)
    if header is None or header.strip() == "*":
        return (etag,) if etag else None
    if not _TAGS.fullmatch(header.strip()):
        raise InvalidField.of(IF_MATCH, 'must be * or a list of entity tags such as "3", in double quotes')
    tags = tuple(re.findall(_TAG, header))
    if etag and etag not in tags:
        raise InvalidField.of(IF_MATCH, "must have the etag that is in the message")
    return (etag,) if etag else tags


def violations_of_write(etag: str, call: Call) -> Sequence[Violation]:
    """Returns what is wrong with the metadata of a write that can require an etag."""
    return collected(partial(required_etags, etag, call), partial(check_key, call))


def violations_of_unconditional_write(call: Call) -> Sequence[Violation]:
    """Returns what is wrong with the metadata of a write that does not accept If-Match."""
    return collected(partial(refuse_if_match, call), partial(check_key, call))


def refuse_if_match(call: Call) -> None:
    """Rejects If-Match for a method that would ignore it, so that no client relies on it. Raises InvalidField."""
    if IF_MATCH in call.metadata:
        raise InvalidField.of(IF_MATCH, "has no meaning here: each request of a batch has an etag of its own, and what is new has none")
