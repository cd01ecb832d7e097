"""Hot tasks in Redis: a decorator over the repository that never answers with something older than an acknowledged write.

A key holds a value, a lease or a fence. A miss takes a lease, and what it then read is filled in only while that lease stands. A write sets its
fence before it begins, outliving any time the transaction can take (over somebody else's fence: an anonymous one). After the commit its own fence
becomes the value, an anonymous one is left to expire, and anything else is deleted. A write whose outcome is not known leaves its fence to expire.
A write of several tasks fences all of them, and leaves no values.

Redis away: reads and writes go to the repository alone. Keys whose finish failed are remembered and deleted before Redis is used again; a write
whose fence failed deletes its key when it is done, or has it remembered: by this process, and by the write itself in the database, since the process
may not live until then. When Redis returns, writes set their fences at once and reads begin only
when every replica must have found out (`Redis.settled`). The one exception, bounded by the breaker's probe and the values' time to
live: a replica that is cut off from a Redis which others still reach.
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

# The first byte of what a key holds. An anonymous fence is the byte `a` alone.
VALUE, LEASE, FENCE = b"v", b"l", b"f"
# No key ever holds this.
NO_FENCE = b"-"

LEASE_MILLISECONDS: Final = 5_000
# More keys than this are not remembered; instead the cache stays unused until every value of before has expired.
MAX_SUSPECT_KEYS: Final = 100_000
DELETE_BATCH: Final = 500

# KEYS, ARGV: own fence, its milliseconds. Sets the own fence, or an anonymous one over somebody else's.
SET_FENCE: Final = """
for _, key in ipairs(KEYS) do
  local kind = string.sub(redis.call('GET', key) or '', 1, 1)
  local fence = (kind == 'f' or kind == 'a') and 'a' or ARGV[1]
  redis.call('SET', key, fence, 'PX', ARGV[2])
end
"""
# KEYS, ARGV: own fence, the value or '' for none, its milliseconds. What a commit leaves behind.
FINISH: Final = """
for _, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held ~= 'a' then
    if held == ARGV[1] and ARGV[2] ~= '' then redis.call('SET', key, ARGV[2], 'PX', ARGV[3]) else redis.call('DEL', key) end
  end
end
"""
# KEYS[1], ARGV: lease, the value, its milliseconds.
FILL: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
"""


class CachedTasks:
    """A TaskRepository over another one. `write_timeout_seconds` is the longest that a write of it can take to commit, or fail, on the server."""

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
        reads = Counter("task_cache_reads_total", "Reads of one task, by what the cache had.", ["outcome"], registry=registry)
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
        # Somebody reads or writes this task just now: what we read must not be kept, since we have no lease.
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
        """See TaskRepository.write. What is new has nothing to fence: nobody can have read it before; the first reader fills it in."""
        if isinstance(operations[0], Creation):
            return await self._repository.write(actor, operations, idempotency, unfenced=unfenced)
        keys = list({key_of(actor.user_id, operation.id): None for operation in operations})
        fence = await self._fence(keys)
        write = self._repository.write(actor, operations, idempotency, unfenced=unfenced or fence == NO_FENCE)
        return await self._fenced(keys, fence, write)

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Waits for deletions that are under way."""
        await asyncio.gather(*self._deleting, return_exceptions=True)

    async def _fenced(self, keys: Sequence[str], fence: bytes, write: Coroutine[None, None, Written]) -> Written:
        try:
            written = await write
        except WriteRefused:
            await self._finish(keys, fence, None)
            raise
        except BaseException:
            # It may have been committed. A fence of ours would expire by itself; without one the keys are suspect.
            if fence == NO_FENCE:
                self._suspects.add(*keys)
            raise
        # What is deleted leaves no value, and what is answered once more is of another time.
        task = None if written.replayed or len(keys) > 1 or not written.tasks else written.tasks[-1]
        await self._finish(keys, fence, task)
        return written

    async def _find_and_fill(self, key: str, user_id: UUID, task_id: UUID) -> Task | None:
        lease = LEASE + secrets.token_bytes(12)
        taken = await self._redis.run(lambda client: client.set(key, lease, nx=True, px=LEASE_MILLISECONDS))
        task = await self._repository.find(user_id, task_id)
        if taken and task is not None:
            args = (lease, VALUE + encode(task), self._value_milliseconds)
            # A fill that is lost or late does no harm: it counts only while its lease stands.
            with contextlib.suppress(RedisUnavailable):
                await self._redis.run(lambda _: self._fill([key], args))
        return task

    async def _fence(self, keys: Sequence[str]) -> bytes:
        """Sets a fence on each and returns it; what is returned while Redis is away fences nothing, so that the finish deletes."""
        fence = FENCE + secrets.token_bytes(12)
        try:
            await self._redis.run(lambda _: self._set_fence(keys, (fence, self._fence_milliseconds)))
        except RedisUnavailable:
            return NO_FENCE
        return fence

    async def _finish(self, keys: Sequence[str], fence: bytes, task: Task | None) -> None:
        """After a commit. A finish that fails makes the keys suspect; so the write of a caller that has left by now is not forgotten either."""
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
        """Before Redis is used again: deletes what was written without it, by this replica or by one that may be no more."""
        try:
            unfenced = await self._repository.list_unfenced(self._value_seconds, MAX_SUSPECT_KEYS + 1)
        except DependencyUnavailable as error:
            raise RedisError("it is not known what was written without Redis") from error
        self._suspects.add(*(key_of(user_id, task_id) for user_id, task_id in unfenced))
        await self._suspects.delete(client)

    async def _delete_suspects(self) -> None:
        deadline.clear()
        # If it fails, the breaker is open, and does it again before it closes.
        with contextlib.suppress(RedisUnavailable):
            await self._redis.run(self._suspects.delete)


class Suspects:
    """Keys that may hold something old. They are deleted before Redis is used again, or have expired by then."""

    def __init__(self, value_seconds: float) -> None:
        self._value_seconds = value_seconds
        self._keys: set[str] = set()
        self._unknown_until = float("-inf")

    def add(self, *keys: str) -> None:
        """Remembers keys, or, past the bound, that some are not remembered."""
        if len(self._keys) + len(keys) <= MAX_SUSPECT_KEYS:
            self._keys.update(keys)
        else:
            self._unknown_until = time.monotonic() + self._value_seconds

    async def delete(self, client: Client) -> None:
        """Deletes them from Redis. Raises RedisError if it cannot, or if values that were not remembered may still be there."""
        if time.monotonic() < self._unknown_until:
            raise RedisError("values that are not remembered may still be there")
        while self._keys:
            # Taken out beforehand: one that becomes suspect again while it is being deleted must stay.
            batch = [self._keys.pop() for _ in range(min(len(self._keys), DELETE_BATCH))]
            try:
                await client.delete(*batch)
            except BaseException:
                self._keys.update(batch)
                raise


def key_of(user_id: UUID, task_id: UUID) -> str:
    """The key of a task. The number is that of the value's encoding."""
    return f"task:2:{user_id}:{task_id}"
