"""Runs the rounds of floor and service alternately."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.calls import Calls
from bench.jobs import Job, Round
from bench.system import System, Target, Way


class CallsFailed(Exception):
    """A call failed, so the figures would be wrong."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The extent of the measurement. Only rows whose name contains `only` are measured. `profile` is the file for the task service's profile."""

    callers: int = 32
    rounds: int = 3
    seconds: float = 1.3
    settle_seconds: float = 0.2
    warm_up_seconds: float = 0.5
    only: str = ""
    profile: Path | None = None

    @classmethod
    def quick(cls) -> "Settings":
        """Returns the settings of a smoke test."""
        return cls(rounds=2, seconds=0.5, settle_seconds=0.05, warm_up_seconds=0.1)


@dataclass(frozen=True, slots=True)
class Row:
    """The rounds of some calls on one way, of the service and of the floor."""

    way: str
    calls: str
    service: list[Round] = field(default_factory=list)
    floor: list[Round] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Pair:
    way: Way
    calls: Calls
    row: Row

    def turns(self) -> list[tuple[Target, list[Round]]]:
        return [(self.way.floor, self.row.floor), (self.way.service, self.row.service)]


async def measure(system: System, settings: Settings) -> list[Row]:
    """Measures all rows. Raises CallsFailed."""
    pairs = list(_pairs(system, settings.only))
    for pair in pairs:
        for target, _ in pair.turns():
            await _round(system, settings, pair, target, settings.warm_up_seconds)
    for number in range(settings.rounds):
        # Every other cycle runs in reverse order, so that a drift of the machine affects floor and service equally.
        step = -1 if number % 2 else 1
        for pair in pairs[::step]:
            for target, rounds in pair.turns()[::step]:
                rounds.append(await _round(system, settings, pair, target, settings.seconds))
        print(f"round {number + 1} of {settings.rounds}", file=sys.stderr)
    return [pair.row for pair in pairs]


def _pairs(system: System, only: str) -> Iterator[_Pair]:
    for way in system.ways:
        direct, rest = way is system.ways[0], way.protocol == "http"
        # For gRPC through the gateway one RPC is enough, because the gateway's own cost does not depend on the RPC.
        calls = [*system.rows, *system.scenarios] if direct or rest else system.rows[:1]
        yield from (_Pair(way, some, Row(way.name, some.name)) for some in calls if only.lower() in f"{way.name} {some.name}".lower())


async def _round(system: System, settings: Settings, pair: _Pair, target: Target, seconds: float) -> Round:
    way, calls = pair.way, pair.calls
    job = Job(way.protocol, target.port, settings.callers, settings.settle_seconds, seconds, target.processes, calls.over(way.protocol))
    result = await system.run(job)
    if result.failures or not result.latencies:
        raise CallsFailed(f"{way.name}, {calls.name}: {result.failures} calls failed, {len(result.latencies)} did not; {result.first_failure}")
    return result
