"""Tracing by OpenTelemetry over OTLP, only if an OTLP endpoint is set. Without one, OpenTelemetry is not imported and a call has no extra cost.

OpenTelemetry reads all other settings itself (OTEL_EXPORTER_OTLP_*, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES …).
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import grpc.aio

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

STOP_SECONDS: Final = 2.0
UNTRACED_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class Tracing:
    """The tracing of a process. Without an endpoint, it is off."""

    def __init__(self, service: str, endpoint: str | None) -> None:
        self._provider = _start(service) if endpoint else None
        self.interceptors: Sequence[grpc.aio.ServerInterceptor] = [_interceptor()] if self._provider else []
        # Returns the id of this context's trace in hexadecimal, or None if it has none.
        self.trace_id: Callable[[], str | None] | None = _trace_id if self._provider else None

    async def stop(self) -> None:
        """Sends the remaining spans and stops, within STOP_SECONDS: an unresponsive receiver must not delay the end of the process."""
        if self._provider is None:
            return
        # A daemon thread, because the end of the loop and of the process would wait for any other thread.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        async with asyncio.timeout(STOP_SECONDS):
            while sending.is_alive():  # noqa: ASYNC110 - a thread cannot set an event of the loop
                await asyncio.sleep(0.02)


def _trace_id() -> str | None:
    from opentelemetry import trace  # noqa: PLC0415 - as below

    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def _start(service: str) -> "TracerProvider":
    from opentelemetry import trace  # noqa: PLC0415 - imported only if tracing is on
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.redis import RedisInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    # Statements without their parameters, which are users' data.
    AsyncPGInstrumentor(capture_parameters=False).instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]
    RedisInstrumentor().instrument(tracer_provider=provider)
    return provider


def _interceptor() -> grpc.aio.ServerInterceptor:
    from opentelemetry.instrumentation.grpc import aio_server_interceptor  # noqa: PLC0415
    from opentelemetry.instrumentation.grpc.filters import negate, service_name  # noqa: PLC0415

    # The Watch method of grpc.health.v1 is a coroutine, which the interceptor cannot wrap. Only this system's own methods are traced.
    def ours(details: grpc.HandlerCallDetails) -> bool:
        return all(negate(service_name(name))(details) for name in UNTRACED_SERVICES)

    return aio_server_interceptor(filter_=ours)  # type: ignore[no-any-return,no-untyped-call]
