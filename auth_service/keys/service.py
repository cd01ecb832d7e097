"""Keeps the signing keys in their course: makes the next one when it is time, drops those that nothing is signed with any more, reads them all anew.

Any replica does it; a lock in PostgreSQL keeps two from doing it at once.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Gauge

from auth_service.keys.domain import KeyPolicy, StoredKey, StoredKeys
from auth_service.keys.ring import KeyRing
from auth_service.keys.seal import KeySeal

# The keys are read so many times in the lead time of a new one.
READS_PER_LEAD: Final = 6
MAX_READ_INTERVAL_SECONDS: Final = 15.0

log = structlog.get_logger()

# What to do about the keys as they are: a key to add or None, and the ids of those to delete.
Plan = Callable[[StoredKeys], tuple[StoredKey | None, Sequence[str]]]


class KeyRepository(Protocol):
    """Where the keys are kept. Raises DependencyUnavailable."""

    async def list(self) -> StoredKeys:
        """All keys."""

    async def update(self, plan: Plan) -> StoredKeys:
        """Carries out a plan, alone, and returns what there is then."""


class KeyRotation:
    """The course of the keys, by the policy. What makes a key raises KeyNotOpened if those that there are were sealed under another one."""

    def __init__(self, repository: KeyRepository, seal: KeySeal, policy: KeyPolicy) -> None:
        self._repository = repository
        self._seal = seal
        self._policy = policy

    @property
    def read_interval_seconds(self) -> float:
        """How often `advance` is to be called: a replica must know of a key before it signs."""
        return min(MAX_READ_INTERVAL_SECONDS, self._policy.lead_seconds / READS_PER_LEAD)

    async def advance(self, ring: KeyRing) -> None:
        """One round: the ring is as new as the database, and then whatever is due, which may fail: what there is goes on signing."""
        stored = await self._repository.list()
        ring.load(stored)
        if self._policy.next_from(stored) or self._policy.expired(stored):
            ring.load(await self._update(self._due))

    async def list(self) -> StoredKeys:
        """All keys."""
        return await self._repository.list()

    async def rotate(self) -> StoredKeys:
        """Makes the next key now, unless there is one already: it signs as soon as every verifier must know it."""
        return await self._update(self._next)

    async def replace(self) -> StoredKeys:
        """Makes a key that signs at once, and withdraws all others: every access token in use is refused from then on.

        For a key that has leaked, and for a key encryption key that was lost.
        """
        return await self._update(self._anew)

    async def _update(self, plan: Plan) -> StoredKeys:
        """Carries out a plan, and logs what came of it when it is done."""
        made: list[StoredKey] = []
        withdrawn: list[str] = []

        def noted(stored: StoredKeys) -> tuple[StoredKey | None, Sequence[str]]:
            # A transaction may be run twice.
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
        # Whoever cannot open what there is has the wrong key encryption key, and would shut out the others.
        if stored.active is not None:
            self._seal.open(stored.active)
        return self._seal.new_key(active_from)


def measure(ring: KeyRing, policy: KeyPolicy, registry: CollectorRegistry) -> None:
    """Tells how old the key is that signs, and how old it may become."""
    Gauge("signing_key_age_seconds", "Time since the current key began to sign.", registry=registry).set_function(lambda: ring.age_seconds)
    Gauge("signing_key_rotation_seconds", "Time after which another key signs.", registry=registry).set(policy.rotation_seconds)
