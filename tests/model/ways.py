"""The ways to make a call. Each converts the answer to the model's form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import grpc
import grpc.aio
import httpx
from google.protobuf.message import Message

from tests.model.tasks import CREATED, DELETED, RESTORED, UPDATED, Done, Refused, Task, Write, values_of, version_of
from tests.support.accounts import Account
from tests.support.calls import TIMEOUT_SECONDS, as_dict, message_of, rest_call, transcoded
from tests.support.descriptors import Rpc, named
from tests.support.errors import ApiError, of_response, of_rpc
from tests.support.watchers import Watcher, over_grpc

# What the model of lists has: tests/model/lists.py.
OF_LISTS = frozenset({"project_id", "parent_id", "position", "due_at", "due_on", "time_zone", "previous_id", "next_id", "reminders"})
KINDS_TOLD = {"CREATED": CREATED, "UPDATED": UPDATED, "DELETED": DELETED, "RESTORED": RESTORED}
REPLAYED = "idempotency-replayed"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a successful call, in JSON form."""

    values: Mapping[str, Any]
    replayed: bool


class Way(Protocol):
    """A client of one protocol and path."""

    async def call(self, rpc: Rpc, message: Message, account: Account, headers: Mapping[str, str]) -> Answer:
        """Makes a call. Raises Refused."""


class Grpc:
    """A client over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def call(self, rpc: Rpc, message: Message, account: Account, headers: Mapping[str, str]) -> Answer:
        """See Way.call."""
        call = self.channel.unary_unary(rpc.path, request_serializer=rpc.request.SerializeToString, response_deserializer=rpc.response.FromString)
        under_way = call(message, metadata=grpc.aio.Metadata(*account.metadata, *headers.items()), timeout=TIMEOUT_SECONDS)
        try:
            answer = await under_way
        except grpc.aio.AioRpcError as error:
            raise _refused(of_rpc(error)) from None
        return Answer(as_dict(answer), dict(await under_way.initial_metadata()).get(REPLAYED) == "true")


class Rest:
    """A client over REST."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(self, rpc: Rpc, message: Message, account: Account, headers: Mapping[str, str]) -> Answer:
        """See Way.call."""
        response = await rest_call(self._client, transcoded(rpc, message), {**account.headers, **headers})
        if response.is_error:
            raise _refused(of_response(response))
        return Answer(response.json(), response.headers.get(REPLAYED) == "true")


async def write(way: Way, account: Account, write: Write) -> Done | Refused:
    """Makes a writing call."""
    rpc = named(f"TaskService.{write.rpc}")
    requests = list(values_of(write))
    message = message_of(rpc, {"requests": requests} if write.is_batch else requests[0])
    headers = {name: value for name, value in (("if-match", write.if_match), ("idempotency-key", write.key)) if value}
    try:
        answer = await way.call(rpc, message, account, headers)
    except Refused as refused:
        return refused
    return Done(_tasks(rpc, answer.values), answer.replayed)


async def read(way: Way, account: Account, name: str, values: Mapping[str, Any]) -> Done | Refused:
    """Makes a reading call."""
    rpc = named(f"TaskService.{name}")
    try:
        answer = await way.call(rpc, message_of(rpc, values), account, {})
    except Refused as refused:
        return refused
    return Done(_tasks(rpc, answer.values), answer.replayed)


async def page(way: Way, account: Account, values: Mapping[str, Any]) -> tuple[Sequence[Task], str, int | None, str]:
    """Returns a page's tasks, the next page token, the total size if the answer has it, and the resume token. Raises Refused."""
    rpc = named("TaskService.ListTasks")
    answer = await way.call(rpc, message_of(rpc, values), account, {})
    total = answer.values.get("total_size")
    return _tasks(rpc, answer.values), answer.values["next_page_token"], None if total is None else int(total), answer.values["resume_token"]


async def changes(way: Grpc, account: Account, token: str, count: int) -> Sequence[tuple[int, str, int]]:
    """Returns kind, id and version of all changes received after a resume token, once at least `count` have arrived."""
    async with Watcher(over_grpc(way.channel), account, token) as watcher:
        return [(KINDS_TOLD[told.kind], told.task["id"], version_of(told.task)) for told in await watcher.changed(count)]


def _tasks(rpc: Rpc, values: Mapping[str, Any]) -> Sequence[Task]:
    """Returns the tasks in an answer, with their times as datetimes."""
    found = [values] if rpc.response.DESCRIPTOR.name == "Task" else values.get("tasks", [])
    kept = [{name: value for name, value in task.items() if name not in OF_LISTS} for task in found]
    return [{name: _time(value) if name.endswith(("_at", "due_date")) else value for name, value in task.items()} for task in kept]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _refused(error: ApiError) -> Refused:
    return Refused(_CODES[error.code], error.reason, error.metadata)
