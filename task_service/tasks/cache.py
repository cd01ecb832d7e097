"""Caches tasks in Redis: a decorator over the repository that never returns a task older than an acknowledged write.

A key holds a value, a lease or a fence. A reader that finds no key sets a lease, reads the repository, and fills in the value only if its lease is
still there. A write sets a fence before it begins; the fence outlives the longest possible transaction. If the key holds another write's fence, the
write replaces it with an anonymous fence. After the commit, the write replaces its own fence with the value, leaves an anonymous fence to expire, and
deletes anything else. A write whose outcome is unknown leaves its fence to expire. A write of several tasks fences all of them and stores no values.

If Redis is down, reads and writes use only the repository. If the finish of a write fails, its keys are suspect: the replica remembers them and
deletes them before it uses Redis again. A write whose fence failed deletes its keys when it finishes, or makes them suspect. Such a write is also
recorded in PostgreSQL, because this process may die before it deletes them. When Redis is available again, writes set fences at once. Reads use the
cache again only when every replica must have noticed that Redis is back (`Redis.settled`).

Exception: if one replica is cut off from a Redis that others reach, the others may return values from before its writes, until the replica's circuit
breaker closes and it deletes its suspect keys, or until the values expire.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Final
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from servicekit import deadline
from servicekit.errors import DependencyUnavailable, RedisUnavailable
from servicekit.rpc.retry import Idempotency
from servicekit.stores.redis import Redis
from task_service.query.list_query import ListQuery, Position
from task_service.tasks.domain import Actor, Listed, Task
from task_service.tasks.encoding import decode, encode
from task_service.tasks.errors import WriteRefused
from task_service.tasks.service import TaskRepository
from task_service.tasks.writes import Creation, Operations, Written

# The first byte of the content of a key. An anonymous fence is the single byte `a`.
VALUE, LEASE, FENCE = b"v", b"l", b"f"
# Stands for a fence that could not be set. No key ever holds it.
NO_FENCE = b"-"

LEASE_MILLISECONDS: Final = 5_000
# A replica remembers no more suspect keys than this. Beyond it, the replica does not use the cache until every value from before has expired.
MAX_SUSPECT_KEYS: Final = 100_000
DELETE_BATCH: Final = 500

# KEYS; ARGV: own fence, its lifetime in ms. Sets the own fence, or an anonymous fence where a key already holds a fence.
SET_FENCE: Final = """
for _, key in ipairs(KEYS) do
  local kind = string.sub(redis.call('GET', key) or '', 1, 1)
  local fence = (kind == 'f' or kind == 'a') and 'a' or ARGV[1]
  redis.call('SET', key, fence, 'PX', ARGV[2])
end
"""
# KEYS; ARGV: own fence, the value or '' for none, its lifetime in ms. Runs after the write.
FINISH: Final = """
for _, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held ~= 'a' then
    if held == ARGV[1] and ARGV[2] ~= '' then redis.call('SET', key, ARGV[2], 'PX', ARGV[3]) else redis.call('DEL', key) end
  end
end
"""
# KEYS[1]; ARGV: lease, the value, its lifetime in ms. Fills in the value if the lease is still there.
FILL: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
"""


class CachedTasks:
    """A TaskRepository over another one. `write_timeout_seconds` is the longest time in which a write of it commits or fails on the server."""

    def __init__(
        self, repository: TaskRepository, redis: Redis, registry: CollectorRegistry, *, value_seconds: float, write_timeout_seconds: float
    ) -> None:
        self._repository = repository
        self._redis = redis
        self._value_seconds = value_seconds
        self._value_milliseconds = round(value_seconds * 1000)
        self._fence_milliseconds = round(write_timeout_seconds * 2 * 1000)
        self._suspects = Suspects(value_seconds)
        redis.before_close(self._make_good)
        self._set_fence, self._set_finish, self._fill = map(redis.script, (SET_FENCE, FINISH, FILL))
        self._deleting: set[asyncio.Task[None]] = set()
        reads = Counter("task_cache_reads_total", "Reads of one task, by cache outcome.", ["outcome"], registry=registry)
        self._hit, self._miss, self._held, self._bypass = (reads.labels(outcome) for outcome in ("hit", "miss", "held", "bypass"))

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        """See TaskRepository.find."""
        if not self._redis.settled:
            self._bypass.inc()
            return await self._repository.find(user_id, task_id)
        key = key_of(user_id, task_id)
        try:
            held = await self._redis.get(key)
            if held is None:
                self._miss.inc()
                return await self._find_and_fill(key, user_id, task_id)
        except RedisUnavailable:
            self._bypass.inc()
            return await self._repository.find(user_id, task_id)
        if held[:1] == VALUE and (task := decode(user_id, task_id, held[1:])) is not None:
            self._hit.inc()
            return task
        # Another call holds a lease or a fence. This read has no lease, so it must not fill in its value.
        self._held.inc()
        return await self._repository.find(user_id, task_id)

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """See TaskRepository.list. Lists are not cached."""
        return await self._repository.list(query, after, skip, limit, with_total=with_total)

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """See TaskRepository.find_all. Not cached: one statement reads them all."""
        return await self._repository.find_all(user_id, task_ids)

    async def list_unfenced(self, seconds: float, limit: int) -> Sequence[tuple[UUID, UUID]]:
        """See TaskRepository.list_unfenced."""
        return await self._repository.list_unfenced(seconds, limit)

    async def write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None = None, *, unfenced: bool = False) -> Written:
        """See TaskRepository.write. A creation needs no fence, because nobody can have read the task before. The first reader fills in its value."""
        if isinstance(operations[0], Creation):
            return await self._repository.write(actor, operations, idempotency, unfenced=unfenced)
        keys = list({key_of(actor.user_id, operation.id): None for operation in operations})
        fence = await self._fence(keys)
        write = self._repository.write(actor, operations, idempotency, unfenced=unfenced or fence == NO_FENCE)
        return await self._fenced(keys, fence, write)

    async def start(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Waits for running deletions of suspect keys."""
        await asyncio.gather(*self._deleting, return_exceptions=True)

    async def _fenced(self, keys: Sequence[str], fence: bytes, write: Coroutine[None, None, Written]) -> Written:
        try:
            written = await write
        except WriteRefused:
            await self._finish(keys, fence, None)
            raise
        except BaseException:
            # The write may have been committed. Its own fence expires by itself. Without a fence, the keys are suspect.
            if fence == NO_FENCE:
                self._suspects.add(*keys)
            raise
        # A deletion leaves no value. The tasks of a replayed answer may be outdated.
        task = None if written.replayed or len(keys) > 1 or not written.tasks else written.tasks[-1]
        await self._finish(keys, fence, task)
        return written

    async def _find_and_fill(self, key: str, user_id: UUID, task_id: UUID) -> Task | None:
        lease = LEASE + secrets.token_bytes(12)
        taken = await self._redis.run(lambda client: client.set(key, lease, nx=True, px=LEASE_MILLISECONDS))
        task = await self._repository.find(user_id, task_id)
        if taken and task is not None:
            args = (lease, VALUE + encode(task), self._value_milliseconds)
            # A lost or late fill does no harm: it takes effect only while its lease is there.
            with contextlib.suppress(RedisUnavailable):
                await self._redis.run(lambda _: self._fill([key], args))
        return task

    async def _fence(self, keys: Sequence[str]) -> bytes:
        """Sets a fence on each key and returns it. If Redis is unavailable, returns NO_FENCE, with which the finish deletes the keys."""
        fence = FENCE + secrets.token_bytes(12)
        try:
            await self._redis.run(lambda _: self._set_fence(keys, (fence, self._fence_milliseconds)))
        except RedisUnavailable:
            return NO_FENCE
        return fence

    async def _finish(self, keys: Sequence[str], fence: bytes, task: Task | None) -> None:
        """Runs after the write was committed or rejected. If it fails or is cancelled, the keys become suspect."""
        try:
            value = VALUE + encode(task) if task is not None else b""
            await self._redis.run(lambda _: self._set_finish(keys, (fence, value, self._value_milliseconds)))
        except RedisUnavailable:
            self._suspects.add(*keys)
        except BaseException:
            self._suspects.add(*keys)
            deleting = asyncio.create_task(self._delete_suspects())
            self._deleting.add(deleting)
            deleting.add_done_callback(self._deleting.discard)
            raise

    async def _make_good(self, client: Client) -> None:
        """Runs before Redis is used again. Deletes the keys of tasks written without Redis, by this replica or by one that may have died."""
        try:
            unfenced = await self._repository.list_unfenced(self._value_seconds, MAX_SUSPECT_KEYS + 1)
        except DependencyUnavailable as error:
            raise RedisError("it is not known what was written without Redis") from error
        self._suspects.add(*(key_of(user_id, task_id) for user_id, task_id in unfenced))
        await self._suspects.delete(client)

    async def _delete_suspects(self) -> None:
        deadline.clear()
        # If this fails, the circuit breaker is open. It deletes the keys before it closes.
        with contextlib.suppress(RedisUnavailable):
            await self._redis.run(self._suspects.delete)


class Suspects:
    """Keys that may hold old values. The replica uses Redis again only after they were deleted or have expired."""

    def __init__(self, value_seconds: float) -> None:
        self._value_seconds = value_seconds
        self._keys: set[str] = set()
        self._unknown_until = float("-inf")

    def add(self, *keys: str) -> None:
        """Remembers the keys. If that would exceed MAX_SUSPECT_KEYS, it only remembers until when unknown keys may hold old values."""
        if len(self._keys) + len(keys) <= MAX_SUSPECT_KEYS:
            self._keys.update(keys)
        else:
            self._unknown_until = time.monotonic() + self._value_seconds

    async def delete(self, client: Client) -> None:
        """Deletes the keys from Redis. Raises RedisError if that fails, or if keys that were not remembered may still hold old values."""
        if time.monotonic() < self._unknown_until:
            raise RedisError("values that are not remembered may still be there")
        while self._keys:
            # Taken out before the deletion, because a key that becomes suspect again during the deletion must stay.
            batch = [self._keys.pop() for _ in range(min(len(self._keys), DELETE_BATCH))]
            try:
                await client.delete(*batch)
            except BaseException:
                self._keys.update(batch)
                raise


def key_of(user_id: UUID, task_id: UUID) -> str:
    """Returns the Redis key of a task. The number in it is the version of the value's encoding."""
    return f"task:2:{user_id}:{task_id}"
