"""Compares the CPU per call of two checkouts: `python -m bench.compare OLD [NEW]`.

Both systems run at the same time, each with the interpreter of its own .venv (`bench.side`), and the load generator of this checkout loads both with
the same calls. Short rounds of both alternate. So the ratio of two successive rounds hardly depends on the machine's speed, which changes with time.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc.aio

from bench import side, workload
from bench.calls import Calls
from bench.generator import Generator
from bench.measure import CallsFailed, Settings, measure
from bench.report import commit, write
from bench.rows import Row, Target, Turn
from bench.system import ENVIRONMENT
from bench.users import Users
from devstack.config import HOST

# No login is measured, so passwords have bcrypt's lowest cost.
SIDE_ENVIRONMENT: Final = ENVIRONMENT | {"BCRYPT_COST": "4"}
PROCESSES: Final = ("service", "gateway", "postgres", "valkey")
ALL: Final = "all"
START_SECONDS: Final = 120.0


class SideFailed(Exception):
    """A checkout's system did not start."""


@dataclass(frozen=True, slots=True)
class Side:
    """A checkout, its running system, and the calls that its users make."""

    version: str
    grpc: Target
    rest: Target
    calls: Sequence[Calls]
    users: Users


def main() -> None:
    """Parses the command line, runs the comparison, writes the JSON and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compares the CPU per call of two checkouts.")
    parser.add_argument("old", type=Path, metavar="OLD", help="a folder with another checkout and its .venv")
    parser.add_argument("new", type=Path, nargs="?", default=Path(), metavar="NEW", help="the folder to compare with it (this one)")
    parser.add_argument("--callers", type=int, default=32, metavar="N", help="concurrent callers (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds of each row and side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, metavar="S", help="seconds of each round (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose name contains WORD: GetTask, REST, 'gRPC GetTask' …")
    parser.add_argument("--output", type=Path, default=Path("bench-results/compare.json"), metavar="FILE", help="the JSON file to write")
    args = parser.parse_args()
    settings = Settings(callers=args.callers, rounds=args.rounds, seconds=args.seconds, only=args.only)
    try:
        results = asyncio.run(run(args.old, args.new, settings))
    except (CallsFailed, SideFailed) as error:
        sys.exit(str(error))
    write(results, args.output)
    print(f"{table(results)}\n\nwritten to {args.output}")


async def run(old: Path, new: Path, settings: Settings) -> dict[str, Any]:
    """Starts both systems, the second after the first is ready, and measures them. Raises CallsFailed and SideFailed."""
    async with running(old) as before, running(new) as after, Generator.running() as generator:
        found = [row for row in rows(before, after) if row.matches(settings.only)]
        await measure(generator, found, settings)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "load_average": os.getloadavg()},
        "settings": {**dataclasses.asdict(settings), "profile": None},
        "versions": {"old": before.version, "new": after.version},
        "rows": [{"way": row.way, "calls": row.name, **figures(row)} for row in found],
    }


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Side]:
    """Runs the system of a checkout and creates its users and tasks. Raises SideFailed."""
    folder = await asyncio.to_thread(folder.resolve)
    python = folder / ".venv" / "bin" / "python"
    if not await asyncio.to_thread(python.exists):
        raise SideFailed(f"{python} does not exist: run `make .venv/installed gen/descriptors.binpb` in that checkout")
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-P", side.__file__, json.dumps(SIDE_ENVIRONMENT)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=folder
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise SideFailed(f"the system of {folder} did not start")
        yield await _prepared(commit(folder), json.loads(line))
    finally:
        process.stdin.close()
        await process.wait()


async def _prepared(name: str, found: Mapping[str, Any]) -> Side:
    ports, processes = found["ports"], found["processes"]
    users = await Users.create(f"http://{HOST}:{ports['rest']}", workload.USERS)
    async with grpc.aio.insecure_channel(f"{HOST}:{ports['grpc']}") as channel:
        by_rpc, by_scenario = await workload.prepare(users.accounts, channel)
    direct = {process: pid for process, pid in processes.items() if process != "gateway"}
    return Side(name, Target(ports["grpc"], direct), Target(ports["rest"], processes), [*by_rpc, *by_scenario], users)


def rows(old: Side, new: Side) -> list[Row]:
    """Returns the rows of both ways, without rounds."""
    pairs = list(zip(old.calls, new.calls, strict=True))
    return [
        *(Row("gRPC", "grpc", Turn(old.grpc, before, old.users), Turn(new.grpc, after, new.users)) for before, after in pairs),
        *(Row("REST", "http", Turn(old.rest, before, old.users), Turn(new.rest, after, new.users)) for before, after in pairs),
    ]


def figures(row: Row) -> dict[str, Any]:
    """Returns the medians of the CPU µs per call by process, and the ratios new / old.

    A ratio is the median of the ratios of successive rounds. It is None if a process used no CPU time in a round.
    """
    old, new = _costs(row.base), _costs(row.system)
    ratios = {name: [after / before if before else None for before, after in zip(old[name], new[name], strict=True)] for name in old}
    return {
        "old_us": {name: round(median(values), 1) for name, values in old.items()},
        "new_us": {name: round(median(values), 1) for name, values in new.items()},
        "ratio": {name: _median(values) for name, values in ratios.items()},
        "ratio_by_round": {name: [value and round(value, 3) for value in values] for name, values in ratios.items()},
    }


def _costs(turn: Turn) -> Mapping[str, Sequence[float]]:
    """Returns the CPU µs per call of each round, by process, and of all processes together."""
    names = [name for name in PROCESSES if name in turn.target.processes]
    costs = {name: [done.cpu_seconds[name] / len(done.latencies) * 1e6 for done in turn.rounds] for name in names}
    return costs | {ALL: [sum(values) for values in zip(*costs.values(), strict=True)]}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 3) if len(known) == len(values) else None


def table(results: Mapping[str, Any]) -> str:
    """Returns the figures as a table for the terminal."""
    settings, versions = results["settings"], results["versions"]
    lines = [
        f"old {versions['old']}, new {versions['new']}; {settings['callers']} callers, {settings['rounds']} rounds of {settings['seconds']:g} s each",
        "",
        f"{'CPU µs per call':<38}" + "".join(f"{name:>10}" for name in (*PROCESSES, ALL)) + "   lowest-highest",
    ]
    for row in results["rows"]:
        by_round = [value for value in row["ratio_by_round"][ALL] if value is not None]
        lines += [
            _line(f"{row['way']} {row['calls']}", "old", row["old_us"], 0),
            _line("", "new", row["new_us"], 0),
            f"{_line('', 'ratio', row['ratio'], 2)}   {min(by_round):.2f}-{max(by_round):.2f}",
        ]
    return "\n".join(lines)


def _line(name: str, what: str, values: Mapping[str, float | None], digits: int) -> str:
    cells = ("-" if (value := values.get(process)) is None else f"{value:.{digits}f}" for process in (*PROCESSES, ALL))
    return f"{name:<32} {what:<5}" + "".join(f"{cell:>10}" for cell in cells)


if __name__ == "__main__":
    main()
