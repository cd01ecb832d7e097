"""Reads what the processes of a stack report: metrics, health, log lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from devstack.config import HOST
from devstack.stack import Stack


async def ops(stack: Stack, process: str, path: str) -> httpx.Response:
    """Makes a GET request to the ops port of a process."""
    async with httpx.AsyncClient(timeout=5) as client:
        return await client.get(f"http://{HOST}:{stack.state.processes[process].ops_port}{path}")


async def metric(stack: Stack, process: str, name: str, **labels: str) -> float:
    """Returns the sum of all series of a metric that have these labels."""
    return value_in((await ops(stack, process, "/metrics")).text, name, **labels)


def value_in(text: str, name: str, **labels: str) -> float:
    """Returns the same sum as `metric`, from the text of a /metrics answer."""
    # To parse all 2000 samples of a gateway takes 50 ms.
    lines = "\n".join(line for line in text.splitlines() if line.startswith(name))
    return sum(
        sample.value
        for family in text_string_to_metric_families(lines)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def health(stack: Stack, process: str, service: str) -> str:
    """Returns the grpc.health.v1 status of a service name: SERVING, NOT_SERVING …"""
    async with grpc.aio.insecure_channel(f"{HOST}:{stack.state.processes[process].grpc_port}") as channel:
        check: Any = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[no-untyped-call]
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def hosts_in_use(stack: Stack, cluster: str) -> int:
    """Returns the number of healthy hosts in a cluster of the gateway."""
    async with httpx.AsyncClient(timeout=5) as client:
        answer = await client.get(f"http://{HOST}:{stack.state.processes['gateway'].admin_port}/clusters")
    return sum(line.startswith(f"{cluster}::") and line.endswith("::health_flags::healthy") for line in answer.text.splitlines())


def log_size(stack: Stack, process: str) -> int:
    """Returns the current size of a process's log, in bytes."""
    return Path(stack.state.processes[process].log).stat().st_size


def log_lines(stack: Stack, process: str, since: int = 0) -> Iterator[dict[str, Any]]:
    """Yields the JSON log lines of a process, starting at an offset from `log_size`."""
    with Path(stack.state.processes[process].log).open("rb") as log:
        log.seek(since)
        for line in log:
            if line.startswith(b"{"):
                yield json.loads(line)
