"""Calls a system through its gateway while a command changes it, and reports the calls that failed.

`python -m tests.deploy.kind.load --url http://HOST:PORT --report FOLDER --name WHAT -- COMMAND…`: calls of tasks by gRPC and REST, logins, refreshes,
and calls with the tokens that these give, without a retry of its own. And it follows changes: a drain may end the watch, which then goes on, and
no change may be left out or told twice.
Adds a line to FOLDER/report.jsonl and a row to FOLDER/report.md. Exit status 0 only if the command's is, and no call failed.
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
# What must have been tried, whatever becomes of it.
OPERATIONS = frozenset({"get", "rename", "list", "create", "delete", "login", "refresh", "me", "followed"})
# So that the load does not take the processors from what it is to observe: some hundred calls a second.
PAUSE_SECONDS = 0.02
# Before the change and after it: a balancer that still sends to what is gone would fail now.
SETTLE_SECONDS = 3.0
SHOWN_FAILURES = 20

HEAD = (
    "| under load | seconds | calls | logins | refreshes | changes told | watch resumed | failed | p50 ms | p99 ms | slowest ms |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the calls during one change."""

    name: str
    seconds: float
    calls: int
    logins: int
    refreshes: int
    # Changes that the watch told of, and how often it went on from a token.
    told: int
    resumed: int
    # Calls, and what was wrong with the watch.
    failed: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    # Operation, code and message of the first calls, and what was wrong with the watch.
    failures: list[str]

    @property
    def row(self) -> str:
        """In Markdown, below HEAD."""
        times = f"{self.p50_ms:.1f} | {self.p99_ms:.1f} | {self.slowest_ms:.1f}"
        counts = " | ".join(map(str, (self.calls, self.logins, self.refreshes, self.told, self.resumed, self.failed)))
        return f"| {self.name} | {self.seconds:.0f} | {counts} | {times} |\n"


async def under_load(url: str, name: str, change: Callable[[], Awaitable[None]], settle_seconds: float = SETTLE_SECONDS) -> Report:
    """Calls until the change is done, and a moment before and after it."""
    async with AsyncExitStack() as stack:
        clients, follower = await _clients(url, stack)
        began = time.monotonic()
        async with Load(clients, pause_seconds=PAUSE_SECONDS) as load:
            await asyncio.sleep(settle_seconds)
            await change()
            await asyncio.sleep(settle_seconds)
        return summary(name, time.monotonic() - began, load.outcomes, await follower.faults(), told=follower.told, resumed=follower.resumed)


def summary(name: str, seconds: float, outcomes: Sequence[Outcome], faults: Sequence[str], *, told: int, resumed: int) -> Report:
    """The report on these calls and this watch. Raises ValueError if a kind of call was never made, since nothing was shown of it then."""
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
    """Each with a connection of its own, as clients are that know nothing of one another; and who follows what one of them does."""

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
    """Adds it to the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "report.md"
    with table.open("a", encoding="utf-8") as file:
        file.write(("" if table.stat().st_size else HEAD) + report.row)
    with (folder / "report.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(report)) + "\n")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.kind.load", description="Calls a system while a command changes it.")
    parser.add_argument("--url", required=True, help="of the gateway, http://HOST:PORT")
    parser.add_argument("--report", type=Path, required=True, help="the folder for report.md and report.jsonl")
    parser.add_argument("--name", required=True, help="what is changed, for the report")
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, metavar="SECONDS", help="of load before and after it (default: %(default)s)")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    statuses: list[int] = []

    async def change() -> None:
        process = await asyncio.create_subprocess_exec(*arguments.command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        statuses.append(await process.wait())

    report = asyncio.run(under_load(arguments.url, arguments.name, change, arguments.settle))
    write(report, arguments.report)
    sys.stdout.write(HEAD + report.row + "".join(f"failed: {line}\n" for line in report.failures))
    return int(report.failed > 0 or statuses != [0])


if __name__ == "__main__":
    sys.exit(main())
