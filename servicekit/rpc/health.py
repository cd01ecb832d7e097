"""Readiness as small checks, run each second and remembered; grpc.health.v1 and /readyz both tell the same remembered answer.

The names "" and each service's follow readiness. The name "liveness" is SERVING from bind to exit, whatever is away: a restart mends no database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Gauge

Check = Callable[[], Awaitable[None]]
INTERVAL_SECONDS: Final = 1.0
# Until everything is ready for the first time, look often: start-up is waited for.
STARTING_INTERVAL_SECONDS: Final = 0.05
CHECK_TIMEOUT_SECONDS: Final = 1.5
LIVENESS: Final = "liveness"

log = structlog.get_logger()


class Health:
    """Runs the checks and says what came of them. A check passes by returning, and fails by raising or by taking too long."""

    def __init__(self, services: Sequence[str], checks: Mapping[str, Check], registry: CollectorRegistry) -> None:
        self._names = ("", *services)
        self._checks = checks
        self._failing: dict[str, str] = dict.fromkeys(checks, "not checked yet")
        self._draining = False
        # The servicer begins with "" as SERVING: say otherwise before anybody can ask.
        self._servicer = health.aio.HealthServicer()
        self._task: asyncio.Task[None] | None = None
        Gauge("service_ready", "1 while calls should be sent here.", registry=registry).set_function(lambda: float(self.ready))
        passing = Gauge("service_ready_check", "1 while the check passes.", ["check"], registry=registry)
        for name in checks:
            passing.labels(name).set_function(partial(self._passing, name))

    @property
    def failing(self) -> Mapping[str, str]:
        """What is not ready, and why."""
        return {"draining": "shutting down", **self._failing} if self._draining else self._failing

    @property
    def ready(self) -> bool:
        """Whether calls should be sent here."""
        return not self._draining and not self._failing

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers grpc.health.v1.Health."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Says NOT_SERVING, then checks for as long as the process lives. Call it before the server listens."""
        await self._servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._publish()
        self._task = asyncio.create_task(self._run())

    async def drain(self) -> None:
        """Not ready from now on, for good."""
        self._draining = True
        await self._publish()

    async def stop(self) -> None:
        """Checks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _passing(self, name: str) -> float:
        return float(name not in self._failing)

    async def _run(self) -> None:
        ever_ready = False
        while True:
            before = self.ready
            results = await asyncio.gather(*(self._check(name, check) for name, check in self._checks.items()))
            self._failing = {name: reason for name, reason in results if reason}
            if before != self.ready:
                log.info("readiness_changed", ready=self.ready, failing=dict(self.failing))
                await self._publish()
            ever_ready = ever_ready or self.ready
            await asyncio.sleep(INTERVAL_SECONDS if ever_ready else STARTING_INTERVAL_SECONDS)

    async def _check(self, name: str, check: Check) -> tuple[str, str]:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await check()
        except Exception as error:  # noqa: BLE001 - a check fails by raising, whatever it raises
            return name, f"{type(error).__name__}: {error}"
        return name, ""

    async def _publish(self) -> None:
        for name in self._names:
            # Looked at each time: a drain may begin between two names.
            serving = health_pb2.HealthCheckResponse.SERVING if self.ready else health_pb2.HealthCheckResponse.NOT_SERVING
            await self._servicer.set(name, serving)
