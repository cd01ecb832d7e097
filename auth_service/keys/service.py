"""Rotates the signing keys: creates the next key when it is due, deletes keys whose tokens have all expired, and reloads all keys.

Every replica does this. A lock in PostgreSQL prevents two replicas from changing the keys at the same time.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Gauge

from auth_service.keys.domain import KeyPolicy, Plan, StoredKey, StoredKeys
from auth_service.keys.ring import KeyRing
from auth_service.keys.seal import KeySeal

# A replica reads the keys this many times within the lead time of a new key.
READS_PER_LEAD: Final = 6
MAX_READ_INTERVAL_SECONDS: Final = 15.0

log = structlog.get_logger()


class KeyRepository(Protocol):
    """Stores the keys. All methods raise DependencyUnavailable."""

    async def list(self) -> StoredKeys:
        """Returns all keys."""

    async def update(self, plan: Plan) -> StoredKeys:
        """Applies the plan under the lock and returns all keys after it."""


class KeyRotation:
    """Rotates the keys by the policy.

    Before `advance` and `rotate` create a key, they decrypt the active key. They raise KeyNotOpened if this process lacks its key encryption key.
    """

    def __init__(self, repository: KeyRepository, seal: KeySeal, policy: KeyPolicy) -> None:
        self._repository = repository
        self._seal = seal
        self._policy = policy

    @property
    def read_interval_seconds(self) -> float:
        """The interval at which to call `advance`. A replica must read a new key before that key signs."""
        return min(MAX_READ_INTERVAL_SECONDS, self._policy.lead_seconds / READS_PER_LEAD)

    async def advance(self, ring: KeyRing) -> None:
        """Runs one round: loads the stored keys into the ring, then creates and deletes the keys that are due and loads the result.

        If the second step fails, the ring signs with the keys loaded by the first. Raises KeyNotOpened, DependencyUnavailable.
        """
        stored = await self._repository.list()
        ring.load(stored)
        if self._policy.next_from(stored) or self._policy.expired(stored):
            ring.load(await self._update(self._due))

    async def list(self) -> StoredKeys:
        """Returns all keys."""
        return await self._repository.list()

    async def rotate(self) -> StoredKeys:
        """Creates the next key now, unless there is one. It signs as soon as every verifier must have fetched it. Returns all keys."""
        return await self._update(self._next)

    async def replace(self) -> StoredKeys:
        """Creates a key that signs at once and withdraws all others, so that every access token issued before is rejected. Returns all keys.

        Use it if a key has leaked or a key encryption key was lost.
        """
        return await self._update(self._anew)

    async def _update(self, plan: Plan) -> StoredKeys:
        """Applies the plan. After the commit, logs the created and the withdrawn keys."""
        made: list[StoredKey] = []
        withdrawn: list[str] = []

        def noted(stored: StoredKeys) -> tuple[StoredKey | None, Sequence[str]]:
            # The transaction may run twice, so the second run overwrites the notes of the first.
            new, expired = plan(stored)
            made[:], withdrawn[:] = [new] if new else [], expired
            return new, expired

        stored = await self._repository.update(noted)
        for key in made:
            log.info("signing_key_made", kid=key.id, active_from=key.active_from.isoformat())
        for kid in withdrawn:
            log.info("signing_key_withdrawn", kid=kid)
        return stored

    def _due(self, stored: StoredKeys) -> tuple[StoredKey | None, Sequence[str]]:
        active_from = self._policy.next_from(stored)
        return self._made(stored, active_from) if active_from else None, self._policy.expired(stored)

    def _next(self, stored: StoredKeys) -> tuple[StoredKey | None, Sequence[str]]:
        if any(key.active_from > stored.now for key in stored.keys):
            return None, ()
        return self._made(stored, self._policy.soonest(stored)), ()

    def _anew(self, stored: StoredKeys) -> tuple[StoredKey | None, Sequence[str]]:
        return self._seal.new_key(stored.now), [key.id for key in stored.keys]

    def _made(self, stored: StoredKeys, active_from: datetime) -> StoredKey:
        # A replica that cannot decrypt the active key has the wrong key encryption key. The other replicas could not decrypt a key from it.
        if stored.active is not None:
            self._seal.open(stored.active)
        return self._seal.new_key(active_from)


def measure(ring: KeyRing, policy: KeyPolicy, registry: CollectorRegistry) -> None:
    """Registers gauges for the age of the signing key and for the rotation interval."""
    Gauge("signing_key_age_seconds", "Seconds since the current key began to sign.", registry=registry).set_function(lambda: ring.age_seconds)
    Gauge("signing_key_rotation_seconds", "Seconds after which the next key takes over.", registry=registry).set(policy.rotation_seconds)
