"""The limiter with its Redis client, as in one process, and what the tests do with it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client import CollectorRegistry

from servicekit.access.rate_limit import Limit, RateLimiter
from servicekit.stores.redis import Redis

PREFIX = "test-limit"
# The interval is so long that no bucket is refilled while a test runs.
LONG = Limit(3, 1000.0)
# The holder of the units in the tests that are not about reservations.
ANYBODY = "anybody"


class Figures(CollectorRegistry):
    """The metrics of the limiter and of the circuit breaker."""

    @property
    def local(self) -> float | None:
        return self.get_sample_value("rate_limit_local_total")

    @property
    def open(self) -> float | None:
        return self.get_sample_value("redis_breaker_open")


@dataclass(frozen=True)
class Replica:
    """A limiter with its Redis client, as in one process."""

    redis: Redis
    limiter: RateLimiter
    figures: Figures


ReplicaFactory: TypeAlias = Callable[[str], Awaitable[Replica]]


async def held(replica: Replica, key: str) -> bytes | None:
    return await replica.redis.get(f"{PREFIX}:{key}")


async def take(limiter: RateLimiter, key: str, limit: Limit) -> float:
    """Takes a unit. Returns the wait."""
    return (await limiter.take(key, limit, ANYBODY)).seconds


async def passed(limiter: RateLimiter, key: str, limit: Limit, attempts: int) -> int:
    """Makes `attempts` takes one after the other. Returns how many succeeded."""
    return [await take(limiter, key, limit) for _ in range(attempts)].count(0.0)
