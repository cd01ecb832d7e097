"""Checks the signatures of Standard Webhooks (https://www.standardwebhooks.com), as a receiver does."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

TOLERANCE_SECONDS: Final = 300
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
# Standard Webhooks: a secret has 24 to 64 bytes.
_SECRET_BYTES: Final = range(24, 65)


class UnreadableSecret(ValueError):
    """The text is not the secret of a webhook. The error does not contain the text."""

    def __init__(self) -> None:
        super().__init__("a secret has the form whsec_…, as `tm webhooks create` printed it")


class NotVerified(Exception):
    """The request is not one that the server has just signed with one of the secrets."""


def key_of(secret: str) -> bytes:
    """Returns the key that a secret contains. Raises UnreadableSecret."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise UnreadableSecret from None
    if len(key) not in _SECRET_BYTES:
        raise UnreadableSecret
    return key


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> str:
    """Returns the id of the message. `headers`: with names in lower case. `now`: in seconds since the epoch. Raises NotVerified.

    During a rotation the header has a signature with each of the two secrets; a receiver may have either of them, or both.
    """
    message_id, timestamp, signatures = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not message_id or not signatures:
        raise NotVerified("it has no signature")
    if not _SECONDS.fullmatch(timestamp):
        raise NotVerified("its timestamp is not a number")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise NotVerified("its timestamp is more than 5 minutes away from this machine's clock")
    signed = f"{message_id}.{timestamp}.".encode() + body
    wanted = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in keys]
    given = [value.encode() for version, _, value in (each.partition(",") for each in signatures.split(" ")) if version == _VERSION]
    if not any(hmac.compare_digest(one, other) for one in wanted for other in given):
        raise NotVerified("none of its signatures is one with the secret")
    return message_id
