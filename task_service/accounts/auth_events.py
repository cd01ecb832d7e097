"""auth_service's events, by its EventService over gRPC. Knows protobuf and grpc, and nothing of what the events are for."""

import asyncio
from typing import Any, Final
from uuid import UUID

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from taskmanager.auth.v1 import event_service_pb2, event_service_pb2_grpc

from servicekit.access.revocations import Event, EventKind, EventPage
from servicekit.errors import DependencyUnavailable

# The first is short: a replica of auth_service that hangs must not cost the 2 seconds within which what was revoked bites.
TIMEOUTS_SECONDS: Final = (0.5, 2.0)
OPTIONS: Final = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.enable_http_proxy", 0),
    # Else a new channel shares the connection of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    # Back within a second when auth_service is: gRPC's own pause grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class AuthEvents:
    """An EventSource (servicekit.access.revocations). `endpoint` is a gRPC target."""

    def __init__(self, endpoint: str, service_token: str) -> None:
        self._endpoint = endpoint
        self._metadata = grpc.aio.Metadata(("authorization", f"Bearer {service_token}"))
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connects to nothing yet: auth_service may come later than we do."""
        self._channel = self._connect()

    async def close(self) -> None:
        """Closes the channel."""
        for closing in self._closing:
            closing.cancel()
        if self._channel is not None:
            await self._channel.close()

    def _replace(self, stale: grpc.aio.Channel) -> None:
        if self._channel is stale:
            self._channel = self._connect()
            # Others may be waiting on it: closed at once, it would cancel them.
            closing = asyncio.create_task(stale.close(max(TIMEOUTS_SECONDS)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _connect(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._endpoint, options=OPTIONS)

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """See EventSource.list_events."""
        request = event_service_pb2.ListEventsRequest(after=after, kind=kind or 0)  # type: ignore[arg-type]  # the numbers are the same ones
        if max_age_seconds is not None:
            request.max_age.CopyFrom(Duration(seconds=round(max_age_seconds)))
        response = await self._ask(request)
        return EventPage([_event(event) for event in response.events], response.last_number, response.more)

    async def _ask(self, request: event_service_pb2.ListEventsRequest) -> event_service_pb2.ListEventsResponse:
        """Over one connection, and then over another. Raises DependencyUnavailable."""
        for timeout in TIMEOUTS_SECONDS:
            channel = self._channel
            assert channel is not None
            try:
                stub: Any = event_service_pb2_grpc.EventServiceStub(channel)  # type: ignore[no-untyped-call]
                response: event_service_pb2.ListEventsResponse = await stub.ListEvents(request, metadata=self._metadata, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                # The other end may have gone without a word, and this connection would wait for it for a quarter of an hour.
                self._replace(channel)
                failure = error
            else:
                return response
        raise DependencyUnavailable("auth_service") from failure


def _event(message: event_service_pb2.Event) -> Event:
    session_id = UUID(message.session_id) if message.session_id else None
    created_at = message.created_at.seconds + message.created_at.nanos / 1e9
    return Event(message.number, EventKind(message.kind), UUID(message.user_id), session_id, created_at)
