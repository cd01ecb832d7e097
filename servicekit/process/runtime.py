"""The life of a service process: ordered start, signals, drain, and stop in reverse order, in which each step has a time limit.

On SIGTERM or SIGINT, the replica
1. reports NOT_SERVING and waits `drain_delay_seconds`, until load balancers have stopped routing to it;
2. ends its streams, which would not end by themselves, with a status that tells the client to reconnect to another replica;
3. rejects new calls and finishes the running ones, for at most `shutdown_grace_seconds`;
4. stops everything else.
An accepted call that finishes within that time does not fail because of the stop.
"""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias

import structlog

from servicekit.process.commands import GC_THRESHOLD
from servicekit.process.ops import OpsServer
from servicekit.process.settings import ProcessSettings
from servicekit.process.telemetry import Tracing
from servicekit.rpc.health import Health
from servicekit.rpc.server import GrpcServer

CLOSE_TIMEOUT_SECONDS: Final = 3.0

# Makes a part end its streams with UNAVAILABLE and start no other. It need not wait until they have ended: the server waits.
Drain: TypeAlias = Callable[[], Awaitable[None]]

log = structlog.get_logger()


class Resource(Protocol):
    """Something that is started before the first call and closed after the last: a pool, a client, periodic work."""

    async def start(self) -> None:
        """Makes it usable. Must not wait for a dependency that may be unavailable: the readiness checks do that."""

    async def close(self) -> None:
        """Releases everything that it holds."""


async def serve(
    settings: ProcessSettings,
    *,
    server: GrpcServer,
    ops: OpsServer,
    health: Health,
    tracing: Tracing,
    resources: list[Resource],
    drains: Sequence[Drain] = (),
) -> None:
    """Runs until SIGTERM or SIGINT, then drains and returns."""
    stopping = _stop_signal()
    async with _started(resources):
        try:
            await health.start()
            ops_port, grpc_port = await ops.start(), await server.start()
            spare_the_collector()
            log.info("started", grpc_port=grpc_port, ops_port=ops_port, environment=settings.environment)
            await stopping.wait()
            log.info("draining", delay_seconds=settings.drain_delay_seconds)
            await health.drain()
            await asyncio.sleep(settings.drain_delay_seconds)
            # One after the other, in the order of the wiring. A drain does not wait for its streams, so it takes little time.
            for drain in drains:
                await _bounded("drain", drain())
            await server.stop(settings.shutdown_grace_seconds)
        finally:
            await health.stop()
            await _bounded("ops", ops.stop())
            await _bounded("tracing", tracing.stop())
    log.info("stopped")


def spare_the_collector() -> None:
    """Exempts all objects that exist now from garbage collection. Visiting them in each collection would be a large part of a call's cost."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _stop_signal() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


@contextlib.asynccontextmanager
async def _started(resources: list[Resource]) -> AsyncIterator[None]:
    """Starts the resources in order, and closes the started ones in reverse order, whatever happens in between."""
    started: list[Resource] = []
    try:
        for resource in resources:
            await resource.start()
            started.append(resource)
        yield
    finally:
        for resource in reversed(started):
            await _bounded(type(resource).__name__, resource.close())


async def _bounded(name: str, closing: Awaitable[object]) -> None:
    """Waits at most CLOSE_TIMEOUT_SECONDS for a clean-up. If it fails or takes longer, logs that and returns."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await closing
    except Exception as error:  # noqa: BLE001 - the next one must still be closed
        log.warning("close_failed", what=name, error=type(error).__name__)
