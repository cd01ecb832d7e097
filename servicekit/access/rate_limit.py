"""Rate limits by GCRA, the generic cell rate algorithm (ITU-T I.371), in Redis for all replicas together. The callers decide what a bucket limits.

A bucket is stored as one number: the time at which it will be full again, in microseconds. Each take moves that time one interval later. A take is
refused if the time would then be more than `burst` intervals from now. A full bucket is not stored.

Contract: the time is Redis's own, so that the replicas' clocks do not matter, and each command is atomic. While Redis is unavailable, each process
limits by itself, with the same algorithm in memory: n replicas allow n times the limit. If the outcome of a take is unknown, the process also decides
it by itself; the take may then count in both places. When Redis is available again, it does not learn what the processes took without it. A Redis
that returns empty starts with full buckets. A Redis that kept its buckets continues with them, refilled for the time in between. Redis may also
evict a bucket, which is then full.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from servicekit.errors import RedisUnavailable

MICROSECONDS: Final = 1_000_000
# 100 years. Lua has only doubles, which are exact up to 2**53. In microseconds, that is the year 2255: no bucket may become full later than that.
MAX_REFILL_SECONDS: Final = 100 * 365 * 86_400

# Before use, each script limits the bucket's time to the range from now to now + refill: the limit may have changed, and after a failover Redis's
# clock may differ, which must not lock out a client. `%.0f`, because Lua would format such numbers as 1.7e+15.

# KEYS[1]; ARGV: the interval, the time to refill an empty bucket. Returns the time to wait, 0 if a unit was taken. All times in microseconds.
TAKE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, empty_at = tonumber(ARGV[1]), now + tonumber(ARGV[2])
local full_at = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or now), now), empty_at)
local wait = full_at + interval - empty_at
if wait <= 0 then full_at = full_at + interval end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PXAT', string.format('%.0f', math.ceil(full_at / 1000)))
return math.max(wait, 0)
"""
# KEYS[1]; ARGV: as for TAKE.
GIVE_BACK: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, empty_at = tonumber(ARGV[1]), now + tonumber(ARGV[2])
local full_at = math.min(tonumber(redis.call('GET', KEYS[1]) or now), empty_at) - interval
if full_at > now then
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PXAT', string.format('%.0f', math.ceil(full_at / 1000)))
else
  redis.call('DEL', KEYS[1])
end
"""


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
        self._take, self._give_back = map(redis.script, (TAKE, GIVE_BACK))
        self._decided_locally = Counter("rate_limit_local_total", "Decisions made without Redis.", registry=registry)

    async def take(self, key: str, limit: Limit) -> float:
        """Takes one unit from the key's bucket.

        Returns 0.0 if it took the unit. Otherwise it takes nothing and returns the seconds until a unit is available. Raises DeadlineExceeded; then
        the unit may have been taken.
        """
        try:
            wait: int = await self._take([f"{self._prefix}:{key}"], limit.microseconds)
        except RedisUnavailable:
            self._decided_locally.inc()
            return self._local.take(key, limit)
        return wait / MICROSECONDS

    async def give_back(self, key: str, limit: Limit) -> None:
        """Puts one taken unit back, because the attempt succeeded. A bucket never holds more units than its burst. Raises DeadlineExceeded.

        Puts the unit back in Redis if Redis is available now, otherwise in this process, no matter where the unit was taken.
        """
        try:
            await self._give_back([f"{self._prefix}:{key}"], limit.microseconds)
        except RedisUnavailable:
            self._local.give_back(key, limit)


class LocalBuckets:
    """The same buckets in this process's memory, at most `capacity`. Beyond it, the least recently used bucket is dropped, and is then full."""

    def __init__(self, capacity: int, now: Callable[[], float]) -> None:
        self._capacity = capacity
        self._now = now
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, limit: Limit) -> float:
        """See RateLimiter.take."""
        now, (interval, refill) = self._microseconds(), limit.microseconds
        empty_at = now + refill
        full_at = min(max(self._full_at.pop(key, now), now), empty_at)
        wait = full_at + interval - empty_at
        self._full_at[key] = full_at + interval if wait <= 0 else full_at
        if len(self._full_at) > self._capacity:
            self._full_at.popitem(last=False)
        return max(wait, 0) / MICROSECONDS

    def give_back(self, key: str, limit: Limit) -> None:
        """See RateLimiter.give_back."""
        now, (interval, refill) = self._microseconds(), limit.microseconds
        full_at = min(self._full_at.pop(key, now), now + refill) - interval
        if full_at > now:
            self._full_at[key] = full_at

    def _microseconds(self) -> int:
        return round(self._now() * MICROSECONDS)
