"""Signing keys for tests that need a key, but not its rotation."""

import os
from datetime import UTC, datetime

from auth_service.keys.domain import KeyPolicy, StoredKeys
from auth_service.keys.ring import KeyRing
from auth_service.keys.seal import KeySeal


def key_ring() -> KeyRing:
    """Returns a ring with one key, which signs for a day."""
    seal, now = KeySeal([os.urandom(32)]), datetime.now(UTC)
    ring = KeyRing(seal, KeyPolicy(rotation_seconds=86_400, lead_seconds=86_400, token_seconds=900))
    ring.load(StoredKeys([seal.new_key(now)], now))
    return ring
