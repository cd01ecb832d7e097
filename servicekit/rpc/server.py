"""The edge: serves the services' methods with grpc.aio. The only module that knows grpc.aio's context, and the only place that aborts a call."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from servicekit.access.tokens import MAX_LIFETIME_SECONDS
from servicekit.rpc.call import Call, Check
from servicekit.rpc.health import Health
from servicekit.rpc.method import Method, methods_of
from servicekit.rpc.pipeline import Pipeline, Stream, Unary
from servicekit.rpc.receiving import Receiving
from servicekit.rpc.reflection import add_reflection
from servicekit.rpc.status import Failure, failure_of

# The gateway's limit, plus room for the message around the body.
MAX_REQUEST_BYTES: Final = 3 * 1024 * 1024 + 64 * 1024
# The default limit of gRPC clients. The longest answer is that of a batch: as much text as in a request, and the fields that the server sets.
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024

# When a connection reaches its maximum age, its running calls may continue for this time: a stream lives as long as its access token.
CONNECTION_GRACE_SECONDS: Final = MAX_LIFETIME_SECONDS + 60

# The server sends a ping on each connection, and closes the connection if the ping is not answered in time: the client may have vanished.
PING_SECONDS: Final = 30.0
PING_TIMEOUT_SECONDS: Final = 10.0

# What grpc keeps of a request before the service receives it. By itself, grpc raises this to several MiB.
WINDOW_BYTES: Final = 64 * 1024

# Calls that have arrived and that Python has not accepted yet. When a replica drains, all its watching clients reconnect at once. Beyond this number,
# grpc's core rejects some calls with CANCELLED, which clients do not retry. The pipeline rejects with OVERLOADED instead. grpc's default is 1000.
PENDING_CALLS: Final = 10_000

# After a write has failed, grpc cancels the call within milliseconds.
CANCELLED_WITHIN_SECONDS: Final = 1.0
_NOTHING: Final[Sequence[Message]] = ()

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where to listen, and how long connections live. Port 0 selects a free port."""

    host: str
    port: int
    max_connection_age_seconds: float
    reflected_services: tuple[str, ...]


class GrpcServer:
    """A grpc.aio server with health and, if `reflected_services` is not empty, reflection."""

    def __init__(self, options: ServerOptions, health: Health, interceptors: Iterable[grpc.aio.ServerInterceptor]) -> None:
        self._server = grpc.aio.server(
            interceptors=tuple(interceptors),
            options=[
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
                ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
                ("grpc.http2.bdp_probe", 0),
                # More than the gateway's limit plus a second copy of the path. With its default, grpc rejects calls at random from 8 KiB on.
                ("grpc.max_metadata_size", 80 * 1024),
                ("grpc.absolute_max_metadata_size", 96 * 1024),
                # Clients resolve names again only when a connection ends. Without a maximum age, new pods get no load.
                ("grpc.max_connection_age_ms", round(options.max_connection_age_seconds * 1000)),
                ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1000),
                ("grpc.keepalive_time_ms", round(PING_SECONDS * 1000)),
                # With keepalive_timeout_ms, grpcio 1.85 does not close the connection.
                ("grpc.http2.ping_timeout_ms", round(PING_TIMEOUT_SECONDS * 1000)),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.server.max_pending_requests", PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_CALLS),
                # Otherwise two processes on one port would share its load without an error.
                ("grpc.so_reuseport", 0),
            ],
        )
        health.add_to(self._server, _receiver(Receiving()))
        if options.reflected_services:
            add_reflection(self._server, options.reflected_services)
        self._address = f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}"

    def add(self, service: ServiceDescriptor, handlers: Sequence[object], pipeline: Pipeline) -> None:
        """Registers each method of the service with the pipeline around it. One of `handlers` must have a method of the same name in snake_case.

        One may have a check of its requests, named `check_` and that name. Raises MissingAccess if a method has no access option, ClientStreams if it
        takes a stream, AttributeError if it has no handler or several, TypeError if it streams and its handler is not an async generator. Then the
        server must not start.
        """
        methods = {m.name: _handler_of(m, _implementation(m, handlers), _check(m, handlers), pipeline) for m in methods_of(service)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, methods),))

    async def start(self) -> int:
        """Starts to listen and returns the port. Raises RuntimeError if the port is not available."""
        port = self._server.add_insecure_port(self._address)
        await self._server.start()
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Rejects new calls and waits at most `grace_seconds` for the running ones."""
        await self._server.stop(grace_seconds)


def _implementation(method: Method, handlers: Sequence[object]) -> Any:
    found = [getattr(handler, method.snake_name) for handler in handlers if hasattr(handler, method.snake_name)]
    if len(found) != 1:
        raise AttributeError(f"{method.service}.{method.name}: {len(found)} handlers have a method {method.snake_name}, and one must have it")
    return found[0]


def _check(method: Method, handlers: Sequence[object]) -> Check | None:
    return next(filter(None, (getattr(handler, f"check_{method.snake_name}", None) for handler in handlers)), None)


def _handler_of(method: Method, handler: Any, check: Check | None, pipeline: Pipeline) -> "grpc.RpcMethodHandler[Any, Any]":
    """Returns the method as one whose request is a stream, so that grpc receives nothing before the pipeline asks. Clients see no difference."""
    if not method.streams:
        unary = _unary(method, pipeline.wrap(method, handler, check))
        return grpc.stream_unary_rpc_method_handler(unary, response_serializer=_serialize)
    if not inspect.isasyncgenfunction(handler):
        raise TypeError(f"{method.service}.{method.name} streams: its handler must be an async generator")
    stream = _stream(method, pipeline.wrap_stream(method, handler, check))
    return grpc.stream_stream_rpc_method_handler(stream, response_serializer=_serialize)


def _unary(method: Method, handler: Unary) -> Callable[[Any, Context], Awaitable[Message | bytes | None]]:
    async def unary(_: object, context: Context) -> Message | bytes | None:
        call = _call(context)
        try:
            answer = await handler(context.read, call)
        except Exception as error:  # noqa: BLE001 - the pipeline raises Failure, and anything else is its fault
            await _abort(method, context, error)
            return None
        if call.at_end:
            _call_at_end(call, context)
        if call.response_headers:
            await _send_headers(call, context)
        return answer

    return unary


def _stream(method: Method, handler: Stream) -> Callable[[Any, Context], AsyncIterator[Message]]:
    """Returns an async generator, which OpenTelemetry's interceptor requires. It writes its messages by itself and yields nothing.

    If a generator yielded its messages and the client disconnected, grpc would leave it suspended until the garbage collector closes it. It could
    also not measure how long its message has waited.
    """

    async def stream(_: object, context: Context) -> AsyncIterator[Message]:
        call = _call(context)

        async def send(message: Message) -> None:
            try:
                if call.response_headers and not call.messages_sent:
                    await _send_headers(call, context)
                await context.write(message)
            except grpc.aio.InternalError as error:
                # The connection has ended or the message is too large, and grpc is about to cancel this call. If the call ended before, the
                # cancellation would interrupt the handler's clean-up.
                await asyncio.sleep(CANCELLED_WITHIN_SECONDS)
                raise asyncio.CancelledError from error

        try:
            await handler(context.read, call, send)
        except Exception as error:  # noqa: BLE001 - as above
            await _abort(method, context, error)
            return
        if call.response_headers and not call.messages_sent:
            await _send_headers(call, context)
        for never in _NOTHING:
            yield never

    return stream


async def _abort(method: Method, context: Context, error: Exception) -> None:
    """Ends a call whose pipeline has raised `error`. A client that reads slowly receives the failure after all messages that were sent before it."""
    if isinstance(error, Failure):
        end = error
    else:
        log.error("pipeline_fault", grpc_service=method.service, grpc_method=method.name, exc_info=error)
        end = failure_of(error)
    # If the client has disconnected, it cannot receive the failure. grpc then ignores what the method returns.
    with contextlib.suppress(grpc.aio.InternalError):
        await context.abort(end.code, end.message, end.trailing_metadata)


def _receiver(receiving: Receiving) -> Callable[[Context], Awaitable[bytes]]:
    return lambda context: receiving.receive(context.read, _call(context))


def _call(context: Context) -> Call:
    entries: Any = context.invocation_metadata() or ()
    metadata = {key: value for key, value in entries if type(value) is str and value.isascii()}
    call = Call(metadata, context.time_remaining(), peer=context.peer)
    if len(metadata) < len(entries):
        call.not_ascii = tuple(key for key, value in entries if type(value) is str and not value.isascii())
        if "authorization" in metadata:
            # Two values together are not a valid token, so the call is rejected. Otherwise the last value would count. The gateway drops empty ones.
            metadata["authorization"] = ", ".join(value for key, value in entries if key == "authorization" and value.strip(" \t"))
    return call


def _call_at_end(call: Call, context: Context) -> None:
    """Calls what the pipeline wants to have called when the answer has been sent."""

    def ended(_: Context) -> None:
        for each in call.at_end:
            each()

    # A client that does not read ends its call by its deadline or connection. grpc.aio cannot: a cancelled task leaves the answer in grpc's core.
    context.add_done_callback(ended)  # type: ignore[arg-type]  # the stubs demand a parameter with a name


async def _send_headers(call: Call, context: Context) -> None:
    await context.send_initial_metadata(tuple(call.response_headers.items()))


def _serialize(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()
