"""The load generator: reads jobs from stdin and writes rounds to stdout. It is a separate process and shares no interpreter lock with its parent."""

import asyncio
import gc
import itertools
import json
import sys
import time
from dataclasses import asdict
from typing import TypeVar

import uvloop

from bench import cpu
from bench.jobs import Job, Round
from bench.load_grpc import GrpcConnection, encode_call
from bench.load_http import HttpConnection, encode_request
from bench.tally import Tally

# Like Envoy and busy clients: few connections with several calls each. HTTP/1.1 needs one connection for each caller.
CALLERS_PER_GRPC_CONNECTION = 4
CONNECT_SECONDS = 5.0

Connection = GrpcConnection | HttpConnection
C = TypeVar("C", bound=asyncio.Protocol)


async def run(job: Job) -> Round:
    """Runs one round."""
    tally = Tally()
    connections = await _connect(job, tally)
    for connection in connections:
        connection.begin()
    await asyncio.sleep(job.settle_seconds)
    tally.counting = True
    began, before, own_before = time.perf_counter(), cpu.seconds(job.processes), time.process_time()
    await asyncio.sleep(job.seconds)
    tally.counting = False
    ended, after, own_after = time.perf_counter(), cpu.seconds(job.processes), time.process_time()
    for connection in connections:
        connection.close()
    used = {name: after[name] - before[name] for name in job.processes} | {"client": own_after - own_before}
    return Round(ended - began, tally.latencies, tally.failures, tally.first_failure, used)


async def _connect(job: Job, tally: Tally) -> list[Connection]:
    """Opens the connections for the job's callers. All connections take their requests in turn from the same cycle."""
    if job.protocol == "grpc":
        calls = itertools.cycle([encode_call(request, job.port) for request in job.requests])
        shares = [min(CALLERS_PER_GRPC_CONNECTION, job.callers - at) for at in range(0, job.callers, CALLERS_PER_GRPC_CONNECTION)]
        return [await _connected(GrpcConnection(calls, tally, share), job.port) for share in shares]
    requests = itertools.cycle([encode_request(request, job.port) for request in job.requests])
    return [await _connected(HttpConnection(requests, tally), job.port) for _ in range(job.callers)]


async def _connected(connection: C, port: int) -> C:
    async with asyncio.timeout(CONNECT_SECONDS):
        await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
    return connection


async def _serve() -> None:
    # readline blocks the event loop, but between rounds the loop has nothing else to do.
    for line in iter(sys.stdin.readline, ""):
        gc.collect()
        print(json.dumps(asdict(await run(Job.from_json(line)))), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve())
