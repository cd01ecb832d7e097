"""Caches tasks in Redis: a decorator over the repository that never returns a task older than an acknowledged write.

When replicas may rely on Redis, and what a write must do before and after it, is the protocol of docs/adr/0017-cache-protocol.md. In short: a reader
that finds nothing takes a lease, reads the repository, and fills in the value only if its lease is still there. A write fences its tasks before it
begins, so that nobody can take a lease. After the commit it removes its fences and stores the value. A write whose outcome is unknown leaves its
fences. A write of several tasks stores no values. If Redis is down, reads and writes use only the repository.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from prometheus_client import CollectorRegistry

from servicekit import deadline
from servicekit.errors import RedisUnavailable
from servicekit.meters import Counters
from servicekit.rpc.retry import Idempotency
from task_service.cache.domain import Mode, State
from task_service.cache.service import CacheState
from task_service.cache.values import CachedValues, new_token
from task_service.query.list_query import ListQuery, Position
from task_service.tasks.domain import Actor, Encoded, Listed, Task
from task_service.tasks.errors import CacheStateChanged, NotFenced
from task_service.tasks.writes import Creation, Operations, Written

R = TypeVar("R")
# A write below the cache. It gets the state of the cache, the tasks that are fenced, and what it must call if it fails: see FencedTasks.write.
FencedWrite = Callable[[State | None, Sequence[UUID], Callable[[], None]], Awaitable[R]]

# What a value begins with: this, the generation, the user's id and the task's id. The last byte is the version of the encoding: it grows when the
# bytes behind the ids get another meaning. A value with another beginning is a miss.
VALUE: Final = b"value\x04"
OUTCOMES: Final = ("hit", "absent", "leased", "fenced", "generation", "off", "expired", "process", "unavailable")


class FencedTasks(Protocol):
    """The repository below the cache: a TaskRepository whose writes compare the state of the cache."""

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        """See TaskRepository.find."""

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """See TaskRepository.find_all."""

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """See TaskRepository.list."""

    async def write(
        self,
        actor: Actor,
        operations: Operations,
        idempotency: Idempotency | None = None,
        *,
        state: State | None = None,
        fenced: Sequence[UUID] = (),
        on_failed: Callable[[], None] | None = None,
    ) -> Written:
        """See TaskRepository.write. Raises CacheStateChanged, and has changed nothing, if the cache has another state than `state` by then.

        Raises NotFenced, and has changed nothing, if the write would change a task that is not in `fenced`.

        `on_failed` is called after a failed write, once it is certain that the write is not running any more (see servicekit.stores.postgres).
        """


@dataclass(frozen=True, slots=True)
class Fence:
    """The fences of one write."""

    state: State
    user_id: UUID
    task_ids: Sequence[UUID]
    token: bytes


class CachedTasks:
    """A TaskRepository over another one. Its `find` returns Encoded, except for reads that did not use the cache."""

    def __init__(
        self, repository: FencedTasks, state: CacheState, values: CachedValues, encode: Callable[[Task], Encoded], registry: CollectorRegistry
    ) -> None:
        """`encode` returns a task as the bytes of an answer."""
        self._repository = repository
        self._state = state
        self._values = values
        self._encode = encode
        self._finishing: set[asyncio.Task[None]] = set()
        reads = Counters("task_cache_reads_total", "Reads of one task, by cache outcome.", ["outcome"], registry)
        self._count = {outcome: reads.labels(outcome).inc for outcome in OUTCOMES}

    async def find(self, user_id: UUID, task_id: UUID) -> Task | Encoded | None:
        """See TaskRepository.find."""
        state = self._state.relied_on
        if state is None or state.mode is not Mode.ON:
            self._count["expired" if state is None else "off"]()
            return await self._repository.find(user_id, task_id)
        try:
            held = await self._values.get(state, user_id, task_id)
            if held is None:
                return await self._find_and_fill(state, user_id, task_id)
        except RedisUnavailable:
            self._count["unavailable" if self._values.process is None else "process"]()
            return await self._repository.find(user_id, task_id)
        beginning = _beginning(state, user_id, task_id)
        if held.startswith(beginning):
            self._count["hit"]()
            return Encoded(held[len(beginning) :])
        self._count["generation" if held.startswith(VALUE[:-1]) else "leased"]()
        return await self._repository.find(user_id, task_id)

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """See TaskRepository.list. Lists are not cached."""
        return await self._repository.list(query, after, skip, limit, with_total=with_total)

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """See TaskRepository.find_all. Not cached: one statement reads them all."""
        return await self._repository.find_all(user_id, task_ids)

    async def write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None = None) -> Written:
        """See TaskRepository.write. A creation needs no fence, because nobody can have read the task before. The first reader fills in its value."""
        if isinstance(operations[0], Creation):
            return await self._repository.write(actor, operations, idempotency)
        task_ids = list({operation.id: None for operation in operations})

        async def write(state: State | None, fenced: Sequence[UUID], on_failed: Callable[[], None]) -> Written:
            return await self._repository.write(actor, operations, idempotency, state=state, fenced=fenced, on_failed=on_failed)

        written, fence = await self._write_fenced(actor.user_id, task_ids, write)
        return await self._written(written, fence)

    async def write_fenced(self, user_id: UUID, task_ids: Sequence[UUID], write: FencedWrite[R]) -> R:
        """Executes a write of another repository that changes these tasks, and others only if it names them in NotFenced."""
        result, fence = await self._write_fenced(user_id, task_ids, write)
        await self._finish(fence)
        return result

    async def _write_fenced(self, user_id: UUID, task_ids: Sequence[UUID], write: FencedWrite[R]) -> tuple[R, Fence | None]:
        while True:
            state, fence = await self._state.begin_write(partial(self._fence, user_id=user_id, task_ids=task_ids))
            try:
                return await write(state, task_ids, partial(self._finish_later, fence)), fence
            except CacheStateChanged:
                await self._state.has_changed(state)
            except NotFenced as error:
                # Usually these are all of them. More may come until the next try.
                task_ids = list({**dict.fromkeys(task_ids), **dict.fromkeys(error.task_ids)})

    async def start(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Waits until the fences of callers that have left are removed."""
        await asyncio.gather(*self._finishing, return_exceptions=True)

    async def _find_and_fill(self, state: State, user_id: UUID, task_id: UUID) -> Task | Encoded | None:
        lease = await self._values.take_lease(state, user_id, task_id)
        self._count["fenced" if lease is None else "absent"]()
        task = await self._repository.find(user_id, task_id)
        if lease is None or task is None:
            return task
        encoded = self._encode(task)
        # A lost or late fill does no harm: it takes effect only while its lease is there.
        with contextlib.suppress(RedisUnavailable):
            await self._values.fill(state, user_id, task_id, lease, _beginning(state, user_id, task_id) + encoded)
        return encoded

    async def _written(self, written: Written, fence: Fence | None) -> Written:
        """Finishes a committed write, and returns it with the bytes of its task if it has one."""
        # A deletion leaves no value. The tasks of a replayed answer may be outdated.
        if fence is None or written.replayed or len(fence.task_ids) > 1 or not written.tasks:
            await self._finish(fence)
            return written
        task = written.tasks[-1]
        encoded = self._encode(task)
        await self._finish(fence, _beginning(fence.state, fence.user_id, task.id) + encoded)
        return replace(written, encoded=encoded)

    async def _fence(self, state: State, user_id: UUID, task_ids: Sequence[UUID]) -> Fence | None:
        """Fences the tasks. Returns None if the generation has lost its keys. Raises RedisUnavailable."""
        fence = Fence(state, user_id, task_ids, new_token())
        try:
            return fence if await self._values.fence(state, user_id, task_ids, fence.token) else None
        except RedisUnavailable:
            raise
        except BaseException:
            # The caller has left, and Redis may have set the fence.
            self._finish_later(fence)
            raise

    async def _finish(self, fence: Fence | None, value: bytes = b"") -> None:
        """Runs after the commit. If Redis is unavailable, the fences stay, and Redis gets a new generation."""
        if fence is None:
            return
        try:
            with contextlib.suppress(RedisUnavailable):
                await self._values.finish(fence.state, fence.user_id, fence.task_ids, fence.token, value)
        except BaseException:
            # The caller has left.
            self._finish_later(fence)
            raise

    def _finish_later(self, fence: Fence | None) -> None:
        """Removes the fences of a write that failed, without its caller. Call this only when it is certain that the write is not running any more."""
        if fence is None:
            return
        finishing = asyncio.create_task(self._finish_alone(fence))
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)

    async def _finish_alone(self, fence: Fence) -> None:
        deadline.clear()
        with contextlib.suppress(RedisUnavailable):
            await self._values.finish(fence.state, fence.user_id, fence.task_ids, fence.token)


def _beginning(state: State, user_id: UUID, task_id: UUID) -> bytes:
    return b"%b%b%b%b" % (VALUE, state.generation.bytes, user_id.bytes, task_id.bytes)
