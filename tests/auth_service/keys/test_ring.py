"""The keys: when they sign, when they are published, and that only their own key encryption key decrypts them."""

import base64
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from prometheus_client import CollectorRegistry

from auth_service.keys.domain import KeyPolicy, StoredKey, StoredKeys, key_id
from auth_service.keys.errors import KeyNotOpened, NoSigningKey
from auth_service.keys.ring import MIN_REREAD_INTERVAL_SECONDS, KeyRing
from auth_service.keys.seal import KeySeal
from auth_service.keys.service import measure
from servicekit.access.jwks import public_keys
from servicekit.access.seal import parse_key_encryption_keys
from servicekit.errors import DependencyUnavailable

POLICY = KeyPolicy(rotation_seconds=1000, lead_seconds=100, token_seconds=60)
SEAL = KeySeal([os.urandom(32)])
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stored(now: float, *active_from: float, seal: KeySeal = SEAL) -> StoredKeys:
    """Returns keys that sign from these times on, read at `now`."""
    return StoredKeys([seal.new_key(at(seconds)) for seconds in active_from], at(now))


class Clock:
    """A clock that moves only when a test sets it."""

    now = 50_000.0

    def __call__(self) -> float:
        return self.now


def test_the_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    """The example of RFC 8037, appendix A.3."""
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="))
    assert key_id(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    ("now", "states"),
    [
        (0, ["active", "next", "next"]),
        (999, ["active", "next", "next"]),
        (1000, ["retired", "active", "next"]),
        (2000, ["retired", "retired", "active"]),
        (-1, ["next", "next", "next"]),
    ],
)
def test_a_key_is_next_then_active_then_retired(now: float, states: list[str]) -> None:
    keys = stored(now, 0, 1000, 2000)
    assert [keys.state_of(key) for key in keys.keys] == states
    assert keys.active == (keys.keys[states.index("active")] if "active" in states else None)


@pytest.mark.parametrize(
    ("now", "keys", "expected"),
    [
        (7, [], 7),
        (0, [0], None),
        (899, [0], None),
        (900, [0], 1000),
        (950, [0, 1000], None),
        (1000, [0, 1000], None),
        (1900, [0, 1000], 2000),
        # No replica was running when the key was due.
        (5000, [0], 5100),
    ],
    ids=["the-first-at-once", "new", "not-yet", "in-time", "is-there", "signs", "the-one-after", "late"],
)
def test_the_next_key_is_made_so_early_that_all_know_it_when_it_signs(now: float, keys: list[float], expected: float | None) -> None:
    assert POLICY.next_from(stored(now, *keys)) == (None if expected is None else at(expected))


def test_a_key_is_dropped_when_no_token_of_it_can_be_alive() -> None:
    """A replica that had not read the keys for the whole lead signed the key's last token at 1100. That token expired at 1160."""
    early, due = stored(1159.9, 0, 1000, 2000), stored(1160, 0, 1000, 2000)
    assert POLICY.expired(early) == []
    assert POLICY.expired(due) == [due.keys[0].id]
    assert POLICY.expired(stored(10**6, 0)) == []
    assert POLICY.expired(stored(0)) == []


async def test_the_public_set_is_what_verifiers_read() -> None:
    keys, ring = stored(1500, 0, 1000, 2000), KeyRing(SEAL, POLICY)
    ring.load(keys)
    published = public_keys(ring.jwks())
    assert published == {key.id: key.public for key in keys.keys}
    assert all("d" not in key for key in ring.jwks()["keys"])
    for key in keys.keys:
        assert ring.holds(key.id)
        assert await ring.find(key.id) == key.public
    assert not ring.holds("another")
    assert await ring.find("another") is None


async def test_what_could_not_be_read_is_no_fault_of_the_token() -> None:
    """Before the first read of the keys, and later, when another replica may have created a key."""
    clock, keys, away = Clock(), stored(0, 0), True

    async def read(ring: KeyRing) -> None:
        if away:
            raise DependencyUnavailable("PostgreSQL")
        ring.load(keys)

    ring = KeyRing(SEAL, POLICY, clock, reread=read)
    with pytest.raises(DependencyUnavailable):
        await ring.find(keys.keys[0].id)
    away, clock.now = False, clock.now + MIN_REREAD_INTERVAL_SECONDS
    assert await ring.find(keys.keys[0].id) == keys.keys[0].public
    assert await ring.find("another") is None
    away, clock.now = True, clock.now + MIN_REREAD_INTERVAL_SECONDS
    with pytest.raises(DependencyUnavailable):
        await ring.find("another")
    assert await ring.find(keys.keys[0].id) == keys.keys[0].public


def test_the_ring_takes_the_next_key_at_its_time_without_reading() -> None:
    clock = Clock()
    ring, keys = KeyRing(SEAL, POLICY, clock), stored(950, 0, 1000)
    ring.load(keys)
    kid, key = ring.current()
    assert (kid, key.public_key()) == (keys.keys[0].id, keys.keys[0].public)
    clock.now += 49.9
    assert ring.current()[0] == keys.keys[0].id
    clock.now += 0.1
    kid, key = ring.current()
    assert (kid, key.public_key()) == (keys.keys[1].id, keys.keys[1].public)


@pytest.mark.parametrize(
    ("first_read", "takes_over"),
    [(950, 1000), (970, 1020), (1000, 1050), (1030, 1050), (1051, 1051)],
    ids=["published-before", "half-published", "at-its-time", "late", "too-late-for-the-one-before"],
)
def test_a_key_that_nobody_published_in_time_takes_over_when_the_verifiers_have_it(first_read: float, takes_over: float) -> None:
    """All replicas were down since the key was created. The previous key is published until 1160, and its tokens live for 60 s."""
    clock = Clock()
    ring, keys = KeyRing(SEAL, POLICY, clock), stored(first_read, 0, 1000)
    began, signed_with = clock.now, []
    while (now := first_read + clock.now - began) < takes_over + 2:
        # The ring reads the keys in each round.
        ring.load(replace(keys, now=at(now)))
        signed_with.append((now, ring.current()[0]))
        clock.now += 1
    old, new = (key.id for key in keys.keys)
    assert signed_with == [(now, old if now < takes_over else new) for now, _ in signed_with]


def test_without_the_key_before_it_a_key_signs_at_its_time() -> None:
    """For example after `keys replace`, or after the key encryption key was changed and the old one removed."""
    gone, active = stored(0, 0, seal=KeySeal([os.urandom(32)])).keys[0], SEAL.new_key(at(1000))
    for keys in ([active], [gone, active]):
        ring = KeyRing(SEAL, POLICY)
        ring.load(StoredKeys(keys, at(1010)))
        assert ring.current()[0] == active.id


async def test_a_ring_that_was_not_read_for_the_lead_signs_nothing_but_verifies() -> None:
    clock = Clock()
    ring, keys = KeyRing(SEAL, POLICY, clock), stored(0, 0)
    with pytest.raises(NoSigningKey):
        ring.current()
    ring.load(keys)
    clock.now += POLICY.lead_seconds - 0.1
    await ring.ready()
    clock.now += 0.1
    for _ in range(2):
        with pytest.raises(NoSigningKey):
            ring.current()
        with pytest.raises(NoSigningKey):
            await ring.ready()
    assert ring.holds(keys.keys[0].id)
    ring.load(replace(keys, now=at(100)))
    await ring.ready()


def test_what_was_withdrawn_is_gone_also_where_the_new_key_cannot_be_opened() -> None:
    """For example after `keys replace` because a key encryption key was lost, on a replica that still has the old one."""
    ring = KeyRing(SEAL, POLICY)
    ours = stored(0, 0)
    ring.load(ours)
    strangers = stored(0, 0, seal=KeySeal([os.urandom(32)]))
    with pytest.raises(KeyNotOpened, match=strangers.keys[0].id):
        ring.load(strangers)
    assert not ring.holds(ours.keys[0].id)
    assert [key["kid"] for key in ring.jwks()["keys"]] == [strangers.keys[0].id]
    with pytest.raises(NoSigningKey):
        ring.current()


def test_a_next_key_that_cannot_be_opened_is_published_and_does_not_stop_the_active_one() -> None:
    """For example while another key encryption key is rolled out."""
    ours, theirs = SEAL.new_key(at(0)), KeySeal([os.urandom(32)]).new_key(at(1000))
    ring = KeyRing(SEAL, POLICY)
    with pytest.raises(KeyNotOpened, match=theirs.id):
        ring.load(StoredKeys([ours, theirs], at(500)))
    assert ring.current()[0] == ours.id
    assert ring.holds(theirs.id)


def test_what_signs_no_more_need_not_be_opened() -> None:
    retired = stored(0, 0, seal=KeySeal([os.urandom(32)])).keys[0]
    active = SEAL.new_key(at(1000))
    ring = KeyRing(SEAL, POLICY)
    ring.load(StoredKeys([retired, active], at(1500)))
    assert ring.current()[0] == active.id
    assert ring.holds(retired.id)


def test_the_first_key_encryption_key_seals_and_all_open() -> None:
    old, new = os.urandom(32), os.urandom(32)
    sealed_by_old = KeySeal([old]).new_key(START)
    both = KeySeal([new, old])
    assert both.open(sealed_by_old).public_key() == sealed_by_old.public
    sealed_by_both = both.new_key(START)
    assert KeySeal([new]).open(sealed_by_both).public_key() == sealed_by_both.public
    with pytest.raises(KeyNotOpened):
        KeySeal([old]).open(sealed_by_both)


def test_sealed_bytes_are_good_for_their_own_key_alone() -> None:
    one, other = SEAL.new_key(START), SEAL.new_key(START)
    changed = bytearray(one.sealed_key)
    changed[-1] ^= 1
    for planted in (replace(other, sealed_key=one.sealed_key), replace(one, id=other.id), replace(one, sealed_key=bytes(changed))):
        with pytest.raises(KeyNotOpened):
            SEAL.open(planted)


def test_the_private_half_cannot_be_read_from_what_is_stored() -> None:
    key: StoredKey = SEAL.new_key(START)
    private = SEAL.open(key).private_bytes_raw()
    assert private not in key.sealed_key
    assert SEAL.new_key(START).sealed_key[:12] != key.sealed_key[:12]


def test_key_encryption_keys_are_read_with_commas_between() -> None:
    keys = [os.urandom(32) for _ in range(2)]
    assert parse_key_encryption_keys(" , ".join(base64.b64encode(key).decode() for key in keys)) == keys


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_encryption_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError):
        parse_key_encryption_keys(base64.b64encode(bytes(size)).decode())


@pytest.mark.parametrize("text", ["", "nonsense", "A" * 43, f"{base64.b64encode(bytes(32)).decode()},", "=" * 44])
def test_what_is_no_base64_of_a_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_key_encryption_keys(text)


def test_the_age_of_the_key_that_signs_is_measured() -> None:
    """The next key takes over by the clock, without another read."""
    registry, clock = CollectorRegistry(), Clock()
    ring = KeyRing(SEAL, POLICY, clock)
    measure(ring, POLICY, registry)
    assert registry.get_sample_value("signing_key_age_seconds") == float("inf")
    ring.load(stored(950, 0, 1000))
    ages = []
    for _ in range(3):
        ages.append(registry.get_sample_value("signing_key_age_seconds"))
        clock.now += 30
    assert ages == [950, 980, 10]
    assert registry.get_sample_value("signing_key_rotation_seconds") == POLICY.rotation_seconds
