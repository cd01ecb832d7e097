"""Compares the CPU per call with an API token and with a session's access token: `python -m bench.api_tokens`.

Both make the same calls to the same system, and short rounds of both alternate. An API token costs what the gateway and auth_service spend on its
exchange. Each token is used before the rounds, so auth_service has its access token.
"""

import argparse
import asyncio
import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import grpc.aio
import httpx

from bench import workload
from bench.generator import Generator
from bench.measure import CallsFailed, Settings, measure
from bench.report import commit, write
from bench.rows import Row, Target, Turn
from bench.system import ENVIRONMENT
from bench.users import Users
from devstack.config import HOST, PROJECT_ROOT, StackConfig
from devstack.stack import Stack
from tests.support.accounts import Account, make_api_token

# What an API token may cost more per call, in µs of CPU, at the gateway and auth_service together.
AIM_US: Final = 150.0
PROCESSES: Final = {"gateway": "gateway", "auth": "auth-1", "service": "task-1"}
# The processes whose costs the aim limits.
LIMITED: Final = ("gateway", "auth")
CALLS: Final = "GetTask"


class TokenUsers(Users):
    """Users who call with API tokens."""

    def __init__(self, accounts: list[Account], tokens: Mapping[str, str]) -> None:
        super().__init__("", accounts)
        self._tokens = tokens

    async def tokens(self) -> Mapping[str, str]:
        """Returns the API token of each user, by the user's id."""
        return self._tokens


def main() -> None:
    """Parses the command line, runs the comparison, writes the JSON and prints the table. The exit status is 1 if the aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.api_tokens", description="Compares API tokens with access tokens of sessions.")
    parser.add_argument("--callers", type=int, default=16, metavar="N", help="concurrent callers (%(default)s)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds of each row and kind of token (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, metavar="S", help="seconds of each round (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("bench-results/api_tokens.json"), metavar="FILE", help="the JSON file to write")
    args = parser.parse_args()
    try:
        results = asyncio.run(run(Settings(callers=args.callers, rounds=args.rounds, seconds=args.seconds)))
    except CallsFailed as error:
        sys.exit(str(error))
    write(results, args.output)
    print(f"{table(results)}\n\nwritten to {args.output}")
    sys.exit(any(row["median_us"] > AIM_US for row in results["rows"]))


async def run(settings: Settings) -> dict[str, Any]:
    """Starts the system and measures. Raises CallsFailed."""
    with tempfile.TemporaryDirectory(prefix="task-manager-api-tokens-") as folder:
        async with (
            Stack(StackConfig(environment=ENVIRONMENT | {"BCRYPT_COST": "4"}, data_dir=Path(folder) / "data")) as stack,
            Generator.running() as generator,
        ):
            found = await rows(stack)
            await measure(generator, found, settings)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "load_average": os.getloadavg()},
        "settings": {**dataclasses.asdict(settings), "profile": None},
        "version": commit(PROJECT_ROOT),
        "rows": [{"way": row.way, "calls": row.name, **figures(row)} for row in found],
    }


async def rows(stack: Stack) -> list[Row]:
    """Creates the users, their tasks and their API tokens. Returns the rows of both ways through the gateway, without rounds."""
    processes, url = stack.state.processes, stack.state.url
    users = await Users.create(url, workload.USERS)
    async with grpc.aio.insecure_channel(f"{HOST}:{processes['task-1'].grpc_port}") as channel:
        by_rpc, _ = await workload.prepare(users.accounts, channel)
    async with httpx.AsyncClient(base_url=url, timeout=60) as rest:
        tokens = {account.id: (await make_api_token(rest, account, "tasks:read"))[1] for account in users.accounts}
    (calls,) = (each for each in by_rpc if each.name == CALLS)
    port = processes["gateway"].port
    assert port is not None
    target = Target(port, {figure: processes[name].pid or 0 for figure, name in PROCESSES.items()})
    sessions, with_tokens = Turn(target, calls, users), Turn(target, calls, TokenUsers(users.accounts, tokens))
    return [
        Row("REST", "http", sessions, with_tokens),
        Row("gRPC", "grpc", dataclasses.replace(sessions, rounds=[]), dataclasses.replace(with_tokens, rounds=[])),
    ]


def figures(row: Row) -> dict[str, Any]:
    """Returns the medians of the CPU µs per call by process, and the differences of the limited processes in successive rounds."""
    session, token = _costs(row.base), _costs(row.system)
    differences = [sum(token[name][i] - session[name][i] for name in LIMITED) for i in range(len(row.base.rounds))]
    low, _, high = quantiles(differences, n=4)
    return {
        "session_us": {name: round(median(values), 1) for name, values in session.items()},
        "token_us": {name: round(median(values), 1) for name, values in token.items()},
        "median_us": round(median(differences), 1),
        "quartiles_us": [round(low, 1), round(high, 1)],
        "by_round_us": [round(value, 1) for value in differences],
    }


def _costs(turn: Turn) -> Mapping[str, Sequence[float]]:
    return {name: [done.cpu_seconds[name] / len(done.latencies) * 1e6 for done in turn.rounds] for name in PROCESSES}


def table(results: Mapping[str, Any]) -> str:
    """Returns the figures as a table for the terminal."""
    lines = [f"{results['version']}; CPU µs per call", "", f"{'':<24}" + "".join(f"{name:>10}" for name in PROCESSES)]
    for row in results["rows"]:
        lines += [_line(f"{row['way']} {row['calls']}", "session", row["session_us"]), _line("", "API token", row["token_us"])]
        low, high = row["quartiles_us"]
        lines.append(f"  more at gateway and auth_service: {row['median_us']:g} (quartiles {low:g} to {high:g}), aim {AIM_US:g} at most")
    return "\n".join(lines)


def _line(name: str, what: str, values: Mapping[str, float]) -> str:
    return f"{name:<13} {what:<10}" + "".join(f"{values[process]:>10.0f}" for process in PROCESSES)


if __name__ == "__main__":
    main()
