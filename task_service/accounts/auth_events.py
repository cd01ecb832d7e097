"""Reads auth_service's events from its EventService over gRPC. Does not interpret them."""

import asyncio
import contextlib
from typing import Any, Final
from uuid import UUID

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from taskmanager.auth.v1 import event_service_pb2, event_service_pb2_grpc

from servicekit.access.revocations import Event, EventKind, EventPage
from servicekit.errors import DependencyUnavailable

# The first timeout is short: an unresponsive replica of auth_service must not delay a revocation beyond its limit of 2 s.
TIMEOUTS_SECONDS: Final = (0.5, 2.0)
OPTIONS: Final = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.enable_http_proxy", 0),
    # Without this option, a new channel shares the connection of the previous one.
    ("grpc.use_local_subchannel_pool", 1),
    # Reconnects within 1 s after auth_service is available again. gRPC's default backoff grows to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A connection that does not answer a ping is closed, and gRPC connects anew. auth_service allows one ping every 10 s.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # After a roll-out, the channel learns within 1 s which replicas there are; with gRPC's default of 30 s it would dial ended ones meanwhile.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)


class AuthEvents:
    """An EventSource (servicekit.access.revocations). `endpoint` is a gRPC target."""

    def __init__(self, endpoint: str, service_token: str) -> None:
        self._endpoint = endpoint
        self._metadata = grpc.aio.Metadata(("authorization", f"Bearer {service_token}"))
        self._channel: grpc.aio.Channel | None = None
        self._has_answered = False
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Creates the channel but does not connect yet, because auth_service may start later."""
        self._channel = self._connect()

    async def close(self) -> None:
        """Closes the channel."""
        for closing in self._closing:
            closing.cancel()
        if self._channel is not None:
            await self._channel.close()

    def _replace(self, stale: grpc.aio.Channel) -> None:
        """Replaces a channel that has answered before, because its connection may be dead.

        If a new channel does not answer, auth_service hangs or is down. Another one would not help, and closed channels keep their connections for a
        while: in an outage of 40 s they left 200 of them.
        """
        if self._channel is stale and self._has_answered:
            self._channel = self._connect()
            # Other calls may still wait on the old channel. Closing it at once would cancel them, so they get a grace period.
            closing = asyncio.create_task(stale.close(max(TIMEOUTS_SECONDS)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _connect(self) -> grpc.aio.Channel:
        self._has_answered = False
        return grpc.aio.insecure_channel(self._endpoint, options=OPTIONS)

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """See EventSource.list_events."""
        request = event_service_pb2.ListEventsRequest(after=after, kind=kind or 0)  # type: ignore[arg-type]  # both enums use the same numbers
        if max_age_seconds is not None:
            request.max_age.CopyFrom(Duration(seconds=round(max_age_seconds)))
        response = await self._ask(request)
        return EventPage([_event(event) for event in response.events], response.last_number, response.more, response.epoch)

    async def require_serving(self) -> None:
        """Raises DependencyUnavailable if auth_service does not report that it serves."""
        assert self._channel is not None
        try:
            answer = await health_pb2_grpc.HealthStub(self._channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUTS_SECONDS[0])
        except grpc.aio.AioRpcError as error:
            raise DependencyUnavailable("auth_service") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable("auth_service")

    async def _ask(self, request: event_service_pb2.ListEventsRequest) -> event_service_pb2.ListEventsResponse:
        """Sends the request, and once more over a new connection if the first try fails. Raises DependencyUnavailable."""
        first, second = TIMEOUTS_SECONDS
        # Nothing keeps the first error: it refers to its call, and a channel whose call exists continues to connect, although it is closed.
        with contextlib.suppress(grpc.aio.AioRpcError):
            return await self._try(request, first)
        try:
            return await self._try(request, second)
        except grpc.aio.AioRpcError as error:
            raise DependencyUnavailable("auth_service") from error

    async def _try(self, request: event_service_pb2.ListEventsRequest, seconds: float) -> event_service_pb2.ListEventsResponse:
        channel = self._channel
        assert channel is not None
        try:
            stub: Any = event_service_pb2_grpc.EventServiceStub(channel)  # type: ignore[no-untyped-call]
            response: event_service_pb2.ListEventsResponse = await stub.ListEvents(request, metadata=self._metadata, timeout=seconds)
        except grpc.aio.AioRpcError:
            # The server may have died without closing the connection. Without a new one, calls would wait for it for 15 minutes.
            self._replace(channel)
            raise
        self._has_answered = self._has_answered or self._channel is channel
        return response


def _event(message: event_service_pb2.Event) -> Event:
    session_id = UUID(message.session_id) if message.session_id else None
    created_at = message.created_at.seconds + message.created_at.nanos / 1e9
    return Event(message.number, EventKind(message.kind), UUID(message.user_id), session_id, created_at)
