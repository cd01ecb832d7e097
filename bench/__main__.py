"""`python -m bench`: runs the benchmark, prints a table and writes the figures as JSON."""

import argparse
import asyncio
import dataclasses
import sys
from pathlib import Path

from bench import batches, logins, report, watches
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
        "--profile", type=Path, metavar="FILE", help="run the task service under cProfile, which makes it slower, and write the profile to FILE"
    )
    args = parser.parse_args()
    settings = Settings.quick() if args.quick else Settings()
    given = {name: getattr(args, name) for name in ("callers", "rounds", "seconds") if getattr(args, name) is not None}
    try:
        asyncio.run(run(dataclasses.replace(settings, only=args.only, profile=args.profile, **given), args.output))
    except CallsFailed as error:
        sys.exit(str(error))


async def run(settings: Settings, output: Path) -> None:
    """Runs the measurements, writes the JSON and prints the table."""
    async with System(settings.profile) as system:
        rows = system.rows(settings.only)
        await measure(system.generator, rows, settings)
        beside = logins.figures(await logins.measure(system, settings)) if settings.only.lower() in logins.NAME else None
        batch = batches.figures(await batches.measure(system, settings)) if settings.only.lower() in batches.NAME else None
        idle = watches.figures(await watches.measure(system)) if settings.only.lower() in watches.NAME else None
    results = report.results(rows, settings) | {"beside_logins": beside, "batches": batch, "idle_watches": idle}
    report.write(results, output)
    print(report.table(results))
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
