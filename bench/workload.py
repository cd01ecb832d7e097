"""The workload: accounts with tasks, the calls of each RPC over gRPC and REST, and one answer of each RPC for the floor."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import httpx
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from taskmanager.task.v1 import task_pb2, task_service_pb2

from bench.jobs import Request
from tests.support.accounts import Account, make_account

SERVICE = "/taskmanager.task.v1.TaskService/"
REST = "/api/v1/tasks"

# Writes of one user wait for each other by design. So the benchmark uses a few more users than the database pool has connections.
ACCOUNTS = 16
# More than the page size, so that a next page follows.
TASKS_EACH = 24
PAGE_SIZE = 20


@dataclass(frozen=True, slots=True)
class Rpc:
    """The calls of an RPC, the same over gRPC and over REST, and one of its answers."""

    name: str
    grpc: tuple[Request, ...]
    rest: tuple[Request, ...]
    reply: bytes

    @property
    def path(self) -> str:
        """The path of the gRPC call."""
        return SERVICE + self.name


async def make_accounts(url: str) -> list[Account]:
    """Creates the accounts through the gateway at `url`."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as rest:
        return await asyncio.gather(*(make_account(rest) for _ in range(2 * ACCOUNTS)))


async def prepare(accounts: Sequence[Account], channel: grpc.aio.Channel) -> list[Rpc]:
    """Creates the tasks through the channel and returns the calls. Readers and writers are different accounts, so lists keep their length."""
    readers, writers = accounts[:ACCOUNTS], accounts[ACCOUNTS:]
    create = [_call("CreateTask", account, task_service_pb2.CreateTaskRequest(task=new_task(0))) for account in writers]
    ids = await asyncio.gather(*(_create(channel, account, number) for number, account in itertools.product(range(TASKS_EACH), readers)))
    owned = list(zip(ids, itertools.cycle(readers), strict=False))
    get = [_call("GetTask", account, task_service_pb2.GetTaskRequest(id=task_id)) for task_id, account in owned]
    page = [_call("ListTasks", account, task_service_pb2.ListTasksRequest(page_size=PAGE_SIZE)) for account in readers]
    body = json.dumps(MessageToDict(new_task(0), preserving_proto_field_name=True)).encode()
    return [
        await _rpc(channel, "GetTask", get, [Request("GET", f"{REST}/{task_id}", account.access_token) for task_id, account in owned]),
        await _rpc(channel, "ListTasks", page, [Request("GET", f"{REST}?page_size={PAGE_SIZE}", account.access_token) for account in readers]),
        await _rpc(channel, "CreateTask", create, [Request("POST", REST, account.access_token, body) for account in writers]),
    ]


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


def call_of(name: str, account: Account, body: bytes) -> Request:
    """Returns a call over gRPC."""
    return Request("POST", SERVICE + name, account.access_token, body)


def _call(name: str, account: Account, message: Message) -> Request:
    return call_of(name, account, message.SerializeToString())


async def _rpc(channel: grpc.aio.Channel, name: str, calls: Sequence[Request], rest: Sequence[Request]) -> Rpc:
    return Rpc(name, tuple(calls), tuple(rest), await _answer(channel, calls[0]))


async def _create(channel: grpc.aio.Channel, account: Account, number: int) -> str:
    answer = await _answer(channel, _call("CreateTask", account, task_service_pb2.CreateTaskRequest(task=new_task(number))))
    return task_pb2.Task.FromString(answer).id


async def _answer(channel: grpc.aio.Channel, request: Request) -> bytes:
    # Without serializers, grpc passes the messages as bytes.
    method: Any = channel.unary_unary(request.path)
    answer: bytes = await method(request.body, metadata=grpc.aio.Metadata(("authorization", f"Bearer {request.token}")), timeout=20)
    return answer
