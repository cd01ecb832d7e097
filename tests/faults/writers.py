"""Clients that write at random, over gRPC and REST, and the book of what they were answered."""

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

# The kinds of writes, each with how often it comes.
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
# What a write may end with that was certainly not done: others write to the same tasks.
REFUSED: Final = {"NOT_FOUND", "ALREADY_EXISTS"}
# And what it may end with of which nothing is known but what the log says.
UNKNOWN: Final = {CONNECTION, "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
PAUSE_SECONDS: Final = 0.05

# Makes a write by its RPC's name and its message in JSON, under a request id; the tasks of the answer. Raises Failed.
Write: TypeAlias = Callable[[Account, str, Mapping[str, Any], str], Awaitable[Sequence[Mapping[str, Any]]]]


class Failed(Exception):
    """A write that did not end well, with the name of its gRPC code, or CONNECTION."""


@dataclass(slots=True)
class User:
    """A user's clients, as they know the tasks, and the book of their writes by request id."""

    account: Account
    live: list[str] = field(default_factory=list)
    binned: list[str] = field(default_factory=list)
    # What was answered: the ids of the tasks, each with its version if the answer tells it.
    answered: dict[str, list[tuple[str, int | None]]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)


class Writer:
    """A client that writes at random."""

    def __init__(self, user: User, write: Write, rng: random.Random) -> None:
        self._user = user
        self._write = write
        self._rng = rng
        self._titles = (f"{number} {rng.getrandbits(32):x}" for number in itertools.count())

    async def write(self) -> bool:
        """Makes one write, notes how it ended, and tells whether it was answered."""
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
        """The RPC, its message, and the ids that it names."""
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
            # One task may be changed more than once.
            ids = rng.choices(user.live, k=count)
            requests = [{"task": {"id": id_, **self._task()}} for id_ in ids]
        return name, {"requests": requests} if many else requests[0], ids

    def _task(self) -> dict[str, Any]:
        return {"title": next(self._titles), "priority": self._rng.randint(1, 5), "status": self._rng.choice(("PENDING", "IN_PROGRESS", "COMPLETED"))}

    def _note(self, name: str, ids: Sequence[str]) -> None:
        """Where the tasks are now, as far as this client can say: another may have written since."""
        user = self._user
        for id_ in ids:
            to = user.binned if name in {"DeleteTask", "BatchDeleteTasks"} else user.live
            for tasks in (user.live, user.binned):
                if id_ in tasks and tasks is not to:
                    tasks.remove(id_)
            if id_ not in to:
                to.append(id_)


def by_grpc(channel: grpc.aio.Channel) -> Write:
    """Writes over gRPC."""

    async def write(account: Account, name: str, values: Mapping[str, Any], request_id: str) -> Sequence[Mapping[str, Any]]:
        metadata = (*account.metadata, ("x-request-id", request_id))
        answer = await rpc_call(channel, named(name), message_of(named(name), values), metadata)
        if isinstance(answer, ApiError):
            raise Failed(answer.status)
        return _tasks_of(as_dict(answer))

    return write


def by_rest(client: httpx.AsyncClient) -> Write:
    """Writes over REST."""

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
