"""What a replica does about the state of the cache, with a state and keys in memory and a clock that the tests move."""

import asyncio
import itertools
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from servicekit.errors import DependencyUnavailable, RedisUnavailable
from task_service.cache.domain import MANY_FENCES_SECONDS, MAX_FENCED_TASKS, VALID_SECONDS, WAIT_SECONDS, Mode, State
from task_service.cache.service import CacheState
from tests.task_service.conftest import Clock


@dataclass
class Row:
    """A CacheStateRepository in memory. Each answer takes `seconds` of the clock."""

    clock: Clock
    state: State = field(default_factory=lambda: State(uuid4(), Mode.OFF, "", ""))
    unreachable: bool = False
    running: bool = False
    away: bool = False
    seconds: float = 0.0
    questions: list[str] = field(default_factory=list)

    async def get(self) -> State:
        return self._answer("get")

    async def set_off(self, generation: UUID) -> State:
        if self.state.generation == generation and self.state.mode is not Mode.OFF:
            self.state = State(uuid4(), Mode.OFF, "", "")
        return self._answer("off")

    async def set_armed(self, generation: UUID, following: UUID, process: str, replication: str) -> State:
        if self.state.generation == generation and self.state.mode is Mode.OFF and not self.unreachable:
            self.state = State(following, Mode.ARMED, process, replication)
        return self._answer("armed")

    async def set_on(self, generation: UUID) -> State:
        if self.state.generation == generation and self.state.mode is Mode.ARMED and not self.running:
            self.state = State(generation, Mode.ON, self.state.process, self.state.replication)
        return self._answer("on")

    async def report_unreachable(self) -> State:
        self.unreachable = True
        return self._answer("unreachable")

    def _answer(self, question: str) -> State:
        self.questions.append(question)
        if self.away:
            raise DependencyUnavailable("PostgreSQL")
        self.clock.seconds += self.seconds
        return self.state


@dataclass
class Keys:
    """GenerationKeys in memory."""

    process: str | None = "one"
    marked: set[UUID] = field(default_factory=set)
    fenced: int = 0
    replication: str = "r1"
    reconnected: int = 0

    def reconnect(self) -> None:
        self.reconnected += 1

    async def mark(self, generation: UUID, process: str) -> str:
        if process != self.process:
            raise RedisUnavailable
        self.marked.add(generation)
        return self.replication

    async def keep(self, state: State) -> int | None:
        if state.process != self.process:
            raise RedisUnavailable
        return self.fenced if state.generation in self.marked and state.replication == self.replication else None


class Made:
    """A CacheState with what it is made of."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.row = Row(self.clock)
        self.keys = Keys()
        self.figures = CollectorRegistry()
        self.state = self.another(self.keys, self.figures)

    def another(self, keys: Keys, figures: CollectorRegistry) -> CacheState:
        return CacheState(self.row, keys, uuid4, figures, self.clock)

    async def on(self) -> State:
        """Brings the cache ON and returns the state."""
        for _ in range(3):
            await self.state.round()
            self.clock.seconds += WAIT_SECONDS
        await self.state.round()
        assert self.row.state.mode is Mode.ON
        return self.row.state


@pytest.fixture
def made() -> Made:
    return Made()


async def test_from_off_over_armed_to_on(made: Made) -> None:
    await made.state.round()
    assert made.row.state.mode is Mode.OFF, "a reader may still rely on what was before OFF"
    made.clock.seconds += WAIT_SECONDS
    await made.state.round()
    assert made.row.state.mode is Mode.ARMED
    assert made.row.state.generation in made.keys.marked
    made.row.running = True
    await made.state.round()
    assert made.row.state.mode is Mode.ARMED
    made.row.running = False
    await made.state.round()
    assert made.row.state.mode is Mode.ON
    assert made.state.relied_on == made.row.state


async def test_knowledge_counts_from_before_the_question(made: Made) -> None:
    await made.on()
    made.row.seconds = 0.3
    await made.state.round()
    made.clock.seconds += VALID_SECONDS - 0.3 - 0.01
    assert made.state.relied_on is not None
    made.clock.seconds += 0.02
    assert made.state.relied_on is None


async def test_without_postgres_knowledge_is_not_renewed(made: Made) -> None:
    await made.on()
    made.row.away = True
    made.clock.seconds += VALID_SECONDS
    with pytest.raises(DependencyUnavailable):
        await made.state.round()
    assert made.state.relied_on is None


async def test_another_process_of_redis_sets_off_unless_it_is_an_old_connection(made: Made) -> None:
    before = await made.on()
    made.keys.process = "another"
    await made.state.round()
    assert (made.keys.reconnected, made.row.state) == (1, before)
    await made.state.round()
    assert made.keys.reconnected == 1
    assert made.row.state.mode is Mode.OFF
    assert made.row.state.generation != before.generation


async def test_data_that_redis_may_have_had_from_another_process_is_not_relied_on(made: Made) -> None:
    """Redis was a replica meanwhile. Or it has got its first replica, which changes the id too: that costs one generation."""
    before = await made.on()
    made.keys.replication = "r2"
    await made.state.round()
    assert made.row.state.mode is Mode.OFF
    assert (await made.on()).generation != before.generation
    assert made.row.state.replication == "r2"


async def test_a_replica_that_starts_relies_on_a_generation_only_after_it_has_seen_its_keys(made: Made) -> None:
    await made.on()
    keys = Keys()
    late = made.another(keys, CollectorRegistry())
    await late.round()
    assert made.row.state.mode is Mode.OFF, "the marker is missing where it looks"
    assert late.relied_on == made.row.state
    on = await made.on()
    reader = made.another(made.keys, CollectorRegistry())
    reader._latest, reader._asked_at = on, made.clock()
    assert reader.relied_on is None
    await reader.round()
    assert reader.relied_on == on


async def test_replicas_that_reach_the_same_process_leave_the_cache_on(made: Made) -> None:
    other = made.another(made.keys, CollectorRegistry())
    await made.on()
    on = made.row.state
    for _ in range(20):
        await other.round()
        await made.state.round()
        made.clock.seconds += 0.25
    assert made.row.state == on


async def test_a_replica_that_loses_redis_and_writes_nothing_leaves_the_cache_on(made: Made) -> None:
    before = await made.on()
    made.keys.process = None
    for _ in range(3):
        await made.state.round()
    assert made.row.state == before
    assert not made.row.unreachable


async def test_lost_keys_set_off(made: Made) -> None:
    await made.on()
    made.keys.marked.clear()
    await made.state.round()
    assert made.row.state.mode is Mode.OFF


async def test_while_one_replica_does_not_reach_redis_nobody_sets_armed(made: Made) -> None:
    cut_off = made.another(Keys(process=None), CollectorRegistry())
    await cut_off.round()
    made.clock.seconds += WAIT_SECONDS
    for _ in range(3):
        await made.state.round()
        made.clock.seconds += WAIT_SECONDS
    assert made.row.state.mode is Mode.OFF
    made.row.unreachable = False
    await made.state.round()
    assert made.row.state.mode is Mode.ARMED


async def test_many_fences_for_a_while_begin_a_new_generation(made: Made) -> None:
    before = await made.on()
    made.keys.fenced = MAX_FENCED_TASKS + 1
    await made.state.round()
    made.clock.seconds += MANY_FENCES_SECONDS - 1
    await made.state.round()
    assert made.row.state == before
    made.keys.fenced = MAX_FENCED_TASKS
    await made.state.round()
    made.keys.fenced = MAX_FENCED_TASKS + 1
    await made.state.round()
    made.clock.seconds += MANY_FENCES_SECONDS - 1
    await made.state.round()
    assert made.row.state == before, "they were fewer meanwhile"
    made.clock.seconds += 1
    await made.state.round()
    assert made.row.state.mode is Mode.OFF


async def test_a_write_begins_in_the_state_that_is_known(made: Made) -> None:
    state = await made.on()
    made.row.questions.clear()
    # Also if the knowledge is too old for reads: PostgreSQL compares it.
    made.clock.seconds += 100

    async def fence(state: State) -> bytes:
        return state.generation.bytes

    assert await made.state.begin_write(fence) == (state, state.generation.bytes)
    assert made.row.questions == []


@pytest.mark.parametrize("how", ["unavailable", "lost"])
async def test_a_write_that_cannot_be_fenced_sets_off_and_waits(made: Made, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await made.on()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        made.clock.seconds += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def fence(_: State) -> None:
        if how == "unavailable":
            raise RedisUnavailable

    state, fenced = await made.state.begin_write(fence)
    assert (state, fenced) == (made.row.state, None)
    assert (state.mode, state.generation != before.generation) == (Mode.OFF, True)
    assert sum(slept) == pytest.approx(WAIT_SECONDS)
    # The next one does not wait.
    assert await made.state.begin_write(fence) == (state, None)
    assert sum(slept) == pytest.approx(WAIT_SECONDS)


async def test_of_many_writes_that_cannot_be_fenced_one_asks(made: Made) -> None:
    await made.on()
    made.row.questions.clear()

    async def fence(_: State) -> None:
        raise RedisUnavailable

    writes = [asyncio.create_task(made.state.begin_write(fence)) for _ in range(20)]
    await asyncio.sleep(0)
    made.clock.seconds += WAIT_SECONDS
    async with asyncio.timeout(20):
        while not all(write.done() for write in writes):
            made.clock.seconds += WAIT_SECONDS
            await asyncio.sleep(0.01)
    assert {await write for write in writes} == {(made.row.state, None)}
    assert made.row.questions == ["off"]


async def test_a_write_that_was_refused_reads_the_state_unless_another_is_known(made: Made) -> None:
    before = await made.on()
    made.row.state = State(uuid4(), Mode.OFF, "", "")
    made.row.questions.clear()
    await asyncio.gather(*(made.state.has_changed(before) for _ in range(5)))
    assert made.state.relied_on == made.row.state
    assert made.row.questions == ["get"]


async def test_the_metrics_say_what_is_known_and_for_how_long_it_was_not_on(made: Made) -> None:
    def value(name: str, **labels: str) -> float | None:
        return made.figures.get_sample_value(name, labels)

    await made.on()
    assert [value("task_cache_mode", mode=mode) for mode in ("off", "armed", "on")] == [0, 0, 1]
    off = value("task_cache_off_seconds_total")
    assert off == pytest.approx(2 * WAIT_SECONDS)
    for _ in itertools.repeat(None, 3):
        made.clock.seconds += 10
        await made.state.round()
    assert value("task_cache_off_seconds_total") == off
    # OFF, and then the generation of ARMED and ON.
    assert value("task_cache_generations_total") == 2
