"""Rate limits by GCRA, the generic cell rate algorithm (ITU-T I.371), in Redis for all replicas together. Knows nothing of what is limited.

A bucket is one number: when it will be full again, in microseconds. Each taking moves that an interval further, and is refused if it would then be
more than `burst` intervals away. A bucket that is full is not kept.

Contract: the time is Redis's own, so that the replicas' clocks do not matter, and each command is atomic. While Redis is away each process limits by
itself, with the same algorithm in memory: n replicas give n times the limit. A taking whose outcome is not known is decided by the process as well;
it may then have been taken in both places. What was taken without Redis is not told to it when it returns: a Redis that returns empty begins with
full buckets, one that kept them goes on with what has been refilled meanwhile. Redis may also evict a bucket, which is then full.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter

from servicekit.errors import RedisUnavailable

T = TypeVar("T")

MICROSECONDS: Final = 1_000_000
# A hundred years. Lua has only doubles, which are exact up to 2**53: in microseconds that is the year 2255, and no bucket may be full later.
MAX_REFILL_SECONDS: Final = 100 * 365 * 86_400

# Before a bucket is used it is brought within its bounds, now and now + refill: a limit may have been changed, and after a failover the clock may be
# another one, which must not lock anybody out. `%.0f` since Lua would write such numbers as 1.7e+15.

# KEYS[1], ARGV: the interval, the time in which an empty bucket is refilled. Returns how long to wait, 0 if there was one. Microseconds.
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
# KEYS[1], ARGV: as of TAKE.
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
    """`burst` at once, then one each `interval_seconds`."""

    burst: int
    interval_seconds: float

    def __post_init__(self) -> None:
        if self.burst < 1 or not 1 / MICROSECONDS <= self.interval_seconds <= MAX_REFILL_SECONDS / self.burst:
            raise ValueError(f"{self}: burst must be at least 1, the interval at least a microsecond, and both together at most a hundred years")

    @property
    def microseconds(self) -> tuple[int, int]:
        """The interval, and the time in which an empty bucket is refilled."""
        interval = round(self.interval_seconds * MICROSECONDS)
        return interval, interval * self.burst


class Scripts(Protocol):
    """Runs Lua scripts in Redis: see servicekit.stores.redis.Redis. A Protocol, so that a use case can name a Limit without importing redis."""

    def script(self, source: str) -> Callable[[Sequence[str], Sequence[bytes | int]], Awaitable[Any]]:
        """The script as a function of keys and arguments, to be called within `run`."""

    async def run(self, command: Callable[[Any], Awaitable[T]]) -> T:
        """Runs the command. Raises RedisUnavailable or DeadlineExceeded."""


class RateLimiter:
    """Buckets by key, in Redis under `prefix:key`. Keys are stored and sent as they are: whoever makes them of personal data hashes it.

    One key has one limit; where the limit is changed, the bucket goes on within the new one. One limiter serves all limits of a process.
    """

    def __init__(
        self, redis: Scripts, registry: CollectorRegistry, *, prefix: str, capacity: int = 10_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`capacity`: the buckets that are kept while Redis is away; `now`: the clock of these, in seconds."""
        self._redis = redis
        self._prefix = prefix
        self._local = LocalBuckets(capacity, now)
        self._take, self._give_back = map(redis.script, (TAKE, GIVE_BACK))
        self._decided_locally = Counter("rate_limit_local_total", "Decisions made without Redis.", registry=registry)

    async def take(self, key: str, limit: Limit) -> float:
        """Takes one from the key's bucket.

        0.0 if there was one, else the seconds until there is one; then nothing was taken. Raises DeadlineExceeded; then one may have been taken.
        """
        try:
            wait: int = await self._redis.run(lambda _: self._take([f"{self._prefix}:{key}"], limit.microseconds))
        except RedisUnavailable:
            self._decided_locally.inc()
            return self._local.take(key, limit)
        return wait / MICROSECONDS

    async def give_back(self, key: str, limit: Limit) -> None:
        """Puts one back that was taken (an attempt that turned out to be good). A bucket never has more than its burst. Raises DeadlineExceeded.

        It is put back where it can be now, in Redis or in the process, wherever it was taken.
        """
        try:
            await self._redis.run(lambda _: self._give_back([f"{self._prefix}:{key}"], limit.microseconds))
        except RedisUnavailable:
            self._local.give_back(key, limit)


class LocalBuckets:
    """The same buckets in the memory of this process, at most `capacity`: the least recently used is forgotten first, and is then full."""

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
