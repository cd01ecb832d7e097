"""The cache protocol when PostgreSQL fails over to a standby that has lost commits (docs/adr/0023-failover.md): one failover in each history.

The commits after a moment at which a standby had copied the row are lost. The failover itself counts as a version: every value from before it is
older. A transaction that runs at the failover does not commit, and its fence stays. A statement that has not arrived yet may arrive at the new
primary.
"""

from collections.abc import Iterator
from typing import Final

from tests.model.cache_protocol import GUARDS, NO_PROCESS, OFF, Protocol, Row, World, Writer
from tests.model.exploring import Step

SERVER_COMPARED: Final = "a row counts only on the server on which it was written"
PROMOTED_LATE: Final = "no promotion before what replicas know from the old primary has expired"
FAILOVER_GUARDS: Final = frozenset({SERVER_COMPARED, PROMOTED_LATE})

COPIED, PROMOTED, FOLLOWED = "copied", "promoted", "followed"


class Failover(Protocol):
    """The steps of the protocol, and those of the failover."""

    def __init__(self, *, readers: int, writers: int, faults: int, generations: int, guards: frozenset[str] = GUARDS | FAILOVER_GUARDS) -> None:
        super().__init__(readers=readers, writers=writers, faults=faults, generations=generations, guards=guards)

    def steps(self, world: World) -> Iterator[Step[World]]:
        """See Protocol.steps."""
        yield from super().steps(world)
        if not world.failover:
            yield "a standby is cut off from the primary", world._replace(standby=world.rows[-1], failover=COPIED)
        elif world.standby is not None:
            yield "the standby is promoted", self._promoted(world, world.standby)

    def _promoted(self, world: World, row: Row) -> World:
        ticks = self._known_ticks if self._has(PROMOTED_LATE) else 0
        known = tuple(one._replace(ticks=max(one.ticks, ticks)) for one in world.rows)
        # A row with this age is relied on by no read.
        row = row._replace(ticks=self._known_ticks if self._has(SERVER_COMPARED) else 0)
        writers = tuple(Writer("done") if one.phase == "locked" else one for one in world.writers)
        return world._replace(rows=(*known, row), writers=writers, version=world.version + 1, standby=None, failover=PROMOTED)

    def _transitions(self, world: World) -> Iterator[Step[World]]:
        if world.failover != PROMOTED or not self._has(SERVER_COMPARED):
            yield from super()._transitions(world)
        elif world.made < self._generations:
            followed = self._with_row(world, Row(world.made, NO_PROCESS, OFF))
            yield "a replica asks another server than that of the row, and sets OFF", followed._replace(failover=FOLLOWED)

    def _reduced(self, world: World) -> World:
        """While a failover is ahead, an older row may come back."""
        return super()._reduced(world) if world.standby is None else world
