"""Measures how a burst of logins affects other calls: GetTask alternately on an idle system and with 16 concurrent logins."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc.aio
from taskmanager.auth.v1 import auth_service_pb2

from bench.jobs import Job, Round
from bench.measure import CallsFailed, Settings
from bench.system import System
from devstack.config import HOST
from tests.support.accounts import PASSWORD, Account

LOGINS_AT_ONCE: Final = 16
# One caller keeps the machine otherwise idle. This measures the latency of a call, not the throughput.
CALLERS: Final = 1
# The time in which the queue of password hashes fills.
BURST_SETTLE_SECONDS: Final = 1.0
# The goal: the p99 with logins is at most this many times the idle p99.
AIM: Final = 3
# The name that `--only` is matched against.
NAME: Final = "beside logins gettask"
LOGIN: Final = "/taskmanager.auth.v1.AuthService/Login"


@dataclass(slots=True)
class BesideLogins:
    """The rounds of GetTask, and the number of logins that succeeded meanwhile."""

    idle: list[Round] = field(default_factory=list)
    busy: list[Round] = field(default_factory=list)
    logins: int = 0


async def measure(system: System, settings: Settings) -> BesideLogins:
    """Measures both cases, with as many rounds as the other rows. Raises CallsFailed."""
    found = BesideLogins()
    for _ in range(settings.rounds):
        found.idle.append(await _round(system, settings))
        async with _burst(system, found):
            await asyncio.sleep(BURST_SETTLE_SECONDS)
            found.busy.append(await _round(system, settings))
    return found


async def _round(system: System, settings: Settings) -> Round:
    target = system.ways[0].service
    job = Job(
        "grpc",
        target.port,
        CALLERS,
        settings.settle_seconds,
        settings.seconds,
        target.processes,
        await system.users.tokens(),
        system.rpcs[0].over("grpc"),
    )
    result = await system.run(job)
    if result.failures or not result.latencies:
        raise CallsFailed(f"beside logins: {result.failures} calls failed; {result.first_failure}")
    return result


@contextlib.asynccontextmanager
async def _burst(system: System, found: BesideLogins) -> AsyncIterator[None]:
    async with grpc.aio.insecure_channel(f"{HOST}:{system.auth_port}") as channel:
        tasks = [asyncio.create_task(_log_in(channel, account, found)) for account in _accounts(system)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise CallsFailed(f"a login failed: {error}")


async def _log_in(channel: grpc.aio.Channel, account: Account, found: BesideLogins) -> None:
    login: Any = channel.unary_unary(LOGIN)
    request = auth_service_pb2.LoginRequest(email=account.email, password=PASSWORD).SerializeToString()
    while True:
        await login(request, timeout=30)
        found.logins += 1


def _accounts(system: System) -> Sequence[Account]:
    return system.users.accounts[:LOGINS_AT_ONCE]


def figures(found: BesideLogins) -> dict[str, Any]:
    """Returns the percentiles of all calls in each case, in ms."""
    idle, busy = (sorted(latency for round_ in rounds for latency in round_.latencies) for rounds in (found.idle, found.busy))
    at = {"p50_ms": 50, "p99_ms": 99}
    values = {
        name: {key: round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1000, 2) for key, percent in at.items()}
        for name, ordered in (("idle", idle), ("busy", busy))
    }
    return {
        "callers": CALLERS,
        "logins_at_once": LOGINS_AT_ONCE,
        "logins": found.logins,
        **values,
        "ratio": round(values["busy"]["p99_ms"] / values["idle"]["p99_ms"], 2),
    }
