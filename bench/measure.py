"""Runs the rounds of the base and of the system alternately."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import Generator
from bench.jobs import Job
from bench.rows import Row, Turn


class CallsFailed(Exception):
    """A call failed, so the figures would be wrong."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The extent of the measurement. Only rows that match `only` are measured.

    With `rates`, in calls per second, the loads are open loops of these rates. `profile` is the file for the task service's profile.
    """

    callers: int = 32
    rounds: int = 3
    seconds: float = 1.3
    settle_seconds: float = 0.2
    warm_up_seconds: float = 0.5
    only: str = ""
    rates: tuple[float, ...] = ()
    profile: Path | None = None

    @classmethod
    def quick(cls) -> "Settings":
        """Returns the settings of a smoke test."""
        return cls(rounds=2, seconds=0.5, settle_seconds=0.05, warm_up_seconds=0.1)


async def measure(generator: Generator, rows: Sequence[Row], settings: Settings, rate: float | None = None) -> None:
    """Adds the rounds to the rows, in a closed loop or at a rate. Raises CallsFailed."""
    for row in rows:
        for turn in (row.base, row.system):
            await _round(generator, settings, row, turn, settings.warm_up_seconds, rate)
            turn.rounds.clear()
    for number in range(settings.rounds):
        # Every other cycle runs in reverse order, so that a drift of the machine affects both equally.
        step = -1 if number % 2 else 1
        for row in rows[::step]:
            for turn in (row.base, row.system)[::step]:
                await _round(generator, settings, row, turn, settings.seconds, rate)
        print(f"round {number + 1} of {settings.rounds}", file=sys.stderr)


async def _round(generator: Generator, settings: Settings, row: Row, turn: Turn, seconds: float, rate: float | None) -> None:
    target, requests = turn.target, turn.calls.over(row.protocol)
    job = Job(
        row.protocol, target.port, settings.callers, settings.settle_seconds, seconds, target.processes, await turn.users.tokens(), requests, rate
    )
    result = await generator.run(job)
    if result.failures or not result.latencies:
        raise CallsFailed(f"{row.way}, {row.name}: {result.failures} calls failed, {len(result.latencies)} did not; {result.first_failure}")
    turn.rounds.append(result)
