"""Measures whether memory grows under load: the mixed scenario over REST, while watches come and go."""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import grpc.aio
from taskmanager.task.v1 import task_service_pb2

from bench.calls import SERVICE
from bench.measure import Settings, measure
from bench.system import System
from devstack.config import HOST

ROW: Final = "REST, through the gateway g: mixed"
WATCHES: Final = 50
# A watch ends after a random time up to this, and another one begins.
WATCH_SECONDS: Final = 5.0
# Memory is read after each round of this length.
ROUND_SECONDS: Final = 20.0
SEED: Final = 1


async def soak(system: System, settings: Settings, minutes: float) -> list[dict[str, int]]:
    """Loads the system. Returns the resident memory in bytes of each process after each round. Raises CallsFailed."""
    row = system.rows(ROW)[0]
    # The floor is not of interest here.
    row = replace(row, base=row.system)
    found: list[dict[str, int]] = []
    async with _watching(system) as ended:
        for _ in range(round(minutes * 60 / ROUND_SECONDS / 2)):
            await measure(system.generator, [row], replace(settings, rounds=1, seconds=ROUND_SECONDS))
            found.append(system.memory())
            mebibytes = {name: round(size / 2**20, 1) for name, size in found[-1].items()}
            print(f"{mebibytes} MiB, {ended()} watches have ended", file=sys.stderr)
    return found


@contextlib.asynccontextmanager
async def _watching(system: System) -> AsyncIterator[Any]:
    ended, chance = 0, random.Random(SEED)

    async def watch(channel: grpc.aio.Channel) -> None:
        nonlocal ended
        while True:
            # The load renews the tokens before they expire.
            metadata = grpc.aio.Metadata(("authorization", f"Bearer {chance.choice(system.users.accounts).access_token}"))
            begin: Any = channel.unary_stream(SERVICE + "WatchTasks")
            call = begin(task_service_pb2.WatchTasksRequest().SerializeToString(), metadata=metadata)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0, WATCH_SECONDS)):
                    async for _ in call:
                        pass
            call.cancel()
            ended += 1

    async with grpc.aio.insecure_channel(f"{HOST}:{system.ways[2].service.port}") as channel:
        watches = [asyncio.create_task(watch(channel)) for _ in range(WATCHES)]
        try:
            yield lambda: ended
        finally:
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)


def table(found: list[dict[str, int]]) -> str:
    """Returns the memory after the first round and after the last one, and the largest."""
    lines = ["Resident memory in MiB: after the first round, the largest, after the last round"]
    for name in found[0]:
        first, most, last = (size / 2**20 for size in (found[0][name], max(each[name] for each in found), found[-1][name]))
        lines.append(f"  {name:<8} {first:6.1f} {most:6.1f} {last:6.1f}")
    return "\n".join(lines)
