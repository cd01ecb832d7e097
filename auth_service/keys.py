"""The Ed25519 keys that access tokens are signed with (RFC 7517, RFC 8037): which of them signs, which are published, and how they are kept.

A key is made ahead of its time, as `next`: it is published but does not sign until every verifier must have fetched it. Then it is `active`, and
with the next one's time `retired`: published until the last token that it signed has expired. Times are PostgreSQL's, so that the replicas' clocks
do not matter.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from auth_service.errors import KeyNotOpened, NoSigningKey
from servicekit import deadline
from servicekit.errors import DependencyUnavailable

NONCE_BYTES: Final = 12
KEY_ENCRYPTION_KEY_BYTES: Final = 32
# An unknown kid is looked for at most this often: a stranger can make up as many as he likes.
MIN_REREAD_INTERVAL_SECONDS: Final = 2.0


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


class KeySeal:
    """Seals private keys under the first of the key encryption keys, and opens what was sealed under any of them (AES-256-GCM)."""

    def __init__(self, key_encryption_keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in key_encryption_keys]

    def new_key(self, active_from: datetime) -> StoredKey:
        """A new key, sealed."""
        key = Ed25519PrivateKey.generate()
        public, kid = key.public_key(), key_id(key.public_key())
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._ciphers[0].encrypt(nonce, key.private_bytes_raw(), kid.encode())
        return StoredKey(kid, public.public_bytes_raw(), sealed, active_from)

    def open(self, key: StoredKey) -> Ed25519PrivateKey:
        """The private half. Raises KeyNotOpened."""
        nonce, sealed = key.sealed_key[:NONCE_BYTES], key.sealed_key[NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return Ed25519PrivateKey.from_private_bytes(cipher.decrypt(nonce, sealed, key.id.encode()))
            except InvalidTag:
                continue
        raise KeyNotOpened(f"signing key {key.id} was sealed under another KEY_ENCRYPTION_KEY")


class KeyRing:
    """The keys as this replica last read them. Also the KeySource (servicekit.tokens) by which this service verifies its own tokens.

    Reading goes on in the background (auth_service.rotation). What is `policy.lead_seconds` old signs nothing: there may be another active key by
    then. A key that was first read here less than half of that before its time, as when all replicas were down and nobody published it, takes over
    later, by half of it at most; the one before it signs until then, and is published for long enough.
    """

    def __init__(self, seal: KeySeal, policy: KeyPolicy, clock: Callable[[], float] = time.monotonic, *, reread: "Reread | None" = None) -> None:
        """`reread` reads the keys now: for a token that names a key which another replica may have made."""
        self._seal = seal
        self._lead_seconds = policy.lead_seconds
        self._clock = clock
        self._reread = reread
        self._reread_at = float("-inf")
        self._rereading: asyncio.Task[None] | None = None
        # Whether the last reading has succeeded, as far as is known here.
        self._is_read = False
        self._loaded_at = float("-inf")
        # When each was first read.
        self._known_at: Mapping[str, float] = {}
        # With the time on our clock from which each signs; the oldest first.
        self._signing: Sequence[tuple[float, str, Ed25519PrivateKey]] = ()
        self._public: Mapping[str, Ed25519PublicKey] = {}

    def load(self, stored: StoredKeys) -> None:
        """Takes on what was just read. Raises KeyNotOpened if a key that signs, now or next, cannot be opened; all others it takes on."""
        loaded_at = self._clock()
        self._is_read = True
        # First of all: what was withdrawn is neither good nor used any more, whatever comes next.
        self._public = {key.id: key.public for key in stored.keys}
        self._signing = [entry for entry in self._signing if entry[1] in self._public]
        self._known_at = {kid: self._known_at.get(kid, loaded_at) for kid in self._public}
        signing: list[tuple[float, str, Ed25519PrivateKey]] = []
        unopened: dict[str, KeyNotOpened] = {}
        for key in stored.keys:
            due = loaded_at + (key.active_from - stored.now).total_seconds()
            # Where there is none before it, nobody could sign meanwhile.
            since = max(due, min(due, self._known_at[key.id]) + self._lead_seconds / 2) if signing else due
            try:
                signing.append((since, key.id, self._seal.open(key)))
            except KeyNotOpened as error:
                if stored.state_of(key) != "retired":
                    unopened[key.id] = error
        if stored.active is None or stored.active.id not in unopened:
            self._signing, self._loaded_at = signing, loaded_at
        for failure in unopened.values():
            raise failure

    def current(self) -> tuple[str, Ed25519PrivateKey]:
        """The id of the key to sign with now, and the key. Raises NoSigningKey."""
        now = self._clock()
        if now - self._loaded_at < self._lead_seconds:
            for active_from, kid, key in reversed(self._signing):
                if active_from <= now:
                    return kid, key
        raise NoSigningKey

    @property
    def age_seconds(self) -> float:
        """The time since the current key began to sign; infinite while there is none."""
        now = self._clock()
        return now - max((active_from for active_from, _, _ in self._signing if active_from <= now), default=float("-inf"))

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """See KeySource.find."""
        if kid not in self._public:
            if self._rereading is None and self._reread is not None and self._clock() - self._reread_at >= MIN_REREAD_INTERVAL_SECONDS:
                self._rereading = asyncio.create_task(self._read_again(self._reread))
            # One reading for all who come meanwhile; a caller that leaves does not take it from the others.
            if self._rereading is not None:
                await asyncio.shield(self._rereading)
        key = self._public.get(kid)
        if key is None and not self._is_read:
            # It may be one that we could not read, and then the token is good.
            raise DependencyUnavailable("PostgreSQL")
        return key

    async def _read_again(self, reread: "Reread") -> None:
        deadline.clear()
        self._is_read = False
        try:
            with contextlib.suppress(DependencyUnavailable, KeyNotOpened):
                await reread(self)
        finally:
            self._reread_at = self._clock()
            self._rereading = None

    def holds(self, kid: str) -> bool:
        """See KeySource.holds."""
        return kid in self._public

    async def ready(self) -> None:
        """A readiness check: there is a key to sign with. Raises NoSigningKey."""
        self.current()

    def jwks(self) -> Mapping[str, Any]:
        """All keys that a good token can be signed with, now or soon, as a JWK set."""
        return {"keys": [{**_thumbprint_members(key), "kid": kid, "alg": "EdDSA", "use": "sig"} for kid, key in self._public.items()]}


Reread = Callable[[KeyRing], Awaitable[None]]


def parse_key_encryption_keys(text: str) -> list[bytes]:
    """Keys of 32 bytes in base64, with commas between. Raises ValueError for anything else."""
    keys = [base64.b64decode(part.strip(), validate=True) for part in text.split(",")]
    if any(len(key) != KEY_ENCRYPTION_KEY_BYTES for key in keys):
        raise ValueError(f"not {KEY_ENCRYPTION_KEY_BYTES} bytes")
    return keys


def key_id(key: Ed25519PublicKey) -> str:
    """The key's thumbprint (RFC 7638): the same key has the same id everywhere."""
    return _base64url(hashlib.sha256(orjson.dumps(_thumbprint_members(key), option=orjson.OPT_SORT_KEYS)).digest())


def _thumbprint_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
