"""Measures the system and its rivals in turns, with the rivals' own benchmark: `python -m bench.rivals FOLDER`.

FOLDER has a `bench.py` with the interface that `_command` uses, and the rivals that it starts by name. Its setup has installed what the rivals need
in the folder that the environment variable PEERS_HOME names. The system runs two replicas of task_service behind Envoy, with its own stores, for the
whole run; a rival runs only in its turn. Each round measures all scenarios of each target. Every other round runs in reverse order, so that a drift
of the machine affects all alike.

A rival begins each scenario with the tasks just written, a vacuumed database and an empty cache. So each scenario of the system has a new user, whose
tasks are in no cache.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc.aio
import httpx

from bench import aims
from bench.aims import OURS
from bench.report import commit, write
from bench.seeding import seed, varied_task
from bench.system import ENVIRONMENT
from devstack import ports
from devstack.config import HOST, PROJECT_ROOT, StackConfig
from devstack.errors import StackError
from devstack.stack import Stack
from devstack.state import State
from tests.support.accounts import Account, make_account

TASK_REPLICAS: Final = 2
REST: Final = "/api/v1/tasks"
TASK: Final = {
    "title": "Write the report",
    "description": "All of the chapters, then the summary.",
    "status": "PENDING",
    "priority": 3,
    "due_date": "2030-12-24T12:00:00Z",
}
# No two updates write the same title, so that each of them changes the task. The rivals' benchmark replaces @seq@ and @id@.
CHANGED: Final = TASK | {"title": "Write the report @seq@", "status": "IN_PROGRESS"}


class BenchmarkFailed(Exception):
    """The rivals' benchmark ended with an error, or its figures are useless."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The folder of the rivals, and the extent of the run."""

    folder: Path
    rounds: int
    seconds: float
    connections: int
    tasks: int
    scenarios: str
    noise: float


def main() -> None:
    """Parses the command line, runs the benchmark, writes the JSON and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals", description="Measures the system and its rivals in turns, and prints the ratios.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of the rivals, after its setup")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each target (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="seconds of each measurement (%(default)s)")
    parser.add_argument("--connections", type=int, default=32, metavar="N", help="concurrent connections (%(default)s)")
    parser.add_argument("--tasks", type=int, default=10_000, metavar="N", help="tasks of the user (%(default)s)")
    parser.add_argument("--scenarios", default="".join(aims.SCENARIOS), metavar="LETTERS", help="the scenarios to run (%(default)s)")
    parser.add_argument("--noise", type=float, default=0.1, metavar="SHARE", help="repeat a measurement if other programs use more (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("bench-results/rivals.json"), metavar="FILE", help="the JSON file to write")
    args = parser.parse_args()
    if not (args.folder / "bench.py").is_file():
        parser.error(f"{args.folder} has no bench.py: name the folder of the rivals")
    extent = Extent(args.folder, args.rounds, args.seconds, args.connections, args.tasks, args.scenarios, args.noise)
    try:
        rows = asyncio.run(run(extent))
    except (BenchmarkFailed, StackError) as error:
        sys.exit(str(error))
    settings = {name: value for name, value in asdict(extent).items() if name != "folder"}
    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    head = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(PROJECT_ROOT), "machine": machine, "settings": settings}
    write({**head, "rows": rows}, args.output)
    print(f"commit {head['commit']}, {args.rounds} rounds of {args.seconds:g} s, {args.connections} connections, {args.tasks} tasks\n")
    print(f"{aims.table(rows)}\n\nwritten to {args.output}")


async def run(extent: Extent) -> list[dict[str, Any]]:
    """Starts the system and returns the rows of all rounds. Raises BenchmarkFailed."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="task-manager-rivals-") as name:
        folder = Path(name)
        # With a data directory, PostgreSQL runs with fsync, as the rivals' does.
        config = StackConfig(environment=ENVIRONMENT, task_replicas=TASK_REPLICAS, data_dir=folder / "data")
        async with Stack(config) as stack:
            for number in range(1, extent.rounds + 1):
                print(f"round {number} of {extent.rounds}; in the lines below each round is round 1", file=sys.stderr)
                targets = (OURS, aims.GO, aims.FASTAPI)
                for target in targets if number % 2 else targets[::-1]:
                    found = await (
                        _ours(extent, stack.state, folder) if target == OURS else _measured(extent, ("--targets", target), extent.scenarios, folder)
                    )
                    rows += [row | {"round": number} for row in found]
    return rows


async def _ours(extent: Extent, state: State, folder: Path) -> list[dict[str, Any]]:
    """Measures each scenario of the system with a new user."""
    rows = []
    for scenario in extent.scenarios:
        account = await _prepared(extent, state, folder / "ids")
        rows += await _measured(extent, _command(state, account, folder / "ids"), scenario, folder)
    return rows


async def _prepared(extent: Extent, state: State, ids: Path) -> Account:
    """Creates a user with tasks, writes their ids to a file, and leaves PostgreSQL nothing to do afterwards."""
    async with httpx.AsyncClient(base_url=state.url, timeout=60) as rest:
        account = await make_account(rest)
    async with grpc.aio.insecure_channel(f"{HOST}:{state.processes['task-1'].grpc_port}") as channel:
        found = await seed(channel, account, [varied_task(number) for number in range(extent.tasks)])
    await asyncio.to_thread(ids.write_text, "".join(f"{task_id}\n" for task_id in found))
    database = await asyncpg.connect(state.database_url)
    try:
        await database.execute("VACUUM ANALYZE")
        await database.execute("CHECKPOINT")
    finally:
        await database.close()
    return account


def _command(state: State, account: Account, ids: Path) -> Sequence[str]:
    """Returns the arguments that make the rivals' benchmark measure the system."""
    pids = {name: process.pid for name, process in state.processes.items()}
    groups = {
        # The benchmark repeats measurements that other programs disturbed only if there is a group `target`.
        "target": [pid for name, pid in pids.items() if name.startswith(("task-", "auth-"))],
        "gateway": [pids["gateway"]],
        "postgres": [pids["postgres"]],
        "valkey": [pids["valkey"]],
    }
    fields = ",".join(TASK)
    return (
        *("--targets", "url", "--url", f"http://{HOST}:{state.processes['gateway'].port}", "--url-name", OURS, "--token", account.access_token),
        *(argument for name, group in groups.items() for argument in ("--pids", f"{name}={','.join(map(str, group))}")),
        *("--ids-file", str(ids), "--path-list", f"{REST}?page_size=20", "--path-deep", f"{REST}?page_size=20&skip=@deep@"),
        *("--body-create", json.dumps(TASK), "--update-method", "PATCH", "--path-update", f"{REST}/@id@?update_mask={fields}"),
        *("--body-update", json.dumps(CHANGED), "--body-login", json.dumps({"email": account.email, "password": account.password})),
    )


async def _measured(extent: Extent, arguments: Sequence[str], scenarios: str, folder: Path) -> list[dict[str, Any]]:
    """Runs one round of the rivals' benchmark, whose progress goes to stderr, and returns its rows. Raises BenchmarkFailed."""
    output, free = folder / "rows.json", ports.allocate(StackConfig())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(extent.folder / "bench.py"), "run", *arguments, "--rounds", "1", "--scenarios", scenarios, "--out", str(output)),
        *("--n", str(extent.tasks), "--duration", str(extent.seconds), "--connections", str(extent.connections), "--noise", str(extent.noise)),
        *("--port", str(free.gateway), "--pg-port", str(free.postgres), "--valkey-port", str(free.valkey)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if status:
        raise BenchmarkFailed(f"the rivals' benchmark ended with status {status}; PEERS_HOME must name the folder that its setup has filled")
    rows: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))["rows"]
    for row in rows:
        if not row["requests"]:
            raise BenchmarkFailed(f"no request of scenario {row['scenario']} of {row['target']} ended within {extent.seconds:g} s")
    return rows


if __name__ == "__main__":
    main()
