"""Clients that make random writes over gRPC and REST, and the record of their answers."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import uuid4

import grpc.aio
import httpx

from tests.support.accounts import Account
from tests.support.calls import as_dict, message_of, rest_call, rpc_call, transcoded
from tests.support.descriptors import named
from tests.support.errors import ApiError, of_response
from tests.support.task_api import CONNECTION

# The writing RPCs, each with its weight.
WRITES: Final = {
    "CreateTask": 20,
    "UpdateTask": 20,
    "ReplaceTask": 15,
    "DeleteTask": 12,
    "UndeleteTask": 13,
    "BatchCreateTasks": 5,
    "BatchUpdateTasks": 10,
    "BatchDeleteTasks": 5,
}
MOST_IN_A_BATCH: Final = 5
# The codes of a write that certainly changed nothing. They occur because other clients write to the same tasks.
REFUSED: Final = {"NOT_FOUND", "ALREADY_EXISTS"}
# The codes of a write whose outcome only the log shows.
UNKNOWN: Final = {CONNECTION, "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
PAUSE_SECONDS: Final = 0.05

# Calls a writing RPC by its name with a JSON message and a request id. Returns the tasks of the answer. Raises Failed.
Write: TypeAlias = Callable[[Account, str, Mapping[str, Any], str], Awaitable[Sequence[Mapping[str, Any]]]]


class Failed(Exception):
    """A write failed. The text is the name of the gRPC code, or CONNECTION."""


@dataclass(slots=True)
class User:
    """A user: the tasks as its clients know them, and the record of its writes by request id."""

    account: Account
    live: list[str] = field(default_factory=list)
    binned: list[str] = field(default_factory=list)
    # The answered writes: the ids of the tasks, each with its version if the answer has it.
    answered: dict[str, list[tuple[str, int | None]]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)


class Writer:
    """A client that makes random writes."""

    def __init__(self, user: User, write: Write, rng: random.Random) -> None:
        self._user = user
        self._write = write
        self._rng = rng
        self._titles = (f"{number} {rng.getrandbits(32):x}" for number in itertools.count())

    async def write(self) -> bool:
        """Makes one write and records its outcome. Returns whether it was answered."""
        name, values, ids = self._draw()
        request_id, user = str(uuid4()), self._user
        user.unknown.add(request_id)
        try:
            tasks = await self._write(user.account, name, values, request_id)
        except Failed as failed:
            code = str(failed)
            user.codes[code] += 1
            if code in REFUSED:
                user.unknown.discard(request_id)
                user.refused.add(request_id)
            elif code in UNKNOWN:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                raise
            return code in REFUSED
        user.codes["OK"] += 1
        user.unknown.discard(request_id)
        user.answered[request_id] = [(task["id"], int(task["etag"].strip('"'))) for task in tasks] or [(id_, None) for id_ in ids]
        self._note(name, [id_ for id_, _ in user.answered[request_id]])
        return True

    def _draw(self) -> tuple[str, Mapping[str, Any], Sequence[str]]:
        """Returns a random RPC, its message, and the ids that the message names."""
        rng, user = self._rng, self._user
        names, weights = zip(*WRITES.items(), strict=True)
        (name,) = rng.choices(names, weights)
        if "Create" not in name and len(user.live) < 2 * MOST_IN_A_BATCH:
            name = "CreateTask"
        if name == "UndeleteTask" and not user.binned:
            name = "DeleteTask"
        many = name.startswith("Batch")
        count = rng.randint(2, MOST_IN_A_BATCH) if many else 1
        if "Create" in name:
            requests, ids = [{"task": self._task()} for _ in range(count)], []
        elif "delete" in name.lower():
            ids = rng.sample(user.binned if name == "UndeleteTask" else user.live, count)
            requests = [{"id": id_} for id_ in ids]
        else:
            # A batch may change one task more than once.
            ids = rng.choices(user.live, k=count)
            requests = [{"task": {"id": id_, **self._task()}} for id_ in ids]
        return name, {"requests": requests} if many else requests[0], ids

    def _task(self) -> dict[str, Any]:
        return {"title": next(self._titles), "priority": self._rng.randint(1, 5), "status": self._rng.choice(("PENDING", "IN_PROGRESS", "COMPLETED"))}

    def _note(self, name: str, ids: Sequence[str]) -> None:
        """Records which tasks are in the bin now. Another client may already have moved them."""
        user = self._user
        for id_ in ids:
            to = user.binned if name in {"DeleteTask", "BatchDeleteTasks"} else user.live
            for tasks in (user.live, user.binned):
                if id_ in tasks and tasks is not to:
                    tasks.remove(id_)
            if id_ not in to:
                to.append(id_)


def by_grpc(channel: grpc.aio.Channel) -> Write:
    """Returns a Write that uses gRPC."""

    async def write(account: Account, name: str, values: Mapping[str, Any], request_id: str) -> Sequence[Mapping[str, Any]]:
        metadata = (*account.metadata, ("x-request-id", request_id))
        answer = await rpc_call(channel, named(name), message_of(named(name), values), metadata)
        if isinstance(answer, ApiError):
            raise Failed(answer.status)
        return _tasks_of(as_dict(answer))

    return write


def by_rest(client: httpx.AsyncClient) -> Write:
    """Returns a Write that uses REST."""

    async def write(account: Account, name: str, values: Mapping[str, Any], request_id: str) -> Sequence[Mapping[str, Any]]:
        call, headers = transcoded(named(name), message_of(named(name), values)), {**account.headers, "x-request-id": request_id}
        try:
            response = await rest_call(client, call, headers)
        except httpx.TransportError as error:
            raise Failed(CONNECTION) from error
        if not response.is_success:
            raise Failed(of_response(response).status)
        return _tasks_of(response.json())

    return write


def _tasks_of(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return answer.get("tasks", [answer] if answer else [])
