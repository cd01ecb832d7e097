"""The Ed25519 keys that sign access tokens (RFC 7517, RFC 8037): which key signs, which keys are published, and when a key is deleted.

A new key is first `next`: it is published, but it does not sign until every verifier must have fetched it. Then it is `active`. When the next key
becomes active, the key is `retired`: it stays published until the last token that it signed has expired. All times are PostgreSQL's, so the
replicas' clocks do not matter.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as stored in the database. `sealed_key` is the private key, encrypted by KeySeal."""

    id: str
    public_key: bytes
    sealed_key: bytes
    active_from: datetime

    @property
    def public(self) -> Ed25519PublicKey:
        """The public key."""
        return Ed25519PublicKey.from_public_bytes(self.public_key)


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """All keys, oldest first, and the database's time when they were read."""

    keys: Sequence[StoredKey]
    now: datetime

    @property
    def active(self) -> StoredKey | None:
        """The key that signs: the newest key whose `active_from` has passed, or None."""
        return next((key for key in reversed(self.keys) if key.active_from <= self.now), None)

    def state_of(self, key: StoredKey) -> str:
        """Returns `next`, `active` or `retired`."""
        if key.active_from > self.now:
            return "next"
        return "active" if key == self.active else "retired"


# Maps the stored keys to the change: a key to insert or None, and the ids of the keys to delete.
Plan = Callable[[StoredKeys], tuple[StoredKey | None, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """How long keys sign and stay published. A new key signs every `rotation_seconds`. Tokens live for at most `token_seconds`.

    A key is published `lead_seconds` before it signs, and until `token_seconds` + `lead_seconds` after the next key has started to sign.
    `lead_seconds` must be longer than the time for which the gateway and the services cache the key set.
    """

    rotation_seconds: float
    lead_seconds: float
    token_seconds: float

    def next_from(self, stored: StoredKeys) -> datetime | None:
        """Returns the time from which a key created now signs, or None if no key is due. The very first key signs at once."""
        if not stored.keys:
            return stored.now
        due = stored.keys[-1].active_from + timedelta(seconds=self.rotation_seconds)
        soonest = self.soonest(stored)
        return soonest if due <= soonest else None

    def soonest(self, stored: StoredKeys) -> datetime:
        """Returns the earliest time at which a key created now can sign: by then every verifier must have fetched it."""
        return stored.now + timedelta(seconds=self.lead_seconds if stored.keys else 0)

    def expired(self, stored: StoredKeys) -> list[str]:
        """Returns the ids of the keys whose tokens have all expired: the next key has been signing for `token_seconds` + `lead_seconds`.

        The lead is included because a replica that cannot read the keys signs with the old key for up to `lead_seconds`.
        """
        since = stored.now - timedelta(seconds=self.token_seconds + self.lead_seconds)
        return [key.id for key, following in zip(stored.keys, stored.keys[1:], strict=False) if following.active_from <= since]


def key_id(key: Ed25519PublicKey) -> str:
    """Returns the key's thumbprint (RFC 7638). The same key has the same id on every replica."""
    return _base64url(hashlib.sha256(orjson.dumps(thumbprint_members(key), option=orjson.OPT_SORT_KEYS)).digest())


def thumbprint_members(key: Ed25519PublicKey) -> Mapping[str, str]:
    """Returns the members of the JWK that the thumbprint covers (RFC 8037 §2)."""
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
