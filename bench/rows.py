"""The rows of a measurement: what is measured, what it is compared with, and the rounds of both. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.calls import Calls
from bench.jobs import Protocol, Round
from bench.users import Users


@dataclass(frozen=True, slots=True)
class Target:
    """The port of the calls, and the pids of the processes whose CPU they use, by the name of the figure."""

    port: int
    processes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Turn:
    """A target, the calls that it gets, the users who make them, and the rounds so far."""

    target: Target
    calls: Calls
    users: Users
    rounds: list[Round] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """The same calls on one way, in turns: to the base (a floor, or an older version) and to the system."""

    way: str
    protocol: Protocol
    base: Turn
    system: Turn

    @property
    def name(self) -> str:
        """The name of the calls."""
        return self.system.calls.name

    def matches(self, only: str) -> bool:
        """Whether way and name contain the words."""
        return only.lower() in f"{self.way} {self.name}".lower()
