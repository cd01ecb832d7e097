"""The limiter on a real Valkey and in memory. Both must decide alike, and so must one whose Valkey is away (test_rate_limit_outages)."""

import asyncio
import time
from fractions import Fraction
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from devstack.stack import Stack
from servicekit.access import rate_limit
from servicekit.access.rate_limit import Limit, LocalBuckets, RateLimiter
from servicekit.stores.redis import Redis
from tests.servicekit.access.limiters import ANYBODY, LONG, PREFIX, Replica, ReplicaFactory, held, passed, take
from tests.support.waiting import eventually


async def test_a_burst_passes_and_the_next_is_told_how_long_to_wait(replica: Replica, key: str) -> None:
    began = time.monotonic()
    assert [await take(replica.limiter, key, LONG) for _ in range(LONG.burst)] == [0.0] * LONG.burst
    waits = [await take(replica.limiter, key, LONG) for _ in range(3)]
    # Redis uses another clock, which may have been adjusted slightly during the test.
    assert all(LONG.interval_seconds - (time.monotonic() - began) - 0.1 <= wait <= LONG.interval_seconds for wait in waits)
    assert replica.figures.local == 0


async def test_each_key_has_a_bucket_of_its_own(limiter: RateLimiter) -> None:
    keys = [str(uuid4()) for _ in range(3)]
    assert [await passed(limiter, key, LONG, LONG.burst + 1) for key in keys] == [LONG.burst] * 3


@pytest.mark.parametrize("replicas", [1, 2])
async def test_of_many_at_once_exactly_the_burst_passes(system: Stack, patient: None, replica_of: ReplicaFactory, key: str, replicas: int) -> None:
    limit = Limit(10, 1000.0)
    made = [await replica_of(system.state.redis_url) for _ in range(replicas)]
    waits = await asyncio.gather(*(take(made[number % replicas].limiter, key, limit) for number in range(50)))
    assert waits.count(0.0) == limit.burst
    assert [one.figures.local for one in made] == [0] * replicas


async def test_after_the_wait_there_is_one_again(limiter: RateLimiter, key: str) -> None:
    limit = Limit(2, 0.2)
    for _ in range(2):
        while not (wait := await take(limiter, key, limit)):
            pass
        assert wait <= limit.interval_seconds
        await asyncio.sleep(wait + 0.02)
        assert await take(limiter, key, limit) == 0


async def test_what_is_given_back_can_be_taken_again(limiter: RateLimiter, key: str) -> None:
    assert await passed(limiter, key, LONG, LONG.burst + 1) == LONG.burst
    await limiter.give_back(key, LONG, ANYBODY)
    assert await passed(limiter, key, LONG, 2) == 1


async def test_a_bucket_never_has_more_than_its_burst(limiter: RateLimiter, key: str) -> None:
    await take(limiter, key, LONG)
    for _ in range(5):
        await limiter.give_back(key, LONG, ANYBODY)
    assert await passed(limiter, key, LONG, LONG.burst + 3) == LONG.burst


async def test_a_full_bucket_is_not_kept(replica: Replica, key: str) -> None:
    for _ in range(2):
        await take(replica.limiter, key, LONG)
    await replica.limiter.give_back(key, LONG, ANYBODY)
    assert await held(replica, key) is not None
    await replica.limiter.give_back(key, LONG, ANYBODY)
    assert await held(replica, key) is None
    await replica.limiter.give_back(key, LONG, ANYBODY)
    assert await held(replica, key) is None


async def test_a_bucket_expires_when_it_is_full(replica: Replica, key: str) -> None:
    limit = Limit(3, 0.1)
    await passed(replica.limiter, key, limit, 5)

    async def gone() -> None:
        assert await held(replica, key) is None

    await eventually(gone, within=5)
    for takings in (1, 2):
        await take(replica.limiter, key, LONG)
        left = await replica.redis.run(lambda client: client.pttl(f"{PREFIX}:{key}"))
        assert takings * LONG.interval_seconds - 5 < left / 1000 <= takings * LONG.interval_seconds + 0.1


async def test_a_bucket_is_kept_as_whole_microseconds(replica: Replica, key: str) -> None:
    limit = Limit(1, 1e9)
    await take(replica.limiter, key, limit)
    value = await held(replica, key)
    assert value is not None
    assert value.isdigit()
    assert abs(int(value) / 1e6 - time.time() - limit.interval_seconds) < 60
    assert await take(replica.limiter, key, limit) == pytest.approx(1e9, abs=60)


class Clock:
    """A clock that the test sets, also for the scripts in Redis."""

    key = f"{PREFIX}-clock"

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        # Later than the real time, so that Redis does not expire the buckets.
        self.microseconds = 2_500_000_000_000_000

    def __call__(self) -> float:
        return self.microseconds / 1_000_000

    async def advance(self, microseconds: int) -> None:
        self.microseconds += microseconds
        seconds, rest = divmod(self.microseconds, 1_000_000)
        await self._redis.run(lambda client: client.hset(self.key, mapping={"seconds": seconds, "microseconds": rest}))


@pytest.fixture
def timed(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> RateLimiter:
    """A limiter whose scripts read the time of Clock. Otherwise they are the real scripts."""
    for name in ("TAKE", "GIVE_BACK"):
        source: str = getattr(rate_limit, name)
        assert source.count("redis.call('TIME')") == 1
        monkeypatch.setattr(rate_limit, name, source.replace("'TIME'", f"'HMGET', '{Clock.key}', 'seconds', 'microseconds'"))
    return RateLimiter(replica.redis, CollectorRegistry(), prefix=PREFIX)


@pytest.fixture
async def clock(replica: Replica) -> Clock:
    clock = Clock(replica.redis)
    await clock.advance(0)
    return clock


async def test_the_wait_is_right_to_the_microsecond(replica: Replica, timed: RateLimiter, clock: Clock, key: str) -> None:
    limit = Limit(2, 0.5)
    assert [await take(timed, key, limit) for _ in range(4)] == [0.0, 0.0, 0.5, 0.5]
    await clock.advance(499_999)
    before = await held(replica, key)
    assert await take(timed, key, limit) == 0.000001
    assert await held(replica, key) == before
    await clock.advance(1)
    assert [await take(timed, key, limit) for _ in range(2)] == [0.0, 0.5]
    await clock.advance(1_000_000)
    assert await passed(timed, key, limit, 5) == 2


async def test_a_clock_that_is_set_back_locks_nobody_out(timed: RateLimiter, clock: Clock, key: str) -> None:
    assert await passed(timed, key, LONG, LONG.burst) == LONG.burst
    await clock.advance(-3600 * 1_000_000)
    assert await take(timed, key, LONG) == LONG.interval_seconds
    await clock.advance(1000 * 1_000_000)
    assert await passed(timed, key, LONG, 2) == 1


async def test_a_smaller_limit_takes_over_what_was_left_of_a_larger_one(timed: RateLimiter, clock: Clock, key: str) -> None:
    assert await passed(timed, key, Limit(100, 60.0), 100) == 100
    assert await take(timed, key, Limit(2, 1.0)) == 1.0
    await clock.advance(1_000_000)
    assert await passed(timed, key, Limit(2, 1.0), 2) == 1
    assert await passed(timed, key, Limit(100, 60.0), 100) == 99
    await timed.give_back(key, Limit(2, 1.0), ANYBODY)
    assert await passed(timed, key, Limit(2, 1.0), 2) == 1


limits = st.builds(Limit, st.integers(1, 5), st.integers(1, 3_000_000).map(lambda microseconds: microseconds / 1_000_000))
# Steps that end exactly on a bound matter most, and random numbers would rarely reach them.
steps = st.sampled_from([0, 1, 250_000, 499_999, 500_000, 500_001, 1_000_000]) | st.integers(0, 4_000_000)
acts = st.sampled_from(["take", "take", "give_back"]) | steps


class Model:
    """A bucket in its simple form: the number that it holds, as a fraction."""

    def __init__(self, limit: Limit) -> None:
        self._burst, self._interval = limit.burst, limit.microseconds[0]
        self._held = Fraction(limit.burst)

    def advance(self, microseconds: int) -> None:
        self._held = min(self._held + Fraction(microseconds, self._interval), Fraction(self._burst))

    def take(self) -> float:
        if self._held < 1:
            return float((1 - self._held) * self._interval) / 1_000_000
        self._held -= 1
        return 0.0

    def give_back(self) -> None:
        self._held = min(self._held + 1, Fraction(self._burst))


@settings(max_examples=500)
@given(limit=limits, sequence=st.lists(acts, max_size=40))
@example(limit=Limit(2, 0.5), sequence=["take", "take", "take", 499_999, "take", 1, "take", "give_back", "give_back", "give_back", *["take"] * 3])
def test_the_stand_in_decides_as_a_bucket_does(limit: Limit, sequence: list[str | int]) -> None:
    microseconds = 1_000_000_000
    buckets, model = LocalBuckets(10, lambda: microseconds / 1_000_000), Model(limit)
    for act in sequence:
        if act == "take":
            assert buckets.take("key", limit, ANYBODY).seconds == model.take()
        elif act == "give_back":
            buckets.give_back("key", limit, ANYBODY)
            model.give_back()
        else:
            microseconds += int(act)
            model.advance(int(act))


# The limit may change at each step, and the clock may be set back. Holders end their reservations or do not, in any order.
holders = st.sampled_from(["a", "b", "c"])
wild = st.tuples(st.sampled_from(["take", "take", "give_back", "spend"]), limits, holders) | steps | st.sampled_from([-4_000_000, -1, 61_000_000])


@settings(max_examples=150)
@given(sequence=st.lists(wild, max_size=25))
async def test_redis_and_the_stand_in_decide_alike(
    timed: RateLimiter, replica: Replica, clock: Clock, sequence: list[tuple[str, Limit, str] | int]
) -> None:
    key, buckets = str(uuid4()), LocalBuckets(10, clock)
    for act in sequence:
        if isinstance(act, int):
            await clock.advance(act)
            continue
        what, limit, holder = act
        if what == "take":
            assert await timed.take(key, limit, holder) == buckets.take(key, limit, holder)
        elif what == "spend":
            await timed.spend(key, holder)
            buckets.spend(key, holder)
        else:
            await timed.give_back(key, limit, holder)
            buckets.give_back(key, limit, holder)
            assert (await held(replica, key) is None) == (len(buckets) == 0)


async def test_a_refusal_says_how_long_the_wait_is_without_what_is_under_way(timed: RateLimiter, clock: Clock, key: str) -> None:
    limit = Limit(3, 10.0)
    assert [await timed.take(key, limit, holder) for holder in "abc"] == [(0, 0)] * 3
    assert await timed.take(key, limit, "d") == (10.0, 0)
    await timed.spend(key, "a")
    await timed.spend(key, "b")
    assert await timed.take(key, limit, "d") == (10.0, 0)
    await timed.spend(key, "c")
    assert await timed.take(key, limit, "d") == (10.0, 10.0)
    await clock.advance(10_000_000)
    assert await timed.take(key, limit, "d") == (0, 0)
    # All four count: two units short of three, one of them under way.
    assert await timed.take(key, limit, "e") == (10.0, 0)
    await timed.give_back(key, limit, "d")
    assert await timed.take(key, limit, "e") == (0, 0)


async def test_the_unit_of_a_holder_that_is_gone_counts_as_spent(timed: RateLimiter, clock: Clock, key: str) -> None:
    limit = Limit(1, 1000.0)
    assert await timed.take(key, limit, "gone") == (0, 0)
    await clock.advance(rate_limit.RESERVED_SECONDS * 1_000_000 - 1)
    assert (await timed.take(key, limit, "next")).least_seconds == 0
    await clock.advance(1)
    wait = await timed.take(key, limit, "next")
    assert wait.seconds == wait.least_seconds == 1000.0 - rate_limit.RESERVED_SECONDS


async def test_reservations_are_not_kept(replica: Replica, key: str) -> None:
    for holder in "ab":
        await replica.limiter.take(key, LONG, holder)
    left = await replica.redis.run(lambda client: client.pttl(f"{PREFIX}:{key}:reserved"))
    assert rate_limit.RESERVED_SECONDS - 5 < left / 1000 <= rate_limit.RESERVED_SECONDS + 0.1
    await replica.limiter.spend(key, "a")
    await replica.limiter.spend(key, "b")
    assert await held(replica, f"{key}:reserved") is None
