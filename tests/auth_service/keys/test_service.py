"""The rotation of the keys on real PostgreSQL: any number of replicas create one key, and no error deletes or adds a key."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import pytest

from auth_service.keys.domain import KeyPolicy, StoredKeys
from auth_service.keys.errors import KeyNotOpened
from auth_service.keys.repository import LOCK, PostgresKeys
from auth_service.keys.ring import KeyRing
from auth_service.keys.seal import KeySeal
from auth_service.keys.service import MAX_READ_INTERVAL_SECONDS, KeyRotation
from servicekit.stores.postgres import Connection, Database
from tests.support.waiting import eventually

POLICY = KeyPolicy(rotation_seconds=1000, lead_seconds=100, token_seconds=60)
SEAL = KeySeal([os.urandom(32)])
REPLICAS = 8


class Clock:
    """The replicas' clock. pass_time moves it together with the times in the database."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


CLOCK = Clock()


class Replica:
    """One process: its rotation and its ring."""

    def __init__(self, database: Database, seal: KeySeal = SEAL) -> None:
        self.rotation = KeyRotation(PostgresKeys(database), seal, POLICY)
        self.ring = KeyRing(seal, POLICY, CLOCK)

    async def advance(self) -> None:
        await self.rotation.advance(self.ring)

    @property
    def signs_with(self) -> str:
        return self.ring.current()[0]


@pytest.fixture(autouse=True)
async def _no_keys(database: Database) -> None:
    await database.fetchrow("DELETE FROM auth.signing_keys")


@pytest.fixture
def replica(database: Database) -> Replica:
    return Replica(database)


@pytest.fixture
def stranger(database: Database) -> Replica:
    """A replica with another KEY_ENCRYPTION_KEY."""
    return Replica(database, KeySeal([os.urandom(32)]))


async def pass_time(database: Database, seconds: float) -> None:
    """Makes all keys older by `seconds`, in the database and by the replicas' clock."""
    await database.fetchrow("UPDATE auth.signing_keys SET active_from = active_from - make_interval(secs => $1)", seconds)
    CLOCK.ahead += seconds


@contextlib.asynccontextmanager
async def locked(database: Database) -> AsyncIterator[None]:
    """Holds the lock, like another replica that is creating a key and does not finish."""
    held, released = asyncio.Event(), asyncio.Event()

    async def hold(connection: Connection) -> None:
        await connection.execute(LOCK)
        held.set()
        await released.wait()

    holding = asyncio.create_task(database.transact(hold))
    await held.wait()
    try:
        yield
    finally:
        released.set()
        await holding


async def require_read(replica: Replica, kid: str) -> None:
    assert replica.ring.holds(kid)


def states(stored: StoredKeys) -> list[str]:
    return [stored.state_of(key) for key in stored.keys]


async def test_replicas_that_start_at_once_make_one_key(database: Database) -> None:
    replicas = [Replica(database) for _ in range(REPLICAS)]
    await asyncio.gather(*(each.advance() for each in replicas))
    stored = await replicas[0].rotation.list()
    assert states(stored) == ["active"]
    assert {each.signs_with for each in replicas} == {stored.keys[0].id}


async def test_replicas_that_rotate_at_once_make_one_key(database: Database) -> None:
    replicas = [Replica(database) for _ in range(REPLICAS)]
    await replicas[0].advance()
    first = replicas[0].signs_with
    await pass_time(database, POLICY.rotation_seconds - POLICY.lead_seconds)
    await asyncio.gather(*(each.advance() for each in replicas))
    assert states(await replicas[0].rotation.list()) == ["active", "next"]
    assert {each.signs_with for each in replicas} == {first}
    assert {len(each.ring.jwks()["keys"]) for each in replicas} == {2}


async def test_the_whole_course_of_a_key(database: Database, replica: Replica) -> None:
    await replica.advance()
    first = replica.signs_with
    await pass_time(database, POLICY.rotation_seconds - POLICY.lead_seconds - 10)
    await replica.advance()
    assert states(await replica.rotation.list()) == ["active"]
    await pass_time(database, 10)
    await replica.advance()
    assert states(await replica.rotation.list()) == ["active", "next"]
    await pass_time(database, POLICY.lead_seconds)
    await replica.advance()
    assert states(await replica.rotation.list()) == ["retired", "active"]
    assert replica.signs_with != first
    assert replica.ring.holds(first)
    await pass_time(database, POLICY.token_seconds + POLICY.lead_seconds - 10)
    await replica.advance()
    assert replica.ring.holds(first)
    await pass_time(database, 10)
    await replica.advance()
    assert states(await replica.rotation.list()) == ["active"]
    assert not replica.ring.holds(first)


async def test_a_key_that_cannot_be_made_does_not_stop_the_one_that_signs(database: Database, replica: Replica) -> None:
    """Another connection holds the lock: every role of the database can take it."""
    await replica.advance()
    first = replica.signs_with
    await pass_time(database, POLICY.rotation_seconds)
    restarted = Replica(database)
    async with locked(database):
        advancing = asyncio.create_task(restarted.advance())
        await eventually(lambda: require_read(restarted, first), within=4)
        assert restarted.signs_with == first
        assert not advancing.done()
    await advancing
    assert states(await replica.rotation.list()) == ["active", "next"]


async def test_rotating_by_hand_makes_the_next_key_once(replica: Replica) -> None:
    assert states(await replica.rotation.rotate()) == ["active"]
    await replica.advance()
    first = replica.signs_with
    made = await replica.rotation.rotate()
    assert states(made) == ["active", "next"]
    assert 90 < (made.keys[1].active_from - made.now).total_seconds() <= 100
    assert (await replica.rotation.rotate()).keys == made.keys
    await replica.advance()
    assert replica.signs_with == first
    assert replica.ring.holds(made.keys[1].id)


async def test_rotating_at_once_makes_one_key(database: Database, replica: Replica) -> None:
    await replica.advance()
    await asyncio.gather(*(Replica(database).rotation.rotate() for _ in range(REPLICAS)))
    assert states(await replica.rotation.list()) == ["active", "next"]


async def test_replacing_withdraws_all_others_at_once(replica: Replica) -> None:
    await replica.advance()
    before = await replica.rotation.rotate()
    (key,) = (await replica.rotation.replace()).keys
    assert key.id not in {old.id for old in before.keys}
    await replica.advance()
    assert replica.signs_with == key.id
    assert not any(replica.ring.holds(old.id) for old in before.keys)


async def test_another_key_encryption_key_is_noticed_and_makes_no_key(replica: Replica, stranger: Replica) -> None:
    await replica.advance()
    with pytest.raises(KeyNotOpened):
        await stranger.advance()
    assert states(await replica.rotation.list()) == ["active"]
    await replica.advance()


async def test_another_key_encryption_key_makes_no_key_when_one_is_due_either(database: Database, replica: Replica, stranger: Replica) -> None:
    """The replicas with the right key encryption key could not decrypt such a key."""
    await replica.advance()
    await pass_time(database, POLICY.rotation_seconds)
    with pytest.raises(KeyNotOpened):
        await stranger.advance()
    assert states(await replica.rotation.list()) == ["active"]
    await replica.advance()


async def test_rotating_by_hand_with_another_key_encryption_key_makes_no_key(replica: Replica, stranger: Replica) -> None:
    await replica.advance()
    with pytest.raises(KeyNotOpened):
        await stranger.rotation.rotate()
    await replica.advance()


async def test_a_key_encryption_key_that_was_lost_is_got_over_by_replacing(replica: Replica, stranger: Replica) -> None:
    await replica.advance()
    await stranger.rotation.replace()
    await stranger.advance()
    assert stranger.signs_with
    with pytest.raises(KeyNotOpened):
        await replica.advance()


def test_the_keys_are_read_several_times_in_a_lead(database: Database, replica: Replica) -> None:
    assert replica.rotation.read_interval_seconds == MAX_READ_INTERVAL_SECONDS
    short = KeyPolicy(rotation_seconds=10, lead_seconds=3, token_seconds=1)
    assert KeyRotation(PostgresKeys(database), SEAL, short).read_interval_seconds == 0.5
