"""An exhaustive model of the rule before the cache protocol: a replica uses cached values again SETTLE_TICKS after its own breaker has closed.

The rule hopes that by then every other replica has noticed that Redis is back. One task, two replicas, one Redis that restarts empty.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.model.exploring import OutdatedAnswer, Step

SETTLE_TICKS: Final = 2
OPEN: Final = -1
FENCE, VALUE, LEASE = "fence", "value", "lease"


class Replica(NamedTuple):
    """`age` is the number of ticks since its breaker closed. `connected`: its connection is to the Redis that runs now, whether it knows or not."""

    age: int = SETTLE_TICKS
    connected: bool = True
    suspect: bool = False


class Call(NamedTuple):
    """A read or a write on a replica."""

    phase: str = "new"
    replica: int = 0
    floor: int = 0
    fenced: bool = False


class World(NamedTuple):
    """One state of everything. `key` is the key's content: None, or a kind with a number."""

    replicas: tuple[Replica, ...] = (Replica(), Replica())
    readers: tuple[Call, ...] = (Call(), Call(), Call())
    writer: Call = Call()
    key: tuple[str, int] | None = (VALUE, 0)
    version: int = 0
    floor: int = 0
    restarted: bool = False


class Settling:
    """The steps."""

    def start(self) -> World:
        """Returns a world in which the cache is in use and holds the task."""
        return World()

    def steps(self, world: World) -> Iterator[Step[World]]:
        """Yields every world that can follow, and what happens."""
        for part in (self._time, self._reads, self._write, self._breakers):
            yield from part(world)

    def _time(self, world: World) -> Iterator[Step[World]]:
        replicas = tuple(one if one.age == OPEN else one._replace(age=min(one.age + 1, SETTLE_TICKS)) for one in world.replicas)
        if replicas != world.replicas:
            yield "time passes", world._replace(replicas=replicas)

    def _breakers(self, world: World) -> Iterator[Step[World]]:
        if not world.restarted:
            away = tuple(one._replace(connected=False) for one in world.replicas)
            yield "Redis restarts empty", world._replace(restarted=True, key=None, replicas=away)
        for number, one in enumerate(world.replicas):
            if one.age != OPEN and not one.connected:
                yield f"replica {number} notices that it has lost Redis", self._opened(world, number)
            if one.age == OPEN:
                closed = self._with_replica(world, number, Replica(age=0))
                yield f"replica {number} uses Redis again", closed._replace(key=None) if one.suspect else closed

    def _with_replica(self, world: World, number: int, replica: Replica) -> World:
        return world._replace(replicas=tuple(replica if place == number else one for place, one in enumerate(world.replicas)))

    def _opened(self, world: World, number: int) -> World:
        return self._with_replica(world, number, world.replicas[number]._replace(age=OPEN))

    def _reads(self, world: World) -> Iterator[Step[World]]:
        for number, one in enumerate(world.readers):
            if one.phase == "new" and (number == 0 or world.readers[number - 1].phase != "new"):
                for replica in range(len(world.replicas)):
                    yield f"reader {number} begins at replica {replica}", self._read_begins(world, number, replica)
            elif one.phase == "absent":
                leased = world.key is None and world.replicas[one.replica].connected
                after = world._replace(key=(LEASE, number)) if leased else world
                yield f"reader {number} asks for a lease", self._with_reader(after, number, one._replace(phase="leased" if leased else "without"))
            elif one.phase in ("leased", "without"):
                after = self._answered(world, number, world.version)
                yield f"reader {number} reads version {world.version} from PostgreSQL", after
                if world.key == (LEASE, number) and world.replicas[one.replica].connected:
                    yield f"reader {number} reads version {world.version} and fills it in", after._replace(key=(VALUE, world.version))

    def _read_begins(self, world: World, number: int, replica: int) -> World:
        one = world.replicas[replica]
        begun = self._with_reader(world, number, Call("without", replica, world.floor))
        if one.age != OPEN and not one.connected:
            return self._opened(begun, replica)
        if one.age != SETTLE_TICKS:
            return begun
        if world.key is None:
            return self._with_reader(begun, number, Call("absent", replica, world.floor))
        return self._answered(begun, number, world.key[1]) if world.key[0] == VALUE else begun

    def _with_reader(self, world: World, number: int, reader: Call) -> World:
        return world._replace(readers=tuple(reader if place == number else one for place, one in enumerate(world.readers)))

    def _answered(self, world: World, number: int, version: int) -> World:
        if version < world.readers[number].floor:
            raise OutdatedAnswer
        return self._with_reader(world, number, Call("done"))._replace(floor=max(world.floor, version))

    def _write(self, world: World) -> Iterator[Step[World]]:
        one = world.writer
        replica = world.replicas[one.replica]
        if one.phase == "new":
            for number, at in enumerate(world.replicas):
                if at.age != OPEN and at.connected:
                    yield (
                        f"the write begins at replica {number} and sets its fence",
                        world._replace(writer=Call("sent", number, fenced=True), key=(FENCE, 0)),
                    )
                else:
                    after = world if at.age == OPEN else self._opened(world, number)
                    yield f"the write begins at replica {number} without Redis", after._replace(writer=Call("sent", number))
        elif one.phase == "sent":
            yield "the write commits", world._replace(version=1, writer=one._replace(phase="committed"))
        elif one.phase == "committed":
            done = world._replace(writer=Call("done"), floor=1)
            if replica.age != OPEN and replica.connected:
                own = one.fenced and world.key == (FENCE, 0)
                yield "the write is finished in Redis", done._replace(key=(VALUE, 1) if own else None)
            else:
                suspect = self._with_replica(done, one.replica, replica._replace(suspect=True))
                yield "the write is finished without Redis", suspect if replica.age == OPEN else self._opened(suspect, one.replica)
