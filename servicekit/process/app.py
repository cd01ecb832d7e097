"""The common part of the composition roots: makes a running process from the settings and a service's own parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry

from servicekit.process import abandoned, logging
from servicekit.process.memory import return_freed_memory
from servicekit.process.ops import OpsServer
from servicekit.process.periodic import Periodic, measure
from servicekit.process.runtime import Drain, Resource, serve
from servicekit.process.settings import ProcessSettings
from servicekit.process.shortcut import Shortcut
from servicekit.process.telemetry import Tracing
from servicekit.rpc.admission import Verifier
from servicekit.rpc.call_log import CallLog
from servicekit.rpc.health import Check, Health
from servicekit.rpc.method import is_internal
from servicekit.rpc.metrics import CallMetrics
from servicekit.rpc.pipeline import Pipeline
from servicekit.rpc.server import GrpcServer, ServerOptions
from servicekit.stores.migrate import Migrations
from servicekit.stores.postgres import Database, DatabaseOptions

# The gRPC services, each with the objects that implement its methods.
Handlers = Sequence[tuple[ServiceDescriptor, Sequence[object]]]


@dataclass(frozen=True, slots=True)
class Parts:
    """A service's own parts. `drains` end the streams."""

    handlers: Handlers
    verifier: Verifier
    registry: CollectorRegistry
    resources: Sequence[Resource]
    checks: Mapping[str, Check]
    endpoints: Sequence[web.RouteDef] = ()
    shortcut: Shortcut = lambda _: None
    # The services of other processes that clients reach through the same gateway: described by reflection, each with a check of its health.
    neighbours: Mapping[ServiceDescriptor, Check] = field(default_factory=dict)
    drains: Sequence[Drain] = ()


def database(settings: ProcessSettings, registry: CollectorRegistry, *, connections: int | None = None, generic_plans: bool = False) -> Database:
    """Returns a pool for the settings. `connections` overrides its size. `generic_plans`: see DatabaseOptions."""
    options = DatabaseOptions(
        url=settings.database_url.get_secret_value(),
        application_name=settings.otel_service_name,
        pool_max_size=connections or settings.database_pool_max_size,
        statement_cache_size=settings.database_statement_cache_size,
        timeout_seconds=settings.database_timeout_seconds,
        pooler=settings.database_pooler,
        generic_plans=generic_plans,
    )
    return Database(options, registry)


def database_check(settings: ProcessSettings, migrations: Migrations) -> tuple[Database, Check]:
    """Returns a readiness check and its pool. The check passes if the database is available with the schema that this code needs, in one query.

    The check has a connection of its own, so that it does not fail when calls use the whole pool. A loaded replica must stay ready: otherwise load
    balancers would send its load to the other replicas.
    """
    pool = database(settings, CollectorRegistry(), connections=1)
    return pool, lambda: migrations.require(pool)


S = TypeVar("S", bound=ProcessSettings)


async def run(settings: S, wire: Callable[[S], Parts]) -> None:
    """Serves until SIGTERM or SIGINT. `wire` makes the service's own parts from the settings."""
    return_freed_memory()
    lines = logging.configure(settings.log_level, settings.otel_service_name)
    abandoned.install()
    tracing = Tracing(settings.otel_service_name, settings.otel_exporter_otlp_endpoint)
    call_log = CallLog(settings.otel_service_name, lines.add if logging.shows_info(settings.log_level) else None, tracing.trace_id)
    await _serve(settings, wire(settings), tracing, call_log)


async def _serve(settings: ProcessSettings, parts: Parts, tracing: Tracing, call_log: CallLog) -> None:
    pipeline = Pipeline(
        verifier=parts.verifier,
        service_tokens=settings.service_tokens,
        metrics=CallMetrics(parts.registry),
        call_log=call_log,
        default_deadline_seconds=settings.default_deadline_seconds,
        max_concurrent_calls=settings.max_concurrent_calls,
        max_concurrent_streams=settings.max_concurrent_streams,
        slow_reader_seconds=settings.slow_reader_seconds,
    )
    neighbours = {service.full_name: check for service, check in parts.neighbours.items()}
    health = Health([service.full_name for service, _ in parts.handlers], parts.checks, parts.registry, neighbours)
    measure([resource for resource in parts.resources if isinstance(resource, Periodic)], parts.registry)
    own = (service for service, _ in parts.handlers if not is_internal(service))
    reflected = (*own, *parts.neighbours) if settings.reflection_enabled else ()
    options = ServerOptions(
        host=settings.bind_host,
        port=settings.grpc_port,
        max_connection_age_seconds=settings.max_connection_age_seconds,
        reflected_services=tuple(service.full_name for service in reflected),
    )
    server = GrpcServer(options, health, tracing.interceptors)
    for service, handlers in parts.handlers:
        server.add(service, handlers, pipeline)
    ops = OpsServer(settings.bind_host, settings.ops_port, health, parts.registry, parts.endpoints, parts.shortcut)
    await serve(settings, server=server, ops=ops, health=health, tracing=tracing, resources=list(parts.resources), drains=parts.drains)
