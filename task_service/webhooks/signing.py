"""The secrets of webhooks: made, sealed for storage, and used to sign. Source: Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from servicekit.access.seal import KEY_ID_BYTES, Seal

SECRET_BYTES: Final = 32
PREFIX: Final = "whsec_"


class WebhookSeal:
    """Seals secrets of webhooks. A sealed secret begins with the id of its key, so that a statement finds those of other keys."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    @property
    def key_id(self) -> bytes:
        """The id of the key that seals."""
        return self._seal.key_id

    def new(self, webhook_id: UUID) -> bytes:
        """Returns a new secret, sealed."""
        return self._sealed(os.urandom(SECRET_BYTES), webhook_id)

    def open(self, sealed: bytes, webhook_id: UUID) -> bytes:
        """Returns the secret. Raises servicekit.access.seal.NotOpened if it was sealed for another webhook or under another key."""
        return self._seal.open(sealed[KEY_ID_BYTES:], _context(webhook_id))

    def renewed(self, sealed: bytes, webhook_id: UUID) -> bytes:
        """Returns the same secret, sealed under the first key. Raises NotOpened."""
        return self._sealed(self.open(sealed, webhook_id), webhook_id)

    def _sealed(self, secret: bytes, webhook_id: UUID) -> bytes:
        return self._seal.key_id + self._seal.seal(secret, _context(webhook_id))


def _context(webhook_id: UUID) -> bytes:
    return b"webhook " + webhook_id.bytes


def shown(secret: bytes) -> str:
    """Returns the secret as its owner gets it."""
    return PREFIX + base64.b64encode(secret).decode()


def signature(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Returns the value of `webhook-signature`: one signature for each secret."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets)
