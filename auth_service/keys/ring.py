"""The signing keys in memory: which key signs now, and which keys verify tokens."""

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
from servicekit.errors import DependencyUnavailable, TimeLimitExceeded

# For unknown kids a replica rereads the keys at most this often, because anyone can send any number of made-up kids.
MIN_REREAD_INTERVAL_SECONDS: Final = 2.0


class KeyRing:
    """The keys as this replica last read them. Also the KeySource (servicekit.access.tokens) with which this service verifies its own tokens.

    auth_service.keys.service loads the keys in the background. If the last load is at least `policy.lead_seconds` old, the ring signs nothing,
    because another key may be active by then. If the replica first read a key less than half of `lead_seconds` before its `active_from` (for example
    because all replicas were down and none published it), the key starts to sign half of `lead_seconds` after that read, but at most half of
    `lead_seconds` after `active_from`. Until then the previous key signs; it stays published long enough.
    """

    def __init__(self, seal: KeySeal, policy: KeyPolicy, clock: Callable[[], float] = time.monotonic, *, reread: "Reread | None" = None) -> None:
        """`reread` loads the keys from the database now. `find` calls it for an unknown kid, whose key another replica may have created."""
        self._seal = seal
        self._lead_seconds = policy.lead_seconds
        self._clock = clock
        self._reread = reread
        self._reread_at = float("-inf")
        self._rereading: asyncio.Task[None] | None = None
        # False before the first load, and from the start of a reread until it has loaded the keys.
        self._is_read = False
        self._loaded_at = float("-inf")
        # The time at which this replica first read each key.
        self._known_at: Mapping[str, float] = {}
        # Each key with the time on this replica's clock from which it signs, oldest first.
        self._signing: Sequence[tuple[float, str, Ed25519PrivateKey]] = ()
        self._public: Mapping[str, Ed25519PublicKey] = {}

    def load(self, stored: StoredKeys) -> None:
        """Takes over the keys just read from the database: all of them verify tokens. Keys that are no longer stored neither verify nor sign.

        Raises KeyNotOpened if the active key or a next key cannot be decrypted. Without the active key, the ring signs only with those of its
        previous keys that are still stored. Without a next key, it signs with the others.
        """
        loaded_at = self._clock()
        self._is_read = True
        # First drop the withdrawn keys, because they must neither verify nor sign even if a later step fails.
        self._public = {key.id: key.public for key in stored.keys}
        self._signing = [entry for entry in self._signing if entry[1] in self._public]
        self._known_at = {kid: self._known_at.get(kid, loaded_at) for kid in self._public}
        signing: list[tuple[float, str, Ed25519PrivateKey]] = []
        unopened: dict[str, KeyNotOpened] = {}
        for key in stored.keys:
            due = loaded_at + (key.active_from - stored.now).total_seconds()
            # Without a previous key nothing could sign until then, so the key signs from its `active_from`.
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
        """Returns the id of the key that signs now, and the key. Raises NoSigningKey."""
        now = self._clock()
        if now - self._loaded_at < self._lead_seconds:
            for active_from, kid, key in reversed(self._signing):
                if active_from <= now:
                    return kid, key
        raise NoSigningKey

    @property
    def age_seconds(self) -> float:
        """Seconds since the current key began to sign; infinity while there is none."""
        now = self._clock()
        return now - max((active_from for active_from, _, _ in self._signing if active_from <= now), default=float("-inf"))

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """See KeySource.find."""
        if kid not in self._public:
            if self._rereading is None and self._reread is not None and self._clock() - self._reread_at >= MIN_REREAD_INTERVAL_SECONDS:
                self._rereading = asyncio.create_task(self._read_again(self._reread))
            # All callers share one reread. If one caller is cancelled, the reread continues for the others.
            if self._rereading is not None:
                await asyncio.shield(self._rereading)
        key = self._public.get(kid)
        if key is None and not self._is_read:
            # The key may exist although this replica could not read it, and then the token is valid.
            raise DependencyUnavailable("PostgreSQL")
        return key

    async def _read_again(self, reread: "Reread") -> None:
        deadline.clear()
        self._is_read = False
        try:
            with contextlib.suppress(DependencyUnavailable, TimeLimitExceeded, KeyNotOpened):
                await reread(self)
        finally:
            self._reread_at = self._clock()
            self._rereading = None

    def holds(self, kid: str) -> bool:
        """See KeySource.holds."""
        return kid in self._public

    async def ready(self) -> None:
        """Readiness check. Raises NoSigningKey if there is no key to sign with."""
        self.current()

    def jwks(self) -> Mapping[str, Any]:
        """Returns the public keys that verify tokens, now or after the next rotation, as a JWK set."""
        return {"keys": [{**thumbprint_members(key), "kid": kid, "alg": "EdDSA", "use": "sig"} for kid, key in self._public.items()]}


Reread = Callable[[KeyRing], Awaitable[None]]
