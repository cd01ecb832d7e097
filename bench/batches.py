"""Measures the cost of a batch: one BatchCreateTasks of 1000 tasks compared with 1000 CreateTask calls, one call at a time."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import grpc.aio
from google.protobuf.message import Message
from taskmanager.task.v1 import task_service_pb2

from bench import cpu
from bench.calls import SERVICE, new_task
from bench.measure import Settings
from bench.system import System
from devstack.config import HOST

TASKS_AT_ONCE: Final = 1000
# The goal: a batch costs less than this share of the same number of single calls.
AIM: Final = 1 / 30
# The name that `--only` is matched against.
NAME: Final = "batchcreatetasks of a thousand"
SINGLE_CALLS: Final = 500
BATCHES: Final = 5


@dataclass(slots=True)
class Cost:
    """The cost of 1000 tasks in each round: wall-clock seconds, and CPU seconds by process."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[Mapping[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Batches:
    """The costs of single calls and of batches."""

    single: Cost = field(default_factory=Cost)
    batch: Cost = field(default_factory=Cost)


async def measure(system: System, settings: Settings) -> Batches:
    """Measures single calls and batches alternately, with as many rounds as the other rows."""
    found = Batches()
    target = system.ways[0].service
    async with grpc.aio.insecure_channel(f"{HOST}:{target.port}") as channel:
        batch = task_service_pb2.BatchCreateTasksRequest(
            requests=[task_service_pb2.CreateTaskRequest(task=new_task(number)) for number in range(TASKS_AT_ONCE)]
        )
        create = _caller(system, channel, "CreateTask", task_service_pb2.CreateTaskRequest(task=new_task(0)))
        create_all = _caller(system, channel, "BatchCreateTasks", batch)
        for _ in range(settings.rounds):
            await _round(target.processes, create, SINGLE_CALLS, TASKS_AT_ONCE / SINGLE_CALLS, found.single)
            await _round(target.processes, create_all, BATCHES, 1 / BATCHES, found.batch)
    return found


def _caller(system: System, channel: grpc.aio.Channel, name: str, message: Message) -> Callable[[], Any]:
    method: Any = channel.unary_unary(SERVICE + name)
    body, metadata = message.SerializeToString(), system.users.accounts[-1].metadata
    return lambda: method(body, metadata=metadata, timeout=30)


async def _round(processes: Mapping[str, int], call: Callable[[], Any], calls: int, share: float, cost: Cost) -> None:
    await call()
    await asyncio.sleep(0.1)
    began, before = time.perf_counter(), cpu.seconds(processes)
    for _ in range(calls):
        await call()
    ended, after = time.perf_counter(), cpu.seconds(processes)
    cost.seconds.append((ended - began) * share)
    cost.cpu_seconds.append({name: (after[name] - before[name]) * share for name in processes})


def figures(found: Batches) -> dict[str, Any]:
    """Returns the medians in ms for 1000 tasks, and the batch's share of the cost of the single calls."""
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
