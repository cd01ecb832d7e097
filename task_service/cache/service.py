"""Follows the state of the cache: reads it, sets OFF when Redis is lost, and sets ARMED and ON when Redis is back. Must not import redis."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from servicekit.errors import RedisUnavailable
from task_service.cache.domain import MANY_FENCES_SECONDS, MAX_FENCED_TASKS, VALID_SECONDS, WAIT_SECONDS, Mode, State

T = TypeVar("T")

log = structlog.get_logger()


def monotonic() -> float:
    """Like time.monotonic, but includes the time in which the machine was suspended, where the system has such a clock (Linux)."""
    return time.clock_gettime(_BOOT_TIME) if _BOOT_TIME is not None else time.monotonic()


_BOOT_TIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


class CacheStateRepository(Protocol):
    """The state of the cache. Each method returns the state afterwards, whether it has changed it or not. All raise DependencyUnavailable."""

    async def get(self) -> State:
        """Reads the state."""

    async def set_off(self, generation: UUID) -> State:
        """Sets OFF, with a new generation, if the state is not OFF and still of this generation."""

    async def set_armed(self, generation: UUID, following: UUID, process: str, replication: str) -> State:
        """Sets ARMED with the generation `following`, if the state is OFF, still of this generation, and no replica reports Redis unreachable."""

    async def set_on(self, generation: UUID) -> State:
        """Sets ON, if the state is ARMED, still of this generation, and every transaction that ran when ARMED was committed has ended."""

    async def report_unreachable(self) -> State:
        """Keeps every replica from setting ARMED for UNREACHABLE_SECONDS."""


class GenerationKeys(Protocol):
    """The keys of generations in Redis. All methods raise RedisUnavailable, also if Redis is another process than the one named."""

    @property
    def process(self) -> str | None:
        """The run id of the Redis process that this replica reaches, or None."""

    def reconnect(self) -> None:
        """Connects anew. Meanwhile `process` is None."""

    async def mark(self, generation: UUID, process: str) -> str:
        """Creates the keys of a generation, and returns the replication id of Redis."""

    async def keep(self, state: State) -> int | None:
        """Returns the number of fenced tasks, or None if the process has lost keys of the generation, or may have had other data meanwhile."""


class CacheState:
    """What this replica knows of the state. `round` keeps the knowledge fresh, and changes the state when that is due."""

    def __init__(
        self,
        repository: CacheStateRepository,
        keys: GenerationKeys,
        new_generation: Callable[[], UUID],
        registry: CollectorRegistry,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._repository = repository
        self._keys = keys
        self._new_generation = new_generation
        self._clock = clock
        # One question at a time, so that the answers are in the order of the questions.
        self._asking = asyncio.Lock()
        self._latest: State | None = None
        self._asked_at = float("-inf")
        self._off_since = float("-inf")
        # The generation whose keys this replica has seen in Redis, and the one for which it has connected to Redis anew.
        self._seen: UUID | None = None
        self._reconnected: UUID | None = None
        self._many_fences_since: float | None = None
        self._counted_to = clock()
        modes = Gauge("task_cache_mode", "1 for the mode of the cache that this replica has last read.", ["mode"], registry=registry)
        self._modes = {mode: modes.labels(mode.name.lower()) for mode in Mode}
        self._generations = Counter("task_cache_generations_total", "Generations of the cache that this replica has read.", registry=registry)
        self._off_seconds = Counter(
            "task_cache_off_seconds_total", "Time in which reads did not use the cache because it was not ON.", registry=registry
        )

    @property
    def relied_on(self) -> State | None:
        """The state, if a read that begins now may rely on it: the replica has just read it, and has seen the generation's keys before that."""
        state = self._latest
        if state is None or self._clock() - self._asked_at >= VALID_SECONDS or (state.fenced and state.generation != self._seen):
            return None
        return state

    async def round(self) -> None:
        """Reads the state, and changes it if that is due. Raises DependencyUnavailable.

        If this replica does not reach Redis, that alone does not set OFF: it may be for a moment, and as long as it writes nothing, others may use
        the cache.
        """
        self._count_off()
        process = self._keys.process
        known = self._latest
        # Before the question, so that Redis had the generation's keys when the knowledge began.
        if known is not None and known.fenced and not await self._has_keys(known):
            await self._set_off(known)
            return
        state = await self._ask(self._repository.get)
        if process is None:
            if state.mode is Mode.OFF:
                await self._ask(self._repository.report_unreachable)
        elif state.mode is Mode.OFF:
            if self._seconds_to_wait() == 0.0:
                await self._arm(state, process)
        elif process != state.process:
            await self._leave(state)
        elif state.generation != self._seen and not await self._has_keys(state):
            await self._set_off(state)
        elif state.mode is Mode.ARMED:
            await self._ask(lambda: self._repository.set_on(state.generation))

    async def begin_write(self, fence: Callable[[State], Awaitable[T | None]]) -> tuple[State, T | None]:
        """Returns the state in which a write may begin, and what `fence` returned.

        `fence` sets the fences of the write in the state's generation. It returns None if keys of the generation were lost. If the write cannot be
        fenced, sets OFF, or learns of OFF, and waits until no replica relies on an earlier state. Raises DependencyUnavailable.
        """
        state = self._latest or await self._ask(self._repository.get)
        while state.fenced:
            fenced = None
            with contextlib.suppress(RedisUnavailable):
                fenced = await fence(state)
            if fenced is not None:
                return state, fenced
            state = await self._set_off(state)
        while (seconds := self._seconds_to_wait()) > 0:  # noqa: ASYNC110 - waits for a time, and timers may fire early
            await asyncio.sleep(seconds)
        return state, None

    async def has_changed(self, state: State) -> None:
        """Call this if PostgreSQL has refused a write in this state: reads the state, unless this replica knows another one by now."""
        await self._ask(self._repository.get, unless_changed_from=state)

    async def _set_off(self, state: State) -> State:
        """Sets OFF, unless the state has changed meanwhile. Returns the state afterwards."""
        return await self._ask(lambda: self._repository.set_off(state.generation), unless_changed_from=state)

    async def _leave(self, state: State) -> None:
        """This replica reaches another process than that of the state. Perhaps it has only kept an old connection."""
        if self._reconnected != state.generation:
            self._reconnected = state.generation
            self._keys.reconnect()
        else:
            await self._set_off(state)

    async def _arm(self, state: State, process: str) -> None:
        following = self._new_generation()
        with contextlib.suppress(RedisUnavailable):
            replication = await self._keys.mark(following, process)
            await self._ask(lambda: self._repository.set_armed(state.generation, following, process, replication))

    async def _has_keys(self, state: State) -> bool:
        """Whether the generation still has its keys, and not too many fences. True if this replica does not reach the process."""
        try:
            fenced = await self._keys.keep(state)
        except RedisUnavailable:
            self._seen = None
            return True
        if fenced is None:
            return False
        self._seen = state.generation
        if fenced <= MAX_FENCED_TASKS:
            self._many_fences_since = None
            return True
        if self._many_fences_since is None:
            self._many_fences_since = self._clock()
        return self._clock() - self._many_fences_since < MANY_FENCES_SECONDS

    async def _ask(self, question: Callable[[], Awaitable[State]], *, unless_changed_from: State | None = None) -> State:
        async with self._asking:
            if unless_changed_from is not None and self._latest is not None and self._latest.generation != unless_changed_from.generation:
                return self._latest
            asked_at = self._clock()
            state = await question()
            self._learn(state, asked_at)
            return state

    def _learn(self, state: State, asked_at: float) -> None:
        if self._latest is None or self._latest.generation != state.generation:
            self._generations.inc()
            log.info("cache_generation", generation=str(state.generation), mode=state.mode.name)
            if state.mode is Mode.OFF:
                # PostgreSQL has set OFF before now.
                self._off_since = self._clock()
        self._latest, self._asked_at = state, asked_at
        for mode, gauge in self._modes.items():
            gauge.set(mode is state.mode)

    def _seconds_to_wait(self) -> float:
        """The time until no replica relies on a state from before the latest OFF."""
        return max(0.0, self._off_since + WAIT_SECONDS - self._clock())

    def _count_off(self) -> None:
        now = self._clock()
        if self._latest is None or self._latest.mode is not Mode.ON:
            self._off_seconds.inc(now - self._counted_to)
        self._counted_to = now
