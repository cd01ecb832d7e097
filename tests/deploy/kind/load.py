"""Calls a system through its gateway while a command changes it, and reports the calls that failed.

`python -m tests.deploy.kind.load --url http://HOST:PORT --report FOLDER --name WHAT -- COMMAND…`: by gRPC and REST, without a retry of its own.
Adds a line to FOLDER/report.jsonl and a row to FOLDER/report.md. Exit status 0 only if the command's is, and no call failed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc.aio
import httpx

from tests.support.accounts import make_account
from tests.support.load import Client, Load, Outcome, mixed_client
from tests.support.task_api import TIMEOUT_SECONDS, GrpcTasks, RestTasks

GRPC_CALLERS, REST_CALLERS = 6, 2
# So that the load does not take the processors from what it is to observe: some hundred calls a second.
PAUSE_SECONDS = 0.02
# Before the change and after it: a balancer that still sends to what is gone would fail now.
SETTLE_SECONDS = 3.0
SHOWN_FAILURES = 20

HEAD = "| under load | seconds | calls | failed | p50 ms | p99 ms | slowest ms |\n| --- | --- | --- | --- | --- | --- | --- |\n"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the calls during one change."""

    name: str
    seconds: float
    calls: int
    failed: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    # Operation, code and message of the first ones.
    failures: list[str]

    @property
    def row(self) -> str:
        """In Markdown, below HEAD."""
        times = f"{self.p50_ms:.1f} | {self.p99_ms:.1f} | {self.slowest_ms:.1f}"
        return f"| {self.name} | {self.seconds:.0f} | {self.calls} | {self.failed} | {times} |\n"


async def under_load(url: str, name: str, change: Callable[[], Awaitable[None]], settle_seconds: float = SETTLE_SECONDS) -> Report:
    """Calls until the change is done, and a moment before and after it."""
    async with _clients(url) as clients:
        began = time.monotonic()
        async with Load(clients, pause_seconds=PAUSE_SECONDS) as load:
            await asyncio.sleep(settle_seconds)
            await change()
            await asyncio.sleep(settle_seconds)
        return summary(name, time.monotonic() - began, load.outcomes, load.failures())


def summary(name: str, seconds: float, outcomes: Sequence[Outcome], failures: Sequence[Outcome]) -> Report:
    """The report on these calls. Raises ValueError if there are none, since nothing was shown then."""
    if not outcomes:
        raise ValueError("no call was made")
    times = sorted(outcome.seconds * 1000 for outcome in outcomes)
    p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
    shown = [f"{failure.operation}: {failure.message or failure.code}" for failure in failures[:SHOWN_FAILURES]]
    return Report(name, seconds, len(outcomes), len(failures), p50, p99, times[-1], shown)


@asynccontextmanager
async def _clients(url: str) -> AsyncIterator[list[Client]]:
    """Each with a connection of its own, as clients are that know nothing of one another."""
    async with AsyncExitStack() as stack:
        rest = [await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS)) for _ in range(REST_CALLERS)]
        account = await make_account(rest[0])
        options = [("grpc.use_local_subchannel_pool", 1)]
        target = url.removeprefix("http://")
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options)) for _ in range(GRPC_CALLERS)]
        apis = [*(GrpcTasks(channel, account) for channel in channels), *(RestTasks(client, account) for client in rest)]
        yield [await mixed_client(api) for api in apis]


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
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    statuses: list[int] = []

    async def change() -> None:
        process = await asyncio.create_subprocess_exec(*arguments.command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        statuses.append(await process.wait())

    report = asyncio.run(under_load(arguments.url, arguments.name, change))
    write(report, arguments.report)
    sys.stdout.write(HEAD + report.row + "".join(f"failed: {line}\n" for line in report.failures))
    return int(report.failed > 0 or statuses != [0])


if __name__ == "__main__":
    sys.exit(main())
