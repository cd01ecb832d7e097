"""Readiness checks, run every second. grpc.health.v1 and /readyz both return the result of the last run.

The name "" and each service's name report readiness. The health of a service that another process serves, but that clients reach through the same
gateway, is looked up at each call. The name "liveness" is SERVING from bind to exit, even if dependencies are unavailable: a
restart repairs no database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from prometheus_client import CollectorRegistry, Gauge

from servicekit.errors import MalformedRequest

Check = Callable[[], Awaitable[None]]
# Returns the bytes of the request of a call, which grpc's context stands for. Raises MalformedRequest.
Receive = Callable[[Any], Awaitable[bytes]]
NAME: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
INTERVAL_SECONDS: Final = 1.0
# The first interval until all checks have passed for the first time. It is short, because a deployment waits for the start. It doubles up to
# INTERVAL_SECONDS, because each check may ask the DNS for names that do not exist yet.
STARTING_INTERVAL_SECONDS: Final = 0.05
CHECK_TIMEOUT_SECONDS: Final = 1.5
LIVENESS: Final = "liveness"

log = structlog.get_logger()


class Health:
    """Runs the checks and reports their results. A check passes if it returns. It fails if it raises or exceeds CHECK_TIMEOUT_SECONDS."""

    def __init__(
        self, services: Sequence[str], checks: Mapping[str, Check], registry: CollectorRegistry, neighbours: Mapping[str, Check] | None = None
    ) -> None:
        """`neighbours` are the checks of other processes' services, by name."""
        self._names = ("", *services)
        self._checks = checks
        self._failing: dict[str, str] = dict.fromkeys(checks, "not checked yet")
        self._draining = False
        # The servicer initially reports "" as SERVING. `start` changes that before the server listens.
        self._servicer = _Servicer(neighbours or {})
        self._task: asyncio.Task[None] | None = None
        Gauge("service_ready", "1 while the replica is ready for calls.", registry=registry).set_function(lambda: float(self.ready))
        passing = Gauge("service_ready_check", "1 while the check passes.", ["check"], registry=registry)
        for name in checks:
            passing.labels(name).set_function(partial(self._passing, name))

    @property
    def failing(self) -> Mapping[str, str]:
        """The failing checks, with their reasons. While the replica drains, that is one of them."""
        return {"draining": "shutting down", **self._failing} if self._draining else self._failing

    @property
    def ready(self) -> bool:
        """Whether load balancers should route calls to this replica."""
        return not self._draining and not self._failing

    def add_to(self, server: grpc.aio.Server, receive: Receive) -> None:
        """Registers grpc.health.v1.Health. The requests of Check, which anybody can call through the gateway, are received by `receive`."""

        async def check(_: object, context: Any) -> Any:
            try:
                request = health_pb2.HealthCheckRequest.FromString(await receive(context))
            except (DecodeError, MalformedRequest):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, MalformedRequest.message)
            return await self._servicer.Check(request, context)

        request, serialize = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        handlers = {
            "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=serialize),
            "Watch": grpc.unary_stream_rpc_method_handler(self._servicer.Watch, request, serialize),
        }
        # Only generic handlers: if a server has a registered method too, grpc.aio is slower with every call of any method.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))

    async def start(self) -> None:
        """Reports NOT_SERVING, then runs the checks until `stop`. Must be called before the server listens."""
        await self._servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._publish()
        self._task = asyncio.create_task(self._run())

    async def drain(self) -> None:
        """Reports NOT_SERVING from now until the process ends."""
        self._draining = True
        await self._publish()

    async def stop(self) -> None:
        """Stops the checks."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _passing(self, name: str) -> float:
        return float(name not in self._failing)

    async def _run(self) -> None:
        interval = STARTING_INTERVAL_SECONDS
        while True:
            before = self.ready
            results = await asyncio.gather(*(self._check(name, check) for name, check in self._checks.items()))
            self._failing = {name: reason for name, reason in results if reason}
            if before != self.ready:
                log.info("readiness_changed", ready=self.ready, failing=dict(self.failing))
                await self._publish()
            interval = INTERVAL_SECONDS if self.ready else min(2 * interval, INTERVAL_SECONDS)
            await asyncio.sleep(interval)

    async def _check(self, name: str, check: Check) -> tuple[str, str]:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await check()
        except Exception as error:  # noqa: BLE001 - a check may fail with any exception
            return name, f"{type(error).__name__}: {error}"
        return name, ""

    async def _publish(self) -> None:
        for name in self._names:
            # Read for each name, because a drain may begin between two names.
            serving = health_pb2.HealthCheckResponse.SERVING if self.ready else health_pb2.HealthCheckResponse.NOT_SERVING
            await self._servicer.set(name, serving)


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """Answers Check for the neighbours too."""

    def __init__(self, neighbours: Mapping[str, Check]) -> None:
        super().__init__()
        self._neighbours = neighbours

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802 - the RPC's name
        """The RPC."""
        check = self._neighbours.get(request.service)
        if check is None:
            answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
            return answer
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await check()
        except Exception:  # noqa: BLE001 - a check may fail with any exception
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
