"""Calls a system through its gateway while a command changes it, and reports the calls that failed.

`python -m tests.deploy.kind.load --url http://HOST:PORT --report FOLDER --name WHAT -- COMMAND…`: makes task calls over gRPC and REST, logins,
refreshes, and calls with the new tokens, without retries. It also watches changes: a drain may end the watch, which then resumes, but no change may
be missing or come twice.
Adds a line to FOLDER/report.jsonl and a row to FOLDER/report.md. Exits with 0 only if the command did and no call failed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc.aio
import httpx

from tests.deploy.kind.follower import Follower
from tests.deploy.kind.sessions import Sessions
from tests.support.accounts import make_account
from tests.support.load import OK, Client, Load, Outcome, mixed_client
from tests.support.task_api import TIMEOUT_SECONDS, GrpcTasks, RestTasks
from tests.support.watchers import over_grpc

GRPC_CALLERS, REST_CALLERS = 6, 2
# Operations that must have been called, whatever their results.
OPERATIONS = frozenset({"get", "rename", "list", "create", "delete", "login", "refresh", "me", "followed"})
# Limits the load to some hundred calls per second, so that it does not take the CPU from the system under test.
PAUSE_SECONDS = 0.02
# Load before and after the change: after it, a load balancer that still sends calls to a stopped pod fails.
SETTLE_SECONDS = 3.0
SHOWN_FAILURES = 20

HEAD = (
    "| under load | seconds | calls | logins | refreshes | changes told | watch resumed | failed | p50 ms | p99 ms | slowest ms |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


@dataclass(frozen=True, slots=True)
class Report:
    """The results of the calls during one change."""

    name: str
    seconds: float
    calls: int
    logins: int
    refreshes: int
    # Changes that the watch delivered, and how often it resumed.
    told: int
    resumed: int
    # Failed calls and faults of the watch.
    failed: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    # Operation, code and message of the first failed calls, and the first faults of the watch.
    failures: list[str]

    @property
    def row(self) -> str:
        """The report as a row of the Markdown table below HEAD."""
        times = f"{self.p50_ms:.1f} | {self.p99_ms:.1f} | {self.slowest_ms:.1f}"
        counts = " | ".join(map(str, (self.calls, self.logins, self.refreshes, self.told, self.resumed, self.failed)))
        return f"| {self.name} | {self.seconds:.0f} | {counts} | {times} |\n"


async def under_load(url: str, name: str, change: Callable[[], Awaitable[None]], settle_seconds: float = SETTLE_SECONDS) -> Report:
    """Makes calls during the change, and for `settle_seconds` before and after it."""
    async with AsyncExitStack() as stack:
        clients, follower = await _clients(url, stack)
        began = time.monotonic()
        async with Load(clients, pause_seconds=PAUSE_SECONDS) as load:
            await asyncio.sleep(settle_seconds)
            await change()
            await asyncio.sleep(settle_seconds)
        return summary(name, time.monotonic() - began, load.outcomes, await follower.faults(), told=follower.told, resumed=follower.resumed)


def summary(name: str, seconds: float, outcomes: Sequence[Outcome], faults: Sequence[str], *, told: int, resumed: int) -> Report:
    """Returns the report on these calls and this watch. Raises ValueError if an operation was never called, because then it was not tested."""
    made = Counter(outcome.operation for outcome in outcomes)
    if missing := OPERATIONS - made.keys():
        raise ValueError(f"no call was made: {', '.join(sorted(missing))}")
    times = sorted(outcome.seconds * 1000 for outcome in outcomes)
    p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
    failures = [f"{outcome.operation}: {outcome.message or outcome.code}" for outcome in outcomes if outcome.code != OK]
    shown = [*failures[:SHOWN_FAILURES], *faults[:SHOWN_FAILURES]]
    counts = (len(outcomes), made["login"], made["refresh"], told, resumed, len(failures) + len(faults))
    return Report(name, seconds, *counts, p50, p99, times[-1], shown)


async def _clients(url: str, stack: AsyncExitStack) -> tuple[list[Client], Follower]:
    """Returns clients with separate connections, like independent clients, and the follower of the changes of one of them."""

    async def rest() -> httpx.AsyncClient:
        return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS))

    async def channel() -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return await stack.enter_async_context(grpc.aio.insecure_channel(url.removeprefix("http://"), options=options))

    sessions = await rest()
    account, watched = await make_account(sessions), await make_account(sessions)
    follower = await stack.enter_async_context(Follower(over_grpc(await channel()), watched))
    apis = [*[GrpcTasks(await channel(), account) for _ in range(GRPC_CALLERS)], *[RestTasks(await rest(), account) for _ in range(REST_CALLERS)]]
    clients = [await mixed_client(api) for api in apis]
    return [*clients, Sessions(sessions, account).client(), await follower.writing(GrpcTasks(await channel(), watched))], follower


def write(report: Report, folder: Path) -> None:
    """Appends the report to the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "report.md"
    with table.open("a", encoding="utf-8") as file:
        file.write(("" if table.stat().st_size else HEAD) + report.row)
    with (folder / "report.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(report)) + "\n")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.kind.load", description="Calls a system while a command changes it.")
    parser.add_argument("--url", required=True, help="the URL of the gateway, http://HOST:PORT")
    parser.add_argument("--report", type=Path, required=True, help="the folder for report.md and report.jsonl")
    parser.add_argument("--name", required=True, help="the name of the change in the report")
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, metavar="SECONDS", help="load before and after it (default: %(default)s)")
    parser.add_argument("--failures-expected", action="store_true", help="calls may fail: the exit status is that of the command")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    statuses: list[int] = []

    async def change() -> None:
        process = await asyncio.create_subprocess_exec(*arguments.command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        statuses.append(await process.wait())

    report = asyncio.run(under_load(arguments.url, arguments.name, change, arguments.settle))
    write(report, arguments.report)
    sys.stdout.write(HEAD + report.row + "".join(f"failed: {line}\n" for line in report.failures))
    return int((report.failed > 0 and not arguments.failures_expected) or statuses != [0])


if __name__ == "__main__":
    sys.exit(main())
