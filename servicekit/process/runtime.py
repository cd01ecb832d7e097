"""The life of a service process: ordered start, signals, drain, stop in reverse order, each step bounded.

On SIGTERM or SIGINT: readiness falls → `drain_delay_seconds` for balancers to look away → what has streams ends them, since they would not end by
themselves → the server takes no new calls and finishes those under way, at most `shutdown_grace_seconds` → the rest stops. No accepted call fails for
it, and a stream ends with a status that tells its client to go on elsewhere.
"""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias

import structlog

from servicekit.process.ops import OpsServer
from servicekit.process.settings import ServiceSettings
from servicekit.process.telemetry import Tracing
from servicekit.rpc.health import Health
from servicekit.rpc.server import GrpcServer

CLOSE_TIMEOUT_SECONDS: Final = 3.0
# Allocations between two collections of the young. A call makes few cycles; the default of 700 collects several times in each loop turn.
GC_THRESHOLD: Final = 20_000

# Has the streams of a part end, with UNAVAILABLE, and begins no other from then on. It need not wait for them: the server does.
Drain: TypeAlias = Callable[[], Awaitable[None]]

log = structlog.get_logger()


class Resource(Protocol):
    """Something that is started before the first call and closed after the last: a pool, a client, a loop of work."""

    async def start(self) -> None:
        """Makes it usable. Must not wait for what may be away: that is readiness's business."""

    async def close(self) -> None:
        """Lets go of everything."""


async def serve(
    settings: ServiceSettings,
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
            # One after the other, as the parts were wired: each only has to say so.
            for drain in drains:
                await _bounded("drain", drain())
            await server.stop(settings.shutdown_grace_seconds)
        finally:
            await health.stop()
            await _bounded("ops", ops.stop())
            await _bounded("tracing", tracing.stop())
    log.info("stopped")


def spare_the_collector() -> None:
    """What was loaded by now stays: the garbage collector need not walk it again and again, which is a good part of what a call costs."""
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
    """Starts in order, closes in reverse order, whatever happens between."""
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
    """Waits for a clean-up, but not for ever: what hangs or fails is logged and left behind."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await closing
    except Exception as error:  # noqa: BLE001 - the next one must be closed all the same
        log.warning("close_failed", what=name, error=type(error).__name__)
