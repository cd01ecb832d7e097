"""An exhaustive model of the cache protocol (docs/adr/0017-cache-protocol.md): one task, any number of replicas, Redis processes, one PostgreSQL.

`explore` executes every order of the steps and returns the first history in which an answer is older than the task was when its call began. The model
has no replicas, because the protocol needs nothing that a replica remembers:

- A call knows any row that PostgreSQL had, as far back as the guards allow. So it may run on a replica that has just started, or on a slow one.
- A call reaches any Redis process or none, and each command may fail. So every partition is covered, and a Redis that only some replicas reach.
- A call may stop after any step. So crashes are covered. Fills and finishes are messages, which also arrive after their sender has crashed.
- Time passes in ticks, between any two steps. So a call may be frozen for any time. A replica relies on a row for one tick after it was replaced.

A read that PostgreSQL answers is never outdated and changes nothing, so the model has only reads that ask Redis.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from tests.model.exploring import OutdatedAnswer, Step

OFF, ARMED, ON = "OFF", "ARMED", "ON"
VALUE, LEASE = "value", "lease"
# The Redis process of a row that is OFF, and of a write without a fence.
NO_PROCESS: Final = -1
# How often a write begins, if PostgreSQL refuses it.
ATTEMPTS: Final = 2

HIT_AGE: Final = "a read asks Redis only while its knowledge has not expired"
AGE_FROM_QUESTION: Final = "the age of knowledge counts from before the question"
HIT_ON: Final = "a read asks Redis only in ON"
HIT_PROCESS: Final = "a hit needs the Redis process of the row"
FENCE_PROCESS: Final = "a fence needs the Redis process of the row"
KEYS_OF_GENERATION: Final = "each generation has keys of its own"
FENCE_MARKER: Final = "a fence needs the marker of its generation"
LEASE_MARKER: Final = "a lease needs the marker of its generation"
LEASE_UNFENCED: Final = "a lease needs a key without a fence"
FILL_LEASE: Final = "a fill needs its lease"
WRITE_FENCE: Final = "a write sets a fence"
FENCE_DELETES: Final = "a fence deletes the value and the lease"
OWN_FENCE: Final = "a value is stored only over the write's own fence"
UNKNOWN_OUTCOME: Final = "a fence stays while the outcome is unknown"
UNFENCED_WAITS: Final = "a write without a fence waits after OFF"
WRITE_CHECK: Final = "PostgreSQL compares the generation of a write"
ARMED_WAITS: Final = "ARMED waits after OFF"
ON_DRAINS: Final = "ON waits for the transactions that ran before ARMED"
GUARDS: Final = frozenset(
    {
        HIT_AGE,
        AGE_FROM_QUESTION,
        HIT_ON,
        HIT_PROCESS,
        FENCE_PROCESS,
        KEYS_OF_GENERATION,
        FENCE_MARKER,
        LEASE_MARKER,
        LEASE_UNFENCED,
        FILL_LEASE,
        WRITE_FENCE,
        FENCE_DELETES,
        OWN_FENCE,
        UNKNOWN_OUTCOME,
        UNFENCED_WAITS,
        WRITE_CHECK,
        ARMED_WAITS,
        ON_DRAINS,
    }
)

Content: TypeAlias = tuple[str, int] | None
# None, the number of the one write that has it, or how many writes share it.
Fence: TypeAlias = int | tuple[int] | None


class Row(NamedTuple):
    """A row that PostgreSQL has or had. `ticks`: since an OFF was written, or since another row was replaced; as many as make a difference."""

    generation: int
    process: int
    mode: str
    ticks: int = 0


class Keys(NamedTuple):
    """The keys of one generation in one Redis process."""

    marker: bool = False
    content: Content = None
    fence: Fence = None


class Reader(NamedTuple):
    """A read: new, asking (it has begun and may ask Redis), leased, done. `floor` is the version that the task had when it began."""

    phase: str = "new"
    floor: int = 0
    generation: int = 0
    process: int = NO_PROCESS


class Writer(NamedTuple):
    """A write: new, off (it waits after OFF), sent, locked (it has the lock of the user's counter), done.

    `awaited`: ON waits for its transaction. `given_up`: it has finished in Redis before it knew the outcome.
    """

    phase: str = "new"
    generation: int = 0
    process: int = NO_PROCESS
    awaited: bool = False
    given_up: bool = False
    attempt: int = 0


class Message(NamedTuple):
    """A fill (of a reader) or a finish (of a writer) on its way to Redis."""

    process: int
    generation: int
    reader: int | None
    writer: int | None
    version: int | None


class World(NamedTuple):
    """One state of everything."""

    rows: tuple[Row, ...]
    processes: tuple[tuple[Keys, ...], ...]
    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    version: int = 0
    messages: frozenset[Message] = frozenset()
    # An old state of Redis, to which it may fail over.
    copy: tuple[Keys, ...] | None = None
    faults: int = 0
    # How many generations there have been.
    made: int = 1
    # What tests.model.failover adds: the row that a standby has, and how far the failover to it is.
    standby: Row | None = None
    failover: str = ""


def _put(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]  # of any items
    return (*items[:index], item, *items[index + 1 :])


class Protocol:
    """The steps. In one history there are at most so many calls, generations, and faults (Redis fails over to an old copy, or is flushed)."""

    def __init__(self, *, readers: int, writers: int, faults: int, generations: int, guards: frozenset[str] = GUARDS) -> None:
        self._readers = readers
        self._writers = writers
        self._faults = faults
        self._generations = generations
        self._guards = guards
        self._known_ticks = 1 if AGE_FROM_QUESTION in guards else 2

    def start(self) -> World:
        """Returns a world in which the cache is in use and holds the task."""
        keys = (Keys(marker=True, content=(VALUE, 0)), *([Keys()] * (self._generations - 1)))
        return World((Row(0, 0, ON),), (keys,), (Reader(),) * self._readers, (Writer(),) * self._writers)

    def steps(self, world: World) -> Iterator[Step[World]]:
        """Yields every world that can follow, and what happens."""
        for part in (self._time, self._transitions, self._reads, self._writes, self._messages, self._failures):
            for told, following in part(world):
                yield told, self._reduced(following)

    def _reduced(self, world: World) -> World:
        """Returns a world with the same future that has less in it. What it leaves out relies on guards: without them it stays."""
        newest = world.rows[-1]
        writers = tuple(one if newest.mode == ARMED or not one.awaited else one._replace(awaited=False) for one in world.writers)
        world = world._replace(writers=writers)
        if {WRITE_CHECK, UNKNOWN_OUTCOME} <= self._guards:
            world = self._with_refusals(world)
        if {FILL_LEASE, OWN_FENCE, FENCE_MARKER} <= self._guards:
            world = world._replace(messages=frozenset(one for one in world.messages if self._has_effect(world, one)))
        if {WRITE_CHECK, UNKNOWN_OUTCOME, KEYS_OF_GENERATION} <= self._guards:
            world = self._with_asked(world)
        return world

    def _with_refusals(self, world: World) -> World:
        """PostgreSQL refuses every write that begins in another generation than the newest."""
        newest = world.rows[-1]
        for number, one in enumerate(world.writers):
            if one.phase in ("sent", "off") and one.generation != newest.generation:
                world = self._finishing(world, number, None, Writer("again", attempt=one.attempt + 1))
        return world

    def _with_asked(self, world: World) -> World:
        """No read will ask the keys of other generations again, and no write in one of them will commit."""
        newest = world.rows[-1]
        asked = {row.generation for row in world.rows if self._relied_on(row)} | {newest.generation}
        asked |= {one.generation for one in world.readers if one.phase in ("asking", "leased")}
        processes = tuple(tuple(keys if generation in asked else Keys() for generation, keys in enumerate(process)) for process in world.processes)
        return world._replace(
            rows=(*(row for row in world.rows[:-1] if row.generation in asked and row.mode != OFF), newest),
            processes=processes,
            messages=frozenset(one for one in world.messages if one.generation in asked),
        )

    def _has_effect(self, world: World, one: Message) -> bool:
        keys = world.processes[one.process][one.generation]
        return keys.content == (LEASE, one.reader) if one.reader is not None else keys.fence is not None

    def _relied_on(self, row: Row) -> bool:
        """Whether a read may begin with the knowledge of this row."""
        return (row.mode == ON or (row.mode == ARMED and not self._has(HIT_ON))) and (row.ticks < self._known_ticks or not self._has(HIT_AGE))

    def _has(self, guard: str) -> bool:
        return guard in self._guards

    def _keys(self, world: World, process: int, generation: int) -> Keys:
        return world.processes[process][generation if self._has(KEYS_OF_GENERATION) else 0]

    def _with_keys(self, world: World, process: int, generation: int, keys: Keys) -> World:
        slot = generation if self._has(KEYS_OF_GENERATION) else 0
        return world._replace(processes=_put(world.processes, process, _put(world.processes[process], slot, keys)))

    # ---------------------------------------------------------------------------------------------------------- time, and the row

    def _time(self, world: World) -> Iterator[Step[World]]:
        *old, newest = world.rows
        passed = (*(self._older(row) for row in old), self._older(newest) if newest.mode == OFF else newest)
        if passed != world.rows:
            yield "time passes", world._replace(rows=passed)

    def _older(self, row: Row) -> Row:
        most = 0 if row.mode == ARMED and self._has(HIT_ON) else 1 if row.mode == OFF else self._known_ticks
        return row._replace(ticks=min(row.ticks + 1, most)) if row.ticks < most else row

    def _transitions(self, world: World) -> Iterator[Step[World]]:
        row = world.rows[-1]
        following = world.made
        if row.mode != OFF and following < self._generations:
            yield "a replica sets OFF", self._with_row(world, Row(following, NO_PROCESS, OFF))
        if row.mode == OFF and following < self._generations and (row.ticks or not self._has(ARMED_WAITS)):
            running = tuple(one._replace(awaited=one.phase == "locked") for one in world.writers)
            for process in range(len(world.processes)):
                keys = self._keys(world, process, following)._replace(marker=True)
                armed = self._with_row(self._with_keys(world, process, following, keys), Row(following, process, ARMED))
                yield f"a replica sets ARMED for Redis {process}", armed._replace(writers=running)
        if row.mode == ARMED and not (self._has(ON_DRAINS) and any(one.awaited for one in world.writers)):
            yield "a replica sets ON", self._with_row(world, row._replace(mode=ON))

    def _with_row(self, world: World, row: Row) -> World:
        return world._replace(rows=(*world.rows, row), made=max(world.made, row.generation + 1))

    # ------------------------------------------------------------------------------------------------------------------------- reads

    def _reads(self, world: World) -> Iterator[Step[World]]:
        for number, one in enumerate(world.readers):
            if one.phase == "new":
                # The readers are alike: they begin in order.
                if number == 0 or world.readers[number - 1].phase != "new":
                    yield from self._read_begins(world, number)
            elif one.phase == "asking":
                yield from self._asked(world, number, one)
            elif one.phase == "leased":
                fill = Message(one.process, one.generation, number, None, world.version)
                filling = self._reading(world, number, Reader("done"))
                yield f"reader {number} reads version {world.version} from PostgreSQL", filling._replace(messages=filling.messages | {fill})

    def _reading(self, world: World, number: int, reader: Reader) -> World:
        return world._replace(readers=_put(world.readers, number, reader))

    def _read_begins(self, world: World, number: int) -> Iterator[Step[World]]:
        for row in world.rows:
            if not self._relied_on(row):
                continue
            for process in range(len(world.processes)):
                if process == row.process or not self._has(HIT_PROCESS):
                    asking = self._reading(world, number, Reader("asking", world.version, row.generation, process))
                    yield f"reader {number} begins, knows {row.mode} of generation {row.generation}, and asks Redis {process}", asking

    def _asked(self, world: World, number: int, one: Reader) -> Iterator[Step[World]]:
        keys = self._keys(world, one.process, one.generation)
        if keys.content is not None and keys.content[0] == VALUE:
            if keys.content[1] < one.floor:
                raise OutdatedAnswer(f"reader {number} answers version {keys.content[1]}")
            return
        if keys.content is None and (keys.fence is None or not self._has(LEASE_UNFENCED)) and (keys.marker or not self._has(LEASE_MARKER)):
            leased = self._with_keys(world, one.process, one.generation, keys._replace(content=(LEASE, number)))
            yield f"reader {number} finds nothing and takes a lease", self._reading(leased, number, one._replace(phase="leased", floor=0))

    # ------------------------------------------------------------------------------------------------------------------------- writes

    def _writes(self, world: World) -> Iterator[Step[World]]:
        for number, one in enumerate(world.writers):
            if one.phase == "new" and (number == 0 or world.writers[number - 1].phase != "new"):
                yield from self._write_begins(world, number)
            elif one.phase == "off":
                off = next(each for each in world.rows if each.mode == OFF and each.generation == one.generation)
                if off.ticks or not self._has(UNFENCED_WAITS):
                    yield f"writer {number} sends its statement without a fence", self._writing(world, number, one._replace(phase="sent"))
            elif one.phase == "sent":
                yield from self._sent(world, number, one)
            elif one.phase == "locked":
                yield from self._commit(world, number, one)
            elif one.phase == "again" and one.attempt < ATTEMPTS:
                yield from self._write_begins(world, number)

    def _sent(self, world: World, number: int, one: Writer) -> Iterator[Step[World]]:
        row = world.rows[-1]
        if one.process != NO_PROCESS and not self._has(UNKNOWN_OUTCOME) and not one.given_up:
            yield f"writer {number} gives up waiting", self._finishing(world, number, None, one._replace(given_up=True))
        if any(other.phase == "locked" for other in world.writers):
            return
        if not self._has(WRITE_CHECK) or (row.generation == one.generation and (row.mode != OFF) == (one.process != NO_PROCESS)):
            yield f"the transaction of writer {number} takes the lock", self._writing(world, number, one._replace(phase="locked"))
        else:
            again = Writer("again", attempt=one.attempt + 1)
            yield f"PostgreSQL refuses the transaction of writer {number}", self._finishing(world, number, None, again)

    def _writing(self, world: World, number: int, writer: Writer) -> World:
        return world._replace(writers=_put(world.writers, number, writer))

    def _write_begins(self, world: World, number: int) -> Iterator[Step[World]]:
        attempt = world.writers[number].attempt
        for row in world.rows:
            told = f"writer {number} begins, knows {row.mode} of generation {row.generation}"
            if row.mode == OFF:
                yield told, self._writing(world, number, Writer("off", row.generation, attempt=attempt))
                continue
            if not self._has(WRITE_FENCE):
                yield f"{told}, and sends its statement", self._writing(world, number, Writer("sent", row.generation, row.process, attempt=attempt))
                continue
            for process in range(len(world.processes)):
                keys = self._keys(world, process, row.generation)
                if (process == row.process or not self._has(FENCE_PROCESS)) and (keys.marker or not self._has(FENCE_MARKER)):
                    fenced = self._with_keys(world, process, row.generation, self._fenced(keys, number * ATTEMPTS + attempt))
                    sent = self._writing(fenced, number, Writer("sent", row.generation, process, attempt=attempt))
                    yield f"{told}, fences in Redis {process}, and sends its statement", sent
        row = world.rows[-1]
        if row.mode == OFF:
            return
        if world.made < self._generations:
            off = self._with_row(world, Row(world.made, NO_PROCESS, OFF))
            yield f"writer {number} cannot fence and sets OFF", self._writing(off, number, Writer("off", world.made, attempt=attempt))

    def _fenced(self, keys: Keys, number: int) -> Keys:
        shared = 0 if keys.fence is None else keys.fence[0] if isinstance(keys.fence, tuple) else 1
        return keys._replace(fence=(shared + 1,) if shared else number, content=None if self._has(FENCE_DELETES) else keys.content)

    def _commit(self, world: World, number: int, one: Writer) -> Iterator[Step[World]]:
        version = world.version + 1
        committed = world._replace(version=version)
        told = f"the transaction of writer {number} commits version {version}"
        if one.process == NO_PROCESS or one.given_up:
            yield told, self._writing(committed, number, Writer("done"))
        else:
            yield told, self._finishing(committed, number, version, Writer("done"))
            yield f"{told}, without its caller", self._finishing(committed, number, None, Writer("done"))

    def _finishing(self, world: World, number: int, version: int | None, after: Writer) -> World:
        one = world.writers[number]
        if one.process == NO_PROCESS or one.given_up:
            return self._writing(world, number, after)
        finish = Message(one.process, one.generation, None, number * ATTEMPTS + one.attempt, version)
        return self._writing(world, number, after)._replace(messages=world.messages | {finish})

    # ----------------------------------------------------------------------------------------------------------- messages and failures

    def _messages(self, world: World) -> Iterator[Step[World]]:
        for one in world.messages:
            rest = world._replace(messages=world.messages - {one})
            keys = self._keys(world, one.process, one.generation)
            after = self._filled(keys, one) if one.reader is not None else self._finished(keys, one)
            told = f"the fill of reader {one.reader}" if one.reader is not None else f"the finish of writer {one.writer}"
            yield f"{told} arrives with version {one.version}", self._with_keys(rest, one.process, one.generation, after)

    def _filled(self, keys: Keys, one: Message) -> Keys:
        if keys.content != (LEASE, one.reader) and self._has(FILL_LEASE):
            return keys
        assert one.version is not None
        return keys._replace(content=(VALUE, one.version))

    def _finished(self, keys: Keys, one: Message) -> Keys:
        content = keys.content if one.version is None else (VALUE, one.version)
        if keys.fence == one.writer:
            return keys._replace(fence=None, content=content)
        if isinstance(keys.fence, tuple):
            keys = keys._replace(fence=(keys.fence[0] - 1,) if keys.fence[0] > 1 else None)
        return keys if self._has(OWN_FENCE) else keys._replace(content=content)

    def _failures(self, world: World) -> Iterator[Step[World]]:
        if world.faults == self._faults:
            return
        newest = len(world.processes) - 1
        if world.copy is None:
            yield "a copy of Redis is made", world._replace(copy=world.processes[newest])
        else:
            processes = (*world.processes, world.copy)
            yield "Redis fails over to the copy", world._replace(processes=processes, copy=None, faults=world.faults + 1)
        empty = (Keys(),) * self._generations
        yield "Redis is flushed", world._replace(processes=_put(world.processes, newest, empty), faults=world.faults + 1)
