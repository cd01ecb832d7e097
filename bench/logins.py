"""What a burst of logins does to the calls beside it: GetTask with nothing else to do, and with so many logins at once all the time, in turn."""

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
# Few, so that the machine is idle but for them: what is asked is how long a call takes, not how many there can be.
CALLERS: Final = 1
# For the queue of hashes to fill.
BURST_SETTLE_SECONDS: Final = 1.0
# How many times the idle p99 the other one may be.
AIM: Final = 3
# What `--only` is compared with.
NAME: Final = "beside logins gettask"
LOGIN: Final = "/taskmanager.auth.v1.AuthService/Login"


@dataclass(slots=True)
class BesideLogins:
    """Rounds of GetTask, and the logins that were answered meanwhile."""

    idle: list[Round] = field(default_factory=list)
    busy: list[Round] = field(default_factory=list)
    logins: int = 0


async def measure(system: System, settings: Settings) -> BesideLogins:
    """As many rounds of each as the other rows have. Raises CallsFailed."""
    found = BesideLogins()
    for _ in range(settings.rounds):
        found.idle.append(await _round(system, settings))
        async with _burst(system, found):
            await asyncio.sleep(BURST_SETTLE_SECONDS)
            found.busy.append(await _round(system, settings))
    return found


async def _round(system: System, settings: Settings) -> Round:
    target = system.ways[0].service
    job = Job("grpc", target.port, CALLERS, settings.settle_seconds, settings.seconds, target.processes, system.rpcs[0].grpc)
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
    return system.accounts[:LOGINS_AT_ONCE]


def figures(found: BesideLogins) -> dict[str, Any]:
    """Percentiles of all calls of either kind, in ms."""
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
