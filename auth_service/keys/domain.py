"""The Ed25519 keys that access tokens are signed with (RFC 7517, RFC 8037): which of them signs, which are published, and how they are kept.

A key is made ahead of its time, as `next`: it is published but does not sign until every verifier must have fetched it. Then it is `active`, and
with the next one's time `retired`: published until the last token that it signed has expired. Times are PostgreSQL's, so that the replicas' clocks
do not matter.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the database has it. `sealed_key` is the private half, sealed."""

    id: str
    public_key: bytes
    sealed_key: bytes
    active_from: datetime

    @property
    def public(self) -> Ed25519PublicKey:
        """The public half."""
        return Ed25519PublicKey.from_public_bytes(self.public_key)


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """All keys, the oldest first, and the database's time at which they were read."""

    keys: Sequence[StoredKey]
    now: datetime

    @property
    def active(self) -> StoredKey | None:
        """The key that signs: the newest whose time has come."""
        return next((key for key in reversed(self.keys) if key.active_from <= self.now), None)

    def state_of(self, key: StoredKey) -> str:
        """`next`, `active` or `retired`."""
        if key.active_from > self.now:
            return "next"
        return "active" if key == self.active else "retired"


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """How long keys sign and are published: `lead_seconds` before they sign, and as long as a token of theirs can live after they have signed.

    The lead must be longer than the gateway and the services keep the set of keys.
    """

    rotation_seconds: float
    lead_seconds: float
    token_seconds: float

    def next_from(self, stored: StoredKeys) -> datetime | None:
        """From when the key that is to be made now signs; None if it is not time to make one. The first one signs at once."""
        if not stored.keys:
            return stored.now
        due = stored.keys[-1].active_from + timedelta(seconds=self.rotation_seconds)
        soonest = self.soonest(stored)
        return soonest if due <= soonest else None

    def soonest(self, stored: StoredKeys) -> datetime:
        """The earliest that a key which is made now can sign: when every verifier must have fetched it."""
        return stored.now + timedelta(seconds=self.lead_seconds if stored.keys else 0)

    def expired(self, stored: StoredKeys) -> list[str]:
        """The ids of the keys that no good token can be signed with: the next one signs for longer than a token lives.

        And for the lead besides: a replica that could not read the keys for so long may still have signed with the old one.
        """
        since = stored.now - timedelta(seconds=self.token_seconds + self.lead_seconds)
        return [key.id for key, following in zip(stored.keys, stored.keys[1:], strict=False) if following.active_from <= since]


def key_id(key: Ed25519PublicKey) -> str:
    """The key's thumbprint (RFC 7638): the same key has the same id everywhere."""
    return _base64url(hashlib.sha256(orjson.dumps(thumbprint_members(key), option=orjson.OPT_SORT_KEYS)).digest())


def thumbprint_members(key: Ed25519PublicKey) -> Mapping[str, str]:
    """The members of the JWK that the thumbprint covers (RFC 8037 §2)."""
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
