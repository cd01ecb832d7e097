"""A real server on a free port, with hand-written handlers and a hand-written verifier."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import TokenInvalid
from servicekit.identity import Identity
from servicekit.rpc.budget import ByteBudget
from servicekit.rpc.call import Call
from servicekit.rpc.call_log import CallLog
from servicekit.rpc.health import Check, Health
from servicekit.rpc.method import methods_of
from servicekit.rpc.metrics import CallMetrics
from servicekit.rpc.pipeline import Pipeline
from servicekit.rpc.receiving import Read, Receiving
from servicekit.rpc.server import GrpcServer, ServerOptions
from tests.support.calls import rpc_call
from tests.support.descriptors import named

TASKS: ServiceDescriptor = task_service_pb2.DESCRIPTOR.services_by_name["TaskService"]
USER_ID = UUID("0190b5a0-0000-7000-8000-000000000001")
OTHER_USER_ID = UUID("0190b5a0-0000-7000-8000-000000000002")
TASK_ID = "0190b5a0-0000-7000-8000-00000000000a"
GOOD = (("authorization", "Bearer good"),)
OTHER = (("authorization", "Bearer other"),)
USERS: Mapping[str, UUID] = {"good": USER_ID, "other": OTHER_USER_ID}
SERVICE_TOKENS = ("the-new-service-token", "the-old-service-token")


class TwoTokens:
    """A verifier that accepts only the tokens `good` and `other`, of two users."""

    def __init__(self) -> None:
        self._known: dict[str, Identity] = {}

    def known(self, token: str) -> Identity | None:
        return self._known.get(token)

    async def verify(self, token: str) -> Identity:
        user_id = USERS.get(token)
        if user_id is None:
            raise TokenInvalid
        self._known[token] = Identity(user_id=user_id, session_id=user_id, token_id="t", expires_at=2**31)
        return self._known[token]


class Tasks:
    """Handlers of TaskService. GetTask runs `behaviour`; the others are not implemented."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.behaviour: Any = self.answer

    async def answer(self, request: task_service_pb2.GetTaskRequest, _: Call) -> Message:
        return task_pb2.Task(id=request.id, title="Found")

    async def get_task(self, request: task_service_pb2.GetTaskRequest, call: Call) -> Message:
        self.calls.append(call)
        answer: Message = await self.behaviour(request, call)
        return answer

    async def _nothing(self, request: Any, call: Call) -> Message:
        raise NotImplementedError

    async def _no_messages(self, _: Any, __: Call) -> AsyncGenerator[Message, None]:
        raise NotImplementedError
        yield

    def __getattr__(self, name: str) -> Any:
        """Any other method of TaskService: a new RPC needs no change here."""
        method = {each.snake_name: each for each in methods_of(TASKS)}.get(name)
        if method is None:
            raise AttributeError(name)
        return self._no_messages if method.streams else self._nothing


@dataclass(slots=True)
class Serving:
    """A server under test, and its client channel."""

    tasks: Tasks
    registry: CollectorRegistry
    health: Health
    channel: grpc.aio.Channel
    port: int
    log: "Log"

    async def get_task(self, request: Message | bytes | None = None, metadata: Any = GOOD) -> Any:
        """Calls GetTask, by default with a valid request. Returns the task or the ApiError."""
        request = task_service_pb2.GetTaskRequest(id=TASK_ID) if request is None else request
        return await rpc_call(self.channel, named("TaskService.GetTask"), request, metadata)

    def handled(self, code: str) -> float | None:
        """Returns how many GetTask calls ended with this code."""
        labels = {"grpc_type": "unary", "grpc_service": TASKS.full_name, "grpc_method": "GetTask", "grpc_code": code}
        return self.registry.get_sample_value("grpc_server_handled_total", labels)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits and readiness checks of a server under test."""

    deadline_seconds: float = 5.0
    concurrent_calls: int = 10
    concurrent_streams: int = 10
    slow_reader_seconds: float = 30.0
    checks: Mapping[str, Check] = field(default_factory=dict)
    receiving: Receiving = field(default_factory=Receiving)
    budget: ByteBudget = field(default_factory=ByteBudget)


class Log:
    """The call log's lines that are built without structlog, as a service writes them."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self.add = self._lines.append

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The lines, parsed. Each must be one line."""
        assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in self._lines)
        return [json.loads(line) for line in self._lines]


def pipeline(registry: CollectorRegistry, limits: Limits | None = None, log: Log | None = None) -> Pipeline:
    """Returns a pipeline with the hand-written verifier."""
    given = limits or Limits()
    return Pipeline(
        verifier=TwoTokens(),
        service_tokens=SERVICE_TOKENS,
        metrics=CallMetrics(registry),
        call_log=CallLog("test", (log or Log()).add, None),
        default_deadline_seconds=given.deadline_seconds,
        max_concurrent_calls=given.concurrent_calls,
        max_concurrent_streams=given.concurrent_streams,
        slow_reader_seconds=given.slow_reader_seconds,
        receiving=given.receiving,
        budget=given.budget,
    )


def reading(request: Message | bytes) -> Read:
    """Returns the function that receives this request."""
    data = request if isinstance(request, bytes) else request.SerializeToString()

    async def read() -> bytes:
        return data

    return read


def server_options() -> ServerOptions:
    """Returns the options of a server on a free port of this machine, without reflection."""
    return ServerOptions(host="127.0.0.1", port=0, max_connection_age_seconds=60, reflected_services=())


@contextlib.asynccontextmanager
async def serving(limits: Limits | None = None, tasks: Tasks | None = None) -> AsyncIterator[Serving]:
    """Yields a running server with a channel to it."""
    registry, tasks, log = CollectorRegistry(), tasks or Tasks(), Log()
    health = Health([TASKS.full_name], (limits or Limits()).checks, registry)
    server = GrpcServer(server_options(), health, ())
    server.add(TASKS, [tasks], pipeline(registry, limits, log))
    await health.start()
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Serving(tasks, registry, health, channel, port, log)
    finally:
        await server.stop(0)
        await health.stop()
