"""A service with a streaming method, made from a descriptor that is not in `proto/`, with a real server and real clients."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from taskmanager.rpc.v1 import access_pb2
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.rpc.call import Call
from servicekit.rpc.health import Health
from servicekit.rpc.pipeline import Pipeline
from servicekit.rpc.server import GrpcServer
from tests.servicekit.rpc.serving import GOOD, TASK_ID, Limits, Log, pipeline, server_options
from tests.support.errors import ApiError, of_rpc

REQUEST = task_service_pb2.GetTaskRequest(id=TASK_ID)
WATCH = "/planted.Feed/Watch"
TIMEOUT_SECONDS = 10.0

Behaviour: TypeAlias = Callable[[Any, Call], AsyncGenerator[Message, None]]


@functools.cache
def feed_service() -> ServiceDescriptor:
    """Returns `planted.Feed`: Watch streams, Get is unary. Both require a valid id and an access token."""
    file = descriptor_pb2.FileDescriptorProto(name="planted/feed.proto", package="planted", syntax="proto3")
    file.dependency.extend(["taskmanager/task/v1/task_service.proto", "taskmanager/task/v1/task.proto", "taskmanager/rpc/v1/access.proto"])
    service = file.service.add(name="Feed")
    for name, streams in (("Watch", True), ("Get", False)):
        method = service.method.add(
            name=name, input_type=".taskmanager.task.v1.GetTaskRequest", output_type=".taskmanager.task.v1.Task", server_streaming=streams
        )
        method.options.Extensions[access_pb2.access] = access_pb2.ACCESS_AUTHENTICATED
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())  # type: ignore[no-untyped-call]
    return pool.FindServiceByName("planted.Feed")


class Feed:
    """The handlers. Watch runs `behaviour`, and counts how often it started and ended."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = self.three
        self.calls: list[Call] = []
        self.ended = 0

    async def watch(self, request: task_service_pb2.GetTaskRequest, call: Call) -> AsyncGenerator[Message, None]:
        self.calls.append(call)
        try:
            async with contextlib.aclosing(self.behaviour(request, call)) as messages:
                async for message in messages:
                    yield message
        finally:
            # Awaits once, like a feed that releases its resources.
            await asyncio.sleep(0)
            self.ended += 1

    async def get(self, request: task_service_pb2.GetTaskRequest, call: Call) -> Message:
        call.response_headers["x-given"] = "with the answer"
        return task_pb2.Task(id=request.id)

    async def three(self, _: Any, __: Call) -> AsyncGenerator[Message, None]:
        for number in range(3):
            yield task_pb2.Task(title=str(number))

    async def idle(self, _: Any, __: Call) -> AsyncGenerator[Message, None]:
        yield task_pb2.Task(title="first")
        await asyncio.Event().wait()

    async def ticking(self, _: Any, __: Call) -> AsyncGenerator[Message, None]:
        while True:
            yield task_pb2.Task(title="tick")
            await asyncio.sleep(0.02)

    async def flooding(self, _: Any, __: Call) -> AsyncGenerator[Message, None]:
        while True:
            yield task_pb2.Task(description="x" * 10_000)


@dataclass(slots=True)
class Feeding:
    """A server under test, and its client channel."""

    feed: Feed
    registry: CollectorRegistry
    channel: grpc.aio.Channel
    port: int
    log: Log

    def watch(self, request: Message = REQUEST, metadata: Any = GOOD, timeout: float | None = None, channel: grpc.aio.Channel | None = None) -> Any:
        """Starts a call of Watch."""
        return watch(channel or self.channel, request, metadata, timeout)

    def get(self) -> Any:
        """Starts a call of Get."""
        method: Any = self.channel.unary_unary("/planted.Feed/Get", lambda sent: sent.SerializeToString(), task_pb2.Task.FromString)
        return method(REQUEST, metadata=grpc.aio.Metadata(*GOOD), timeout=TIMEOUT_SECONDS)

    def counted(self, name: str, **labels: str) -> float | None:
        """Returns the value of a metric of Watch."""
        of_watch = {"grpc_type": "server_stream", "grpc_service": "planted.Feed", "grpc_method": "Watch"}
        return self.registry.get_sample_value(f"grpc_server_{name}", of_watch | labels)

    @property
    def under_way(self) -> float | None:
        """The number of running streams."""
        return self.registry.get_sample_value("grpc_server_streams_in_flight")


def watch(channel: grpc.aio.Channel, request: Message = REQUEST, metadata: Any = GOOD, timeout: float | None = None) -> Any:
    """Starts a call of Watch."""
    method: Any = channel.unary_stream(WATCH, lambda sent: sent.SerializeToString(), task_pb2.Task.FromString)
    return method(request, metadata=grpc.aio.Metadata(*metadata), timeout=timeout)


async def read_all(call: Any) -> tuple[list[Any], ApiError | None]:
    """Returns the messages of a stream and the error that it ended with, or None."""
    messages: list[Any] = []
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (message := await call.read()) is not grpc.aio.EOF:
                messages.append(message)
    except grpc.aio.AioRpcError as error:
        return messages, of_rpc(error)
    return messages, None


@contextlib.asynccontextmanager
async def feeding(limits: Limits | None = None, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> AsyncIterator[Feeding]:
    """Yields a running server with a channel to it."""
    registry, feed, log = CollectorRegistry(), Feed(), Log()
    async with feeding_by(pipeline(registry, limits, log), feed, interceptors) as (channel, port):
        yield Feeding(feed, registry, channel, port, log)


@contextlib.asynccontextmanager
async def feeding_by(
    the_pipeline: Pipeline, feed: Feed, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
) -> AsyncIterator[tuple[grpc.aio.Channel, int]]:
    """As `feeding`, but with a pipeline from the test."""
    server = GrpcServer(server_options(), Health([], {}, CollectorRegistry()), interceptors)
    server.add(feed_service(), [feed], the_pipeline)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, port
    finally:
        await server.stop(0)
