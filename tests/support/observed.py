"""What the processes of a stack tell about themselves: metrics, health, log lines."""

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
    """GET on the ops port of a process."""
    async with httpx.AsyncClient(timeout=5) as client:
        return await client.get(f"http://{HOST}:{stack.state.processes[process].ops_port}{path}")


async def metric(stack: Stack, process: str, name: str, **labels: str) -> float:
    """The sum over all series of a metric that have these labels."""
    return value_in((await ops(stack, process, "/metrics")).text, name, **labels)


def value_in(text: str, name: str, **labels: str) -> float:
    """As `metric`, in what a process answered."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def health(stack: Stack, process: str, service: str) -> str:
    """What grpc.health.v1 says of a name: SERVING, NOT_SERVING …"""
    async with grpc.aio.insecure_channel(f"{HOST}:{stack.state.processes[process].grpc_port}") as channel:
        check: Any = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[no-untyped-call]
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=2)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def hosts_in_use(stack: Stack, cluster: str) -> int:
    """The number of a cluster's hosts that the gateway sends calls to."""
    async with httpx.AsyncClient(timeout=5) as client:
        answer = await client.get(f"http://{HOST}:{stack.state.processes['gateway'].admin_port}/clusters")
    return sum(line.startswith(f"{cluster}::") and line.endswith("::health_flags::healthy") for line in answer.text.splitlines())


def log_size(stack: Stack, process: str) -> int:
    """Where the log of a process ends now."""
    return Path(stack.state.processes[process].log).stat().st_size


def log_lines(stack: Stack, process: str, since: int = 0) -> Iterator[dict[str, Any]]:
    """What a process logged, from an offset of `log_size` on."""
    with Path(stack.state.processes[process].log).open("rb") as log:
        log.seek(since)
        for line in log:
            if line.startswith(b"{"):
                yield json.loads(line)
