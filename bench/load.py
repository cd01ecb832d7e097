"""The load generator: reads jobs from stdin and writes rounds to stdout. It is a separate process and shares no interpreter lock with its parent."""

import asyncio
import gc
import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypeVar

import uvloop

from bench import cpu
from bench.jobs import Job, Round
from bench.load_grpc import GrpcConnection, encode_call
from bench.load_http import HttpConnection, encode_request
from bench.starts import AtRate, Immediately, Starts
from bench.tally import Tally

# Like Envoy and busy clients: few connections with several calls each. HTTP/1.1 needs one connection for each caller.
CALLERS_PER_GRPC_CONNECTION = 4
CONNECT_SECONDS = 5.0
# How long an open loop waits for answers after its last call.
DRAIN_SECONDS = 5.0
# The thread that paces an open loop must not wait for the interpreter lock for Python's default of 5 ms.
SWITCH_SECONDS = 0.0001

Connection = GrpcConnection | HttpConnection
C = TypeVar("C", bound=asyncio.Protocol)


async def run(job: Job) -> Round:
    """Runs one round."""
    tally = Tally()
    if job.rate is None:
        connections = await _connect(job, tally, Immediately())
        result = await _closed_loop(job, tally, connections)
    else:
        starts = AtRate(job.rate, 0.0, job.settle_seconds, job.seconds)
        connections = await _connect(job, tally, starts)
        result = await _open_loop(job, tally, connections, starts)
    for connection in connections:
        connection.close()
    return result


async def _closed_loop(job: Job, tally: Tally, connections: Sequence[Connection]) -> Round:
    for connection in connections:
        connection.begin()
    await asyncio.sleep(job.settle_seconds)
    tally.counting = True
    usage = _Usage(job)
    await asyncio.sleep(job.seconds)
    tally.counting = False
    return Round(*usage.since(), tally.latencies, tally.failures, tally.first_failure)


async def _open_loop(job: Job, tally: Tally, connections: Sequence[Connection], starts: AtRate) -> Round:
    loop, turns = asyncio.get_running_loop(), deque(connections)

    def begin_one() -> None:
        """Makes the next free connection begin the call that is due. If none is free, the call is taken by the first that becomes free."""
        for _ in range(len(turns)):
            turns.rotate(-1)
            if turns[0].begin():
                return

    starts.began = time.perf_counter()
    tally.since, tally.counting = starts.at(starts.first_counted), True
    pacer = threading.Thread(target=starts.pace, args=(lambda: loop.call_soon_threadsafe(begin_one),), daemon=True)
    pacer.start()
    await asyncio.sleep(job.settle_seconds)
    usage = _Usage(job)
    await asyncio.sleep(job.seconds)
    expected, deadline = starts.total - starts.first_counted, time.perf_counter() + DRAIN_SECONDS
    while len(tally.latencies) + tally.failures < expected and time.perf_counter() < deadline:  # noqa: ASYNC110 - an event would cost time per answer
        await asyncio.sleep(0.01)
    # The calls that were late used their CPU time after the measurement's seconds.
    _, used = usage.since()
    tally.counting = False
    await asyncio.to_thread(pacer.join)
    unanswered = max(0, expected - len(tally.latencies) - tally.failures)
    # They have waited at least this long. Without them the percentiles would be those of the calls that were lucky.
    latencies = [*tally.latencies, *([round(DRAIN_SECONDS * 1e6)] * unanswered)]
    return Round(job.seconds, used, latencies, tally.failures, tally.first_failure, unanswered)


class _Usage:
    """The CPU time that the job's processes and the client use from now on."""

    def __init__(self, job: Job) -> None:
        self._processes = job.processes
        self._began, self._before, self._own = time.perf_counter(), cpu.seconds(job.processes), time.process_time()

    def since(self) -> tuple[float, dict[str, float]]:
        """Returns the seconds since the start, and the CPU seconds by name."""
        ended, after, own = time.perf_counter(), cpu.seconds(self._processes), time.process_time()
        return ended - self._began, {name: after[name] - self._before[name] for name in after} | {"client": own - self._own}


async def _connect(job: Job, tally: Tally, starts: Starts) -> list[Connection]:
    """Opens the connections for the job's callers. All connections take their requests in turn from the same cycle."""
    if job.protocol == "grpc":
        calls = itertools.cycle([encode_call(request, job.tokens[request.user], job.port) for request in job.requests])
        shares = [min(CALLERS_PER_GRPC_CONNECTION, job.callers - at) for at in range(0, job.callers, CALLERS_PER_GRPC_CONNECTION)]
        return [await _connected(GrpcConnection(calls, tally, starts, share), job.port) for share in shares]
    requests = itertools.cycle([encode_request(request, job.tokens[request.user], job.port) for request in job.requests])
    return [await _connected(HttpConnection(requests, tally, starts), job.port) for _ in range(job.callers)]


async def _connected(connection: C, port: int) -> C:
    async with asyncio.timeout(CONNECT_SECONDS):
        await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
    return connection


async def _serve() -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    # readline blocks the event loop, but between rounds the loop has nothing else to do.
    for line in iter(sys.stdin.readline, ""):
        gc.collect()
        print(json.dumps(asdict(await run(Job.from_json(line)))), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve())
