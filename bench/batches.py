"""What a batch costs: BatchCreateTasks of a thousand beside a thousand CreateTask, each by one caller after the other's answer."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import grpc.aio
from taskmanager.task.v1 import task_service_pb2

from bench import cpu
from bench.measure import Settings
from bench.system import System
from bench.workload import SERVICE, call_of, new_task
from devstack.config import HOST

TASKS_AT_ONCE: Final = 1000
# A batch should cost less than this share of as many single calls.
AIM: Final = 1 / 30
# What `--only` is compared with.
NAME: Final = "batchcreatetasks of a thousand"
SINGLE_CALLS: Final = 500
BATCHES: Final = 5


@dataclass(slots=True)
class Cost:
    """What the tasks of each round took: seconds of a clock, and of CPU by process, for each thousand of them."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[Mapping[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Batches:
    """Single calls, and batches."""

    single: Cost = field(default_factory=Cost)
    batch: Cost = field(default_factory=Cost)


async def measure(system: System, settings: Settings) -> Batches:
    """As many rounds of each as the other rows have, in turn."""
    found = Batches()
    target = system.ways[0].service
    families = {name: cpu.family(pid) for name, pid in target.processes.items()}
    async with grpc.aio.insecure_channel(f"{HOST}:{target.port}") as channel:
        batch = task_service_pb2.BatchCreateTasksRequest(
            requests=[task_service_pb2.CreateTaskRequest(task=new_task(number)) for number in range(TASKS_AT_ONCE)]
        )
        create = _caller(system, channel, "CreateTask", task_service_pb2.CreateTaskRequest(task=new_task(0)).SerializeToString())
        create_all = _caller(system, channel, "BatchCreateTasks", batch.SerializeToString())
        for _ in range(settings.rounds):
            await _round(families, create, SINGLE_CALLS, TASKS_AT_ONCE / SINGLE_CALLS, found.single)
            await _round(families, create_all, BATCHES, 1 / BATCHES, found.batch)
    return found


def _caller(system: System, channel: grpc.aio.Channel, name: str, body: bytes) -> Callable[[], Any]:
    method: Any = channel.unary_unary(SERVICE + name)
    request = call_of(name, system.accounts[-1], body)
    metadata = grpc.aio.Metadata(("authorization", f"Bearer {request.token}"))
    return lambda: method(request.body, metadata=metadata, timeout=30)


async def _round(families: Mapping[str, list[int]], call: Callable[[], Any], calls: int, share: float, cost: Cost) -> None:
    await call()
    await asyncio.sleep(0.1)
    began, before = time.perf_counter(), cpu.seconds(families)
    for _ in range(calls):
        await call()
    ended, after = time.perf_counter(), cpu.seconds(families)
    cost.seconds.append((ended - began) * share)
    cost.cpu_seconds.append({name: (after[name] - before[name]) * share for name in families})


def figures(found: Batches) -> dict[str, Any]:
    """Medians in ms for a thousand tasks, and what share of the single calls the batch is."""
    single, batch = _costs(found.single), _costs(found.batch)
    return {
        "tasks": TASKS_AT_ONCE,
        "single_ms": single,
        "batch_ms": batch,
        "share": {name: round(batch[name] / single[name], 4) if single[name] else None for name in single},
    }


def _costs(cost: Cost) -> dict[str, float]:
    parts: dict[str, Sequence[float]] = {
        "clock": cost.seconds,
        "service_cpu": [used["service"] for used in cost.cpu_seconds],
        "all_cpu": [sum(used.values()) for used in cost.cpu_seconds],
    }
    return {name: round(median(values) * 1000, 2) for name, values in parts.items()}
