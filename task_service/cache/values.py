"""The values, leases and fences of a generation in Redis. Every method raises RedisUnavailable, also if Redis is not the process of the state.

A generation has one hash. Its marker field exists as long as no key of the generation was lost by a flush or an eviction of the hash. Its other
fields are the fenced tasks: `o` and a token while one write has fenced the task, `s` and tokens after several writes have at the same time, `x` after
more than MAX_TOKENS have. A task's own key has a value, a lease, or nothing.
"""

import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from servicekit.stores.redis import Redis
from task_service.cache.domain import State

LEASE_MILLISECONDS: Final = 5_000
# The hash of a generation that nobody keeps any more is removed after this time.
HASH_MILLISECONDS: Final = 600_000
MARKER: Final = "marker"
TOKEN_BYTES: Final = 12
MAX_TOKENS: Final = 64

# The first key of each script is the generation's hash; the others are the keys of tasks. A task's field in the hash is the end of its key.

# ARGV: the hash's lifetime in ms. Returns the replication id.
MARK: Final = f"""
redis.call('HSET', KEYS[1], '{MARKER}', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
"""
# ARGV: the hash's lifetime in ms, the replication id. Returns the number of fenced tasks, or -1 if the marker is lost or the id is another one.
KEEP: Final = f"""
local replication = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 or replication ~= ARGV[2] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('HLEN', KEYS[1]) - 1
"""
# ARGV: the lease, its lifetime in ms, the field. Returns 1 if the lease was taken.
TAKE_LEASE: Final = f"""
if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 or redis.call('HEXISTS', KEYS[1], ARGV[3]) == 1 then return 0 end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
# ARGV: the lease, the value, its lifetime in ms.
FILL: Final = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
"""
# ARGV: the token, the fields. Returns 0 if the marker is lost.
FENCE: Final = f"""
if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 then return 0 end
for i = 2, #KEYS do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  local fence = 'o' .. ARGV[1]
  if held then fence = #held > {MAX_TOKENS * TOKEN_BYTES} and 'x' or 's' .. string.sub(held, 2) .. ARGV[1] end
  if held ~= 'x' then redis.call('HSET', KEYS[1], ARGV[i], fence) end
  redis.call('DEL', KEYS[i])
end
return 1
"""
# ARGV: the token, the fields, the value or '' for none, its lifetime in ms. To run it twice has the effect of once.
FINISH: Final = """
local value, lifetime = ARGV[#ARGV - 1], ARGV[#ARGV]
for i = 2, #KEYS do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  local at = held and string.find(held, ARGV[1], 2, true)
  if at then
    local rest = string.sub(held, 1, at - 1) .. string.sub(held, at + #ARGV[1])
    if #rest > 1 then
      redis.call('HSET', KEYS[1], ARGV[i], rest)
    else
      redis.call('HDEL', KEYS[1], ARGV[i])
      if rest == 'o' and value ~= '' then redis.call('SET', KEYS[i], value, 'PX', lifetime) end
    end
  end
end
"""


class CachedValues:
    """What Redis holds of tasks, by the state's generation, user id and task id."""

    def __init__(self, redis: Redis, value_seconds: float) -> None:
        self._redis = redis
        self._value_milliseconds = round(value_seconds * 1000)
        self._mark, self._keep, self._take_lease = redis.script(MARK), redis.script(KEEP), redis.script(TAKE_LEASE)
        self._fill, self._fence, self._finish = redis.script(FILL), redis.script(FENCE), redis.script(FINISH)

    @property
    def process(self) -> str | None:
        """The run id of the Redis process that this replica reaches, or None."""
        return self._redis.process

    def reconnect(self) -> None:
        """See GenerationKeys.reconnect."""
        self._redis.reconnect()

    async def mark(self, generation: UUID, process: str) -> str:
        """See GenerationKeys.mark."""
        replication: bytes = await self._mark([_hash(generation)], [HASH_MILLISECONDS], process=process)
        return replication.decode()

    async def keep(self, state: State) -> int | None:
        """See GenerationKeys.keep. It also keeps the generation's hash from expiring."""
        fenced: int = await self._keep([_hash(state.generation)], [HASH_MILLISECONDS, state.replication], process=state.process)
        return None if fenced < 0 else fenced

    async def get(self, state: State, user_id: UUID, task_id: UUID) -> bytes | None:
        """Returns the value or the lease of a task."""
        return await self._redis.get(f"{_hash(state.generation)}:{user_id}:{task_id}", process=state.process)

    async def take_lease(self, state: State, user_id: UUID, task_id: UUID) -> bytes | None:
        """Returns a lease, or None if another reader has one or a write has fenced the task."""
        lease = new_token()
        (field,), keys = _places(state, user_id, [task_id])
        taken: int = await self._take_lease(keys, [lease, LEASE_MILLISECONDS, field], process=state.process)
        return lease if taken else None

    async def fill(self, state: State, user_id: UUID, task_id: UUID, lease: bytes, value: bytes) -> None:
        """Stores the value if the lease is still there."""
        _, keys = _places(state, user_id, [task_id])
        await self._fill(keys, [lease, value, self._value_milliseconds], process=state.process)

    async def fence(self, state: State, user_id: UUID, task_ids: Sequence[UUID], token: bytes) -> bool:
        """Fences the tasks for one write, which deletes their values and leases. Returns False, and fences nothing, if the hash was lost."""
        fields, keys = _places(state, user_id, task_ids)
        fenced: int = await self._fence(keys, [token, *fields], process=state.process)
        return bool(fenced)

    async def finish(self, state: State, user_id: UUID, task_ids: Sequence[UUID], token: bytes, value: bytes = b"") -> None:
        """Removes the write's fences. Stores the value if one is given, and no other write has shared the fence."""
        fields, keys = _places(state, user_id, task_ids)
        await self._finish(keys, [token, *fields, value, self._value_milliseconds], process=state.process)


def new_token() -> bytes:
    """Returns a token for a fence."""
    return secrets.token_bytes(TOKEN_BYTES)


def _hash(generation: UUID) -> str:
    return f"task:3:{generation}"


def _places(state: State, user_id: UUID, task_ids: Sequence[UUID]) -> tuple[list[str], list[str]]:
    """Returns the fields of the tasks in the generation's hash, and the hash's key followed by the keys of the tasks."""
    fields = [f"{user_id}:{task_id}" for task_id in task_ids]
    generation = _hash(state.generation)
    return fields, [generation, *(f"{generation}:{field}" for field in fields)]
