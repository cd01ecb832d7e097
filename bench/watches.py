"""Measures the cost of idle watches: 2000 streams of 2000 users on one replica, which carry only heartbeats."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import grpc.aio
from taskmanager.task.v1 import task_service_pb2

from bench import cpu
from bench.calls import SERVICE
from bench.measure import CallsFailed
from bench.memory import resident
from bench.system import System
from devstack.config import HOST
from tests.contract.forgery import forge_of
from tests.support.observed import metric

WATCHES: Final = 2000
# The number of streams on one connection, similar to a gateway.
PER_CONNECTION: Final = 100
# The goal: one replica with idle watches uses less than this share of a core.
AIM: Final = 0.03
# The name that `--only` is matched against.
NAME: Final = "idle watches"
SETTLE_SECONDS: Final = 3.0
# The heartbeat interval: each stream sends one heartbeat in this time.
REST_SECONDS: Final = 45.0


@dataclass(frozen=True, slots=True)
class Idle:
    """The results. Memory of the service's process in bytes, CPU as a share of one core."""

    memory_before: int
    memory_with: int
    cpu_before: float
    cpu_with: float


async def measure(system: System) -> Idle:
    """Opens the streams and measures while they are idle. Raises CallsFailed if a stream ends."""
    target = system.ways[0].service
    pid = target.processes["service"]
    memory_before, cpu_before = resident(target.processes)["service"], await _cpu(pid, SETTLE_SECONDS * 2)
    async with contextlib.AsyncExitStack() as exits:
        channels = [
            await exits.enter_async_context(
                # Without this option all channels to the same address would share one connection.
                grpc.aio.insecure_channel(f"{HOST}:{target.port}", options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(WATCHES // PER_CONNECTION)
        ]
        forge = await forge_of(system.stack.state, system.users.accounts[0])
        tokens = [forge.signed(claims={"sub": str(uuid4()), "sid": str(uuid4())}) for _ in range(WATCHES)]
        reading = [asyncio.create_task(_watch(channels[n // PER_CONNECTION], token)) for n, token in enumerate(tokens)]
        await asyncio.sleep(SETTLE_SECONDS)
        while await metric(system.stack, "task-1", "task_watches") < WATCHES:
            if any(task.done() for task in reading):
                raise CallsFailed("a watch ended")
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_SECONDS)
        cpu_with = await _cpu(pid, REST_SECONDS)
        found = Idle(memory_before, resident(target.processes)["service"], cpu_before, cpu_with)
        if any(task.done() for task in reading):
            raise CallsFailed("a watch ended")
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    return found


async def _watch(channel: grpc.aio.Channel, token: str) -> None:
    watch: Any = channel.unary_stream(SERVICE + "WatchTasks")
    async for _ in watch(task_service_pb2.WatchTasksRequest().SerializeToString(), metadata=grpc.aio.Metadata(("authorization", f"Bearer {token}"))):
        pass


async def _cpu(pid: int, seconds: float) -> float:
    service = {"service": pid}
    before = cpu.seconds(service)
    await asyncio.sleep(seconds)
    return (cpu.seconds(service)["service"] - before["service"]) / seconds


def figures(found: Idle) -> dict[str, Any]:
    """Returns the figures for the JSON file and the table."""
    return {
        "watches": WATCHES,
        "bytes_per_watch": round((found.memory_with - found.memory_before) / WATCHES),
        "cpu_of_a_core": round(found.cpu_with, 4),
        "cpu_of_a_core_without": round(found.cpu_before, 4),
    }
