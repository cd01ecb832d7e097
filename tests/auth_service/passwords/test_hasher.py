"""Password hashing: it truncates nothing, its time reveals nothing, and its queue is bounded."""

import asyncio
import threading
import time
from typing import Any

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from auth_service.passwords.domain import normalize
from auth_service.passwords.hasher import SCHEME, PasswordHasher
from servicekit import deadline
from servicekit.errors import Overloaded


async def test_a_password_verifies_and_another_does_not(hasher: PasswordHasher) -> None:
    password_hash = await hasher.hash("correct horse battery")
    assert password_hash.startswith(f"{SCHEME}$2b$04$")
    assert await hasher.verify("correct horse battery", password_hash)
    assert not await hasher.verify("correct horse batter", password_hash)
    assert not await hasher.verify("", password_hash)


async def test_nothing_beyond_72_bytes_is_lost(hasher: PasswordHasher) -> None:
    password_hash = await hasher.hash("x" * 127 + "a")
    assert not await hasher.verify("x" * 127 + "b", password_hash)
    assert not await hasher.verify("x" * 127, password_hash)


async def test_a_nul_does_not_end_a_password(hasher: PasswordHasher) -> None:
    assert not await hasher.verify("secret\0other", await hasher.hash("secret\0thing"))


async def test_one_text_typed_in_two_ways_is_one_password(hasher: PasswordHasher) -> None:
    assert await hasher.verify("Cafe\N{COMBINING ACUTE ACCENT} au lait", await hasher.hash("Caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait"))


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
async def test_any_two_texts_are_told_apart(hasher: PasswordHasher, one: str, two: str) -> None:
    """Except two ways of typing the same text."""
    assert await hasher.verify(two, await hasher.hash(one)) is (normalize(one) == normalize(two))


async def test_a_hash_is_outdated_when_the_cost_has_risen_or_the_scheme_is_another() -> None:
    lower, higher = [PasswordHasher(cost=cost, threads=1, queue=1, registry=CollectorRegistry()) for cost in (4, 5)]
    by_lower, by_higher = await lower.hash("correct horse"), await higher.hash("correct horse")
    assert [hasher.is_outdated(by_lower) for hasher in (lower, higher)] == [False, True]
    assert [hasher.is_outdated(by_higher) for hasher in (lower, higher)] == [False, False]
    assert higher.is_outdated(by_higher.removeprefix(SCHEME))
    assert await lower.verify("correct horse", by_higher)
    assert await higher.verify("correct horse", by_lower)
    for hasher in (lower, higher):
        await hasher.close()


@pytest.mark.parametrize("cost", [4, 6, 7, 8])
async def test_a_wrong_password_is_the_same_work_whatever_the_hash_once_cost(cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in rounds of bcrypt. The shorter time of a hash with a lower cost would reveal that the account exists."""
    older, hasher = [PasswordHasher(cost=c, threads=1, queue=1, registry=CollectorRegistry()) for c in (cost, 8)]
    password_hash = await older.hash("correct horse")
    rounds: list[int] = []
    check, make = bcrypt.checkpw, bcrypt.hashpw

    def checkpw(password: bytes, kept: bytes) -> bool:
        rounds.append(2 ** int(kept.split(b"$")[2]))
        return check(password, kept)

    def hashpw(password: bytes, salt: bytes) -> bytes:
        rounds.append(2 ** int(salt.split(b"$")[2]))
        return make(password, salt)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    monkeypatch.setattr(bcrypt, "hashpw", hashpw)
    assert not await hasher.verify("wrong horse", password_hash)
    assert sum(rounds) == 2**8
    rounds.clear()
    assert not await hasher.verify("wrong horse", None)
    assert rounds == [2**8]
    rounds.clear()
    assert await hasher.verify("correct horse", password_hash)
    assert rounds == [2**cost]
    for each in (older, hasher):
        await each.close()


async def test_nobodys_password_is_never_right() -> None:
    """Not even the empty password, whose hash is compared if there is no account. The test above counts the work."""
    hasher = PasswordHasher(cost=4, threads=1, queue=1, registry=CollectorRegistry())
    for password in ("", "correct horse"):
        assert not await hasher.verify(password, None)
    await hasher.close()


async def test_work_beyond_the_queue_is_refused_and_counted_until_done(monkeypatch: pytest.MonkeyPatch) -> None:
    began, release = threading.Event(), threading.Event()

    def blocked(*_: Any) -> bool:
        began.set()
        return release.wait(5)

    registry = CollectorRegistry()
    hasher = PasswordHasher(cost=4, threads=1, queue=2, registry=registry)
    monkeypatch.setattr(bcrypt, "checkpw", blocked)
    waiting = [asyncio.create_task(hasher.verify("x", None)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(began.wait, 5)
    assert registry.get_sample_value("password_hashes_under_way") == registry.get_sample_value("password_hashes_limit") == 3
    with pytest.raises(Overloaded):
        await hasher.verify("x", None)
    assert registry.get_sample_value("password_hashes_refused_total") == 1
    # A cancelled call that waits frees its place in the queue. A cancelled call whose hash runs does not, because its thread is still busy.
    waiting[0].cancel()
    waiting[2].cancel()
    await asyncio.gather(*waiting[::2], return_exceptions=True)
    await asyncio.sleep(0.05)
    assert hasher._under_way == 2
    release.set()
    assert await waiting[1] is False
    async with asyncio.timeout(10):
        while hasher._under_way:
            await asyncio.sleep(0.01)
    await hasher.close()


async def test_who_would_wait_beyond_the_deadline_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    hasher = PasswordHasher(cost=4, threads=1, queue=100, registry=CollectorRegistry())
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: release.wait(5))
    hasher._each_seconds = 10.0

    async def call(seconds: float) -> None:
        deadline.begin(seconds)
        await hasher.verify("x", None)

    # A call that need not wait is accepted, however little time it has. Then there is time for two more calls.
    taken = [asyncio.create_task(call(seconds)) for seconds in (5, 35, 35)]
    await asyncio.sleep(0)
    assert hasher._under_way == 3
    with pytest.raises(Overloaded):
        await asyncio.create_task(call(35))
    taken.append(asyncio.create_task(call(45)))
    await asyncio.sleep(0)
    assert hasher._under_way == 4
    release.set()
    await asyncio.gather(*taken)
    await hasher.close()


async def test_what_a_hash_is_thought_to_take_follows_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = PasswordHasher(cost=4, threads=1, queue=1, registry=CollectorRegistry())
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: time.sleep(0.05))
    hasher._each_seconds = 0.0
    for _ in range(3):
        await hasher.verify("x", None)
    assert hasher._each_seconds >= 0.05 * (1 - 0.8**3)
    hasher._each_seconds = 10.0
    await hasher.verify("x", None)
    assert hasher._each_seconds < 10
    await hasher.close()


async def test_the_event_loop_goes_on_while_a_password_is_hashed() -> None:
    hasher = PasswordHasher(cost=10, threads=1, queue=1, registry=CollectorRegistry())
    turns = 0
    # Every hash would hold up a loop that does not go on. A busy machine holds up only some of them.
    async with asyncio.timeout(10):
        while turns <= 5:
            hashing = asyncio.create_task(hasher.hash("correct horse battery"))
            turns = 0
            while not hashing.done():
                await asyncio.sleep(0.001)
                turns += 1
    await hasher.close()
