"""Rate limits by GCRA, the generic cell rate algorithm (ITU-T I.371), in Redis for all replicas together. The callers decide what a bucket limits.

A bucket is stored as one number: the time at which it will be full again, in microseconds. Each take moves that time one interval later. A take is
refused if the time would then be more than `burst` intervals from now. A full bucket is not stored.

A taken unit is reserved for its holder, an attempt under way, until the holder gives it back or spends it. A refusal says how long the wait is, and
how long it would be if all holders gave their units back, because an attempt under way is no failed attempt. If a holder does neither, its unit
counts as spent after RESERVED_SECONDS.

Contract: the time is Redis's own, so that the replicas' clocks do not matter, and each command is atomic. While Redis is unavailable, each process
limits by itself, with the same algorithm in memory: n replicas allow n times the limit. If the outcome of a take is unknown, the process also decides
it by itself; the take may then count in both places. When Redis is available again, it does not learn what the processes took without it. A Redis
that returns empty starts with full buckets. A Redis that kept its buckets continues with them, refilled for the time in between. Redis may also
evict a bucket, which is then full.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter

from servicekit.errors import RedisUnavailable

MICROSECONDS: Final = 1_000_000
# 100 years. Lua has only doubles, which are exact up to 2**53. In microseconds, that is the year 2255: no bucket may become full later than that.
MAX_REFILL_SECONDS: Final = 100 * 365 * 86_400

# Before use, each script limits the bucket's time to the range from now to now + refill: the limit may have changed, and after a failover Redis's
# clock may differ, which must not lock out a client. `%.0f`, because Lua would format such numbers as 1.7e+15.

# KEYS: the bucket and its reservations, a sorted set of holders by the time at which each reservation ends. ARGV: the interval, the time to refill an
# empty bucket, the duration of a reservation, the holder. Returns the wait, 0 if a unit was taken, and the wait if all holders gave their units back.
# All times in microseconds.
TAKE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, empty_at = tonumber(ARGV[1]), now + tonumber(ARGV[2])
local full_at = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or now), now), empty_at)
if full_at <= now then redis.call('DEL', KEYS[2]) end
local wait = math.max(full_at + interval - empty_at, 0)
local least = wait
if wait == 0 then
  full_at = full_at + interval
  local until_time = string.format('%.0f', now + tonumber(ARGV[3]))
  redis.call('ZADD', KEYS[2], until_time, ARGV[4])
  redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', math.ceil((now + tonumber(ARGV[3])) / 1000)))
else
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
  least = math.max(wait - redis.call('ZCARD', KEYS[2]) * interval, 0)
end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PXAT', string.format('%.0f', math.ceil(full_at / 1000)))
return {wait, least}
"""
# KEYS: as for TAKE. ARGV: the interval, the time to refill an empty bucket, the holder.
GIVE_BACK: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, empty_at = tonumber(ARGV[1]), now + tonumber(ARGV[2])
local full_at = math.min(tonumber(redis.call('GET', KEYS[1]) or now), empty_at) - interval
if full_at > now then
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PXAT', string.format('%.0f', math.ceil(full_at / 1000)))
  redis.call('ZREM', KEYS[2], ARGV[3])
else
  redis.call('DEL', KEYS[1], KEYS[2])
end
"""
# KEYS[1]: the reservations. ARGV[1]: the holder.
SPEND: Final = "redis.call('ZREM', KEYS[1], ARGV[1])"
# Longer than a call, so it ends the reservation only of a holder that is gone.
RESERVED_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Limit:
    """Allows `burst` units at once, then one unit every `interval_seconds`."""

    burst: int
    interval_seconds: float

    def __post_init__(self) -> None:
        if self.burst < 1 or not 1 / MICROSECONDS <= self.interval_seconds <= MAX_REFILL_SECONDS / self.burst:
            raise ValueError(f"{self}: burst must be at least 1, the interval at least a microsecond, and both together at most a hundred years")

    @property
    def microseconds(self) -> tuple[int, int]:
        """The interval, and the time to refill an empty bucket."""
        interval = round(self.interval_seconds * MICROSECONDS)
        return interval, interval * self.burst


class Wait(NamedTuple):
    """The seconds until a bucket has a unit again; 0 if a unit was taken.

    `least_seconds` is the wait if all attempts under way give their units back.
    """

    seconds: float
    least_seconds: float


class Scripts(Protocol):
    """Runs Lua scripts in Redis: see servicekit.stores.redis.Redis. A Protocol, so that a use case can name a Limit without importing redis."""

    def script(self, source: str) -> Callable[[Sequence[str], Sequence[bytes | int | str]], Awaitable[Any]]:
        """Returns the script as a function of keys and arguments. It raises RedisUnavailable or DeadlineExceeded."""


class RateLimiter:
    """Buckets by key, in Redis under `prefix:key`. Keys are stored and sent unchanged: a caller that makes a key of personal data must hash it.

    Each key has one limit. If the limit changes, the bucket continues within the new limit. One limiter serves all limits of a process.
    """

    def __init__(
        self, redis: Scripts, registry: CollectorRegistry, *, prefix: str, capacity: int = 10_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`capacity`: the number of buckets in memory while Redis is unavailable. `now`: the clock of these buckets, in seconds."""
        self._prefix = prefix
        self._local = LocalBuckets(capacity, now)
        self._take, self._give_back, self._spend = map(redis.script, (TAKE, GIVE_BACK, SPEND))
        self._decided_locally = Counter("rate_limit_local_total", "Decisions made without Redis.", registry=registry)

    async def take(self, key: str, limit: Limit, holder: str) -> Wait:
        """Takes one unit from the key's bucket and reserves it for the holder, or takes nothing.

        Raises DeadlineExceeded; then the unit may have been taken.
        """
        try:
            wait: Sequence[int] = await self._take(self._keys(key), [*limit.microseconds, RESERVED_SECONDS * MICROSECONDS, holder])
        except RedisUnavailable:
            self._decided_locally.inc()
            return self._local.take(key, limit, holder)
        return _wait(*wait)

    async def give_back(self, key: str, limit: Limit, holder: str) -> None:
        """Puts the holder's unit back. A bucket never holds more units than its burst. Raises DeadlineExceeded.

        Puts the unit back in Redis if Redis is available now, otherwise in this process, no matter where the unit was taken.
        """
        try:
            await self._give_back(self._keys(key), [*limit.microseconds, holder])
        except RedisUnavailable:
            self._local.give_back(key, limit, holder)

    async def spend(self, key: str, holder: str) -> None:
        """Ends the reservation of the holder's unit, which stays taken. Raises DeadlineExceeded."""
        try:
            await self._spend(self._keys(key)[1:], [holder])
        except RedisUnavailable:
            self._local.spend(key, holder)

    def _keys(self, key: str) -> Sequence[str]:
        return [f"{self._prefix}:{key}", f"{self._prefix}:{key}:reserved"]


@dataclass(slots=True)
class _Bucket:
    """A bucket in memory: when it will be full, and the ends of its reservations by holder, in microseconds."""

    full_at: int
    reserved: dict[str, int] = field(default_factory=dict)


class LocalBuckets:
    """The same buckets in this process's memory, at most `capacity`. Beyond it, the least recently used bucket is dropped, and is then full."""

    def __init__(self, capacity: int, now: Callable[[], float]) -> None:
        self._capacity = capacity
        self._now = now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, limit: Limit, holder: str) -> Wait:
        """See RateLimiter.take."""
        now, (interval, refill) = self._microseconds(), limit.microseconds
        empty_at = now + refill
        bucket = self._buckets.pop(key, None)
        if bucket is None or bucket.full_at <= now:
            bucket = _Bucket(now)
        bucket.full_at = min(bucket.full_at, empty_at)
        wait = least = max(bucket.full_at + interval - empty_at, 0)
        if wait == 0:
            bucket.full_at += interval
            bucket.reserved[holder] = now + RESERVED_SECONDS * MICROSECONDS
        else:
            bucket.reserved = {holder: end for holder, end in bucket.reserved.items() if end > now}
            least = max(wait - len(bucket.reserved) * interval, 0)
        self._buckets[key] = bucket
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return _wait(wait, least)

    def give_back(self, key: str, limit: Limit, holder: str) -> None:
        """See RateLimiter.give_back."""
        now, (interval, refill) = self._microseconds(), limit.microseconds
        bucket = self._buckets.pop(key, None)
        if bucket is not None:
            bucket.full_at = min(bucket.full_at, now + refill) - interval
            bucket.reserved.pop(holder, None)
            if bucket.full_at > now:
                self._buckets[key] = bucket

    def spend(self, key: str, holder: str) -> None:
        """See RateLimiter.spend."""
        if (bucket := self._buckets.get(key)) is not None:
            bucket.reserved.pop(holder, None)

    def _microseconds(self) -> int:
        return round(self._now() * MICROSECONDS)


def _wait(microseconds: int, least_microseconds: int) -> Wait:
    return Wait(microseconds / MICROSECONDS, least_microseconds / MICROSECONDS)
