"""The calls that the benchmark makes, each in two forms: over gRPC, and over REST."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from taskmanager.task.v1 import task_pb2, task_service_pb2

from bench.jobs import Protocol, Request
from tests.support.accounts import Account

SERVICE = "/taskmanager.task.v1.TaskService/"
REST = "/api/v1/tasks"
PAGE_SIZE = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call in both forms."""

    grpc: Request
    rest: Request


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of a row. The callers make them in turn."""

    name: str
    calls: tuple[Call, ...]

    def over(self, protocol: Protocol) -> tuple[Request, ...]:
        """Returns the requests of one protocol."""
        return tuple(call.grpc if protocol == "grpc" else call.rest for call in self.calls)


def get(account: Account, task_id: str) -> Call:
    """Returns a GetTask."""
    return Call(_over_grpc("GetTask", account, task_service_pb2.GetTaskRequest(id=task_id)), Request("GET", f"{REST}/{task_id}", account.id))


def page(account: Account, skip: int = 0) -> Call:
    """Returns a ListTasks of one page."""
    request = task_service_pb2.ListTasksRequest(page_size=PAGE_SIZE, skip=skip)
    path = f"{REST}?page_size={PAGE_SIZE}" + (f"&skip={skip}" if skip else "")
    return Call(_over_grpc("ListTasks", account, request), Request("GET", path, account.id))


def create(account: Account) -> Call:
    """Returns a CreateTask without an idempotency key."""
    request = task_service_pb2.CreateTaskRequest(task=new_task(0))
    return Call(_over_grpc("CreateTask", account, request), Request("POST", REST, account.id, _body(new_task(0))))


def update(account: Account, task_id: str, number: int) -> Call:
    """Returns an UpdateTask without an etag, which changes title, status and priority. Another number gives other values of all three."""
    status = task_pb2.Task.IN_PROGRESS if number % 2 else task_pb2.Task.PENDING
    task = task_pb2.Task(title=f"Write down what was decided, version {number}", status=status, priority=1 + number % 5)
    mask = FieldMask(paths=["title", "status", "priority"])
    rest = Request("PATCH", f"{REST}/{task_id}?update_mask={','.join(mask.paths)}", account.id, _body(task))
    task.id = task_id
    return Call(_over_grpc("UpdateTask", account, task_service_pb2.UpdateTaskRequest(task=task, update_mask=mask)), rest)


def changes(items: Sequence[T]) -> list[tuple[int, T]]:
    """Returns every item twice, with the numbers 0 and 1: first all in a random order, then all in another.

    So each update of an endless cycle changes a random task, and gives it other values than the update before it.
    """
    order = random.Random(len(items))
    return [(number, item) for number in (0, 1) for item in order.sample(items, len(items))]


def new_task(number: int) -> task_pb2.Task:
    """Returns a task of typical size."""
    task = task_pb2.Task(
        title=f"Write down what was decided, part {number}",
        description="Who was there, what was said, and what is to be done by whom. " * 3,
        priority=4,
        labels=("work", "meeting notes"),
    )
    task.due_date.FromDatetime(datetime(2030, 1, 31, 12, tzinfo=UTC))
    return task


async def answers(channel: grpc.aio.Channel, rows: Sequence[Calls], tokens: Mapping[str, str]) -> Mapping[str, bytes]:
    """Makes the first call of each RPC that the rows contain, and returns the answers by the path of the RPC. `tokens` are by the user's id."""
    first = {request.path: request for row in reversed(rows) for request in reversed(row.over("grpc"))}
    return {path: await _answer(channel, request, tokens[request.user]) for path, request in first.items()}


async def _answer(channel: grpc.aio.Channel, request: Request, token: str) -> bytes:
    # Without serializers, grpc passes the messages as bytes.
    method: Any = channel.unary_unary(request.path)
    answer: bytes = await method(request.body, metadata=grpc.aio.Metadata(("authorization", f"Bearer {token}")), timeout=20)
    return answer


def _body(task: task_pb2.Task) -> bytes:
    return json.dumps(MessageToDict(task, preserving_proto_field_name=True)).encode()


def _over_grpc(name: str, account: Account, message: Message) -> Request:
    return Request("POST", SERVICE + name, account.id, message.SerializeToString())
