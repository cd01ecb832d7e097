"""The signing keys in memory: which of them signs now, and which verify."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auth_service.keys.domain import KeyPolicy, StoredKeys, thumbprint_members
from auth_service.keys.errors import KeyNotOpened, NoSigningKey
from auth_service.keys.seal import KeySeal
from servicekit import deadline
from servicekit.errors import DependencyUnavailable

# An unknown kid is looked for at most this often: a stranger can make up as many as he likes.
MIN_REREAD_INTERVAL_SECONDS: Final = 2.0


class KeyRing:
    """The keys as this replica last read them. Also the KeySource (servicekit.access.tokens) by which this service verifies its own tokens.

    Reading goes on in the background (auth_service.keys.service). What is `policy.lead_seconds` old signs nothing: there may be another active key by
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
        return {"keys": [{**thumbprint_members(key), "kid": kid, "alg": "EdDSA", "use": "sig"} for kid, key in self._public.items()]}


Reread = Callable[[KeyRing], Awaitable[None]]
