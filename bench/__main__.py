"""`python -m bench`: runs the benchmark, prints a table and writes the figures as JSON."""

import argparse
import asyncio
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from bench import batches, logins, report, soak, watches
from bench.measure import CallsFailed, Settings, measure
from bench.system import System


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures calls per second, latency and CPU per call, beside their floors.")
    parser.add_argument("--output", type=Path, default=Path("bench-results/latest.json"), metavar="FILE", help="the JSON file to write")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a smoke test, the figures are imprecise")
    parser.add_argument("--callers", type=int, metavar="N", help="concurrent callers (32)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each row (3)")
    parser.add_argument("--seconds", type=float, metavar="S", help="seconds of each round (1.3)")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="only rows whose name contains WORD: GetTask, REST, 'straight to the service GetTask' …"
    )
    parser.add_argument(
        "--rate", type=rates, default=(), metavar="N[,N…]", help="measure the rows in an open loop instead, at these rates, in calls per second"
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="run the task service under cProfile, which makes it slower, and write the profile to FILE"
    )
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="only load the system for so long, and show whether its memory grows")
    args = parser.parse_args()
    settings = Settings.quick() if args.quick else Settings()
    given = {name: getattr(args, name) for name in ("callers", "rounds", "seconds") if getattr(args, name) is not None}
    try:
        settings = dataclasses.replace(settings, only=args.only, rates=args.rate, profile=args.profile, **given)
        asyncio.run(run_soak(settings, args.soak) if args.soak else run(settings, args.output))
    except CallsFailed as error:
        sys.exit(str(error))


async def run(settings: Settings, output: Path) -> None:
    """Runs the measurements, writes the JSON and prints the table."""
    async with System(settings.profile) as system:
        measured = await (open_loops if settings.rates else closed_loop)(system, settings)
    results = report.head(settings) | measured
    report.write(results, output)
    print(report.table(results))
    print(f"\nwritten to {output}")


async def run_soak(settings: Settings, minutes: float) -> None:
    """Loads the system and prints its memory."""
    async with System(settings.profile) as system:
        print(soak.table(await soak.soak(system, settings, minutes)))


async def closed_loop(system: System, settings: Settings) -> dict[str, Any]:
    """Measures the rows in a closed loop, then the calls beside logins, the batches and the idle watches."""
    rows, only = system.rows(settings.only), settings.only.lower()
    await measure(system.generator, rows, settings)
    beside = logins.figures(await logins.measure(system, settings)) if only in logins.NAME else None
    batch = batches.figures(await batches.measure(system, settings)) if only in batches.NAME else None
    memory = {"at_rest": system.memory_at_rest, "after": system.memory()}
    idle = watches.figures(await watches.measure(system)) if only in watches.NAME else None
    figures = [report.figures_of(row) for row in rows]
    return {"rows": figures, "open_loop": [], "memory_bytes": memory, "beside_logins": beside, "batches": batch, "idle_watches": idle}


async def open_loops(system: System, settings: Settings) -> dict[str, Any]:
    """Measures the rows at each rate."""
    loads = []
    for rate in settings.rates:
        rows = system.rows(settings.only)
        await measure(system.generator, rows, settings, rate)
        loads.append({"rate": rate, "rows": [report.figures_of(row) for row in rows]})
    memory = {"at_rest": system.memory_at_rest, "after": system.memory()}
    return {"rows": [], "open_loop": loads, "memory_bytes": memory, "beside_logins": None, "batches": None, "idle_watches": None}


def rates(text: str) -> tuple[float, ...]:
    """Parses the rates of the command line: positive numbers, separated by commas. Raises ValueError."""
    found = tuple(float(part) for part in text.split(","))
    if not all(math.isfinite(rate) and rate > 0 for rate in found):
        raise ValueError(text)
    return found


if __name__ == "__main__":
    main()
