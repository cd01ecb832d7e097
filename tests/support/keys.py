"""Signing keys for tests that need a key rather than its course."""

import os
from datetime import UTC, datetime

from auth_service.keys.domain import KeyPolicy, StoredKeys
from auth_service.keys.ring import KeyRing
from auth_service.keys.seal import KeySeal


def key_ring() -> KeyRing:
    """A ring with one key, which signs all day."""
    seal, now = KeySeal([os.urandom(32)]), datetime.now(UTC)
    ring = KeyRing(seal, KeyPolicy(rotation_seconds=86_400, lead_seconds=86_400, token_seconds=900))
    ring.load(StoredKeys([seal.new_key(now)], now))
    return ring
