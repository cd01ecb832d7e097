"""The task API for tests under load: the same calls over gRPC and over REST, with one exception for all failures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import grpc.aio
import httpx
from taskmanager.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

from tests.support.accounts import Account

TIMEOUT_SECONDS: Final = 5.0
# The code of a call without an answer: the connection could not be opened, or broke.
CONNECTION: Final = "CONNECTION"
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as an answer showed it. The version is the number in the etag: each change increments it by 1."""

    id: str
    title: str
    version: int

    @property
    def etag(self) -> str:
        """The etag of that version."""
        return f'"{self.version}"'


class CallFailed(Exception):
    """A call failed. `code` is the name of a gRPC status, or CONNECTION."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class TaskApi(Protocol):
    """The calls. Each sends its request id and raises CallFailed."""

    async def create(self, title: str, request_id: str) -> Seen:
        """CreateTask."""

    async def get(self, task_id: str, request_id: str) -> Seen:
        """GetTask."""

    async def rename(self, task_id: str, title: str, request_id: str, etag: str = "") -> Seen:
        """UpdateTask with a new title. With an etag it succeeds only if that is the task's current one."""

    async def delete(self, task_id: str, request_id: str) -> None:
        """DeleteTask."""

    async def list(self, request_id: str) -> Sequence[Seen]:
        """The first page of ListTasks."""


class GrpcTasks:
    """The task API over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, account: Account, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._stub: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call]
        self._account = account
        self._timeout_seconds = timeout_seconds

    async def create(self, title: str, request_id: str) -> Seen:
        """See TaskApi.create."""
        return _of_message(await self._call("CreateTask", task_service_pb2.CreateTaskRequest(task=task_pb2.Task(title=title)), request_id))

    async def get(self, task_id: str, request_id: str) -> Seen:
        """See TaskApi.get."""
        return _of_message(await self._call("GetTask", task_service_pb2.GetTaskRequest(id=task_id), request_id))

    async def rename(self, task_id: str, title: str, request_id: str, etag: str = "") -> Seen:
        """See TaskApi.rename."""
        request = task_service_pb2.UpdateTaskRequest(task=task_pb2.Task(id=task_id, title=title, etag=etag))
        return _of_message(await self._call("UpdateTask", request, request_id))

    async def delete(self, task_id: str, request_id: str) -> None:
        """See TaskApi.delete."""
        await self._call("DeleteTask", task_service_pb2.DeleteTaskRequest(id=task_id), request_id)

    async def list(self, request_id: str) -> Sequence[Seen]:
        """See TaskApi.list."""
        return [_of_message(task) for task in (await self._call("ListTasks", task_service_pb2.ListTasksRequest(), request_id)).tasks]

    async def _call(self, method: str, request: object, request_id: str) -> Any:
        metadata = grpc.aio.Metadata(*self._account.metadata, ("x-request-id", request_id))
        try:
            return await getattr(self._stub, method)(request, metadata=metadata, timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code().name, error.details() or "") from error


class RestTasks:
    """The task API over REST."""

    def __init__(self, client: httpx.AsyncClient, account: Account) -> None:
        self._client = client
        self._account = account

    async def create(self, title: str, request_id: str) -> Seen:
        """See TaskApi.create."""
        return _of_json(await self._call("POST", "/api/v1/tasks", request_id, {"title": title}))

    async def get(self, task_id: str, request_id: str) -> Seen:
        """See TaskApi.get."""
        return _of_json(await self._call("GET", f"/api/v1/tasks/{task_id}", request_id))

    async def rename(self, task_id: str, title: str, request_id: str, etag: str = "") -> Seen:
        """See TaskApi.rename."""
        return _of_json(await self._call("PATCH", f"/api/v1/tasks/{task_id}", request_id, {"title": title, "etag": etag}))

    async def delete(self, task_id: str, request_id: str) -> None:
        """See TaskApi.delete."""
        await self._call("DELETE", f"/api/v1/tasks/{task_id}", request_id)

    async def list(self, request_id: str) -> Sequence[Seen]:
        """See TaskApi.list."""
        return [_of_json(task) for task in (await self._call("GET", "/api/v1/tasks", request_id))["tasks"]]

    async def _call(self, verb: str, path: str, request_id: str, body: object = None) -> Any:
        return await answer(self._client, verb, path, {**self._account.headers, "x-request-id": request_id}, body)


async def answer(client: httpx.AsyncClient, verb: str, path: str, headers: Mapping[str, str], body: object = None) -> Any:
    """Makes a REST call and returns the JSON of its answer. Raises CallFailed."""
    try:
        response = await client.request(verb, path, json=body, headers=headers)
    except httpx.TransportError as error:
        raise CallFailed(CONNECTION, repr(error)) from error
    if response.is_success:
        return response.json()
    raise CallFailed(_code(response), f"{response.status_code} {response.text}")


def _code(response: httpx.Response) -> str:
    """Returns the name of an error's gRPC code, or MALFORMED_<status> if the error does not have the standard JSON shape."""
    try:
        return _CODES[response.json()["code"]]
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"MALFORMED_{response.status_code}"


def _of_message(task: Any) -> Seen:
    return Seen(task.id, task.title, _version(task.etag))


def _of_json(task: Any) -> Seen:
    return Seen(task["id"], task["title"], _version(task["etag"]))


def _version(etag: str) -> int:
    return int(etag.strip('"'))
