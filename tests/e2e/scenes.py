"""Scenes for tests of idempotency keys: a write in its own world, the ways to call it, and access to the database."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import grpc.aio
import httpx
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.contract.table import World, filled, make_world, row_of
from tests.support.accounts import Account
from tests.support.answers import Answer, by_grpc, by_rest
from tests.support.calls import message_of
from tests.support.descriptors import Rpc, is_output_only, rpcs
from tests.support.tiers import sampled

# TestWebhook ignores the key.
WRITES = [rpc for rpc in rpcs() if rpc.program == "task" and rpc.writes and not rpc.name.endswith(".TestWebhook")]
every_write = pytest.mark.parametrize("rpc", sampled(WRITES, every=3), ids=lambda rpc: rpc.name.rpartition(".")[2])

OTHER_ID = "0190b5a0-0000-7000-8000-000000000001"
KEY: Mapping[str, str] = {"idempotency-key": "the key"}
WITHIN_SECONDS = 5.0
# The error of a write that is executed a second time, for the methods that then fail.
SECOND_TIME = {
    "DeleteTask": "TASK_NOT_FOUND",
    "BatchDeleteTasks": "TASK_NOT_FOUND",
    "UndeleteTask": "TASK_NOT_DELETED",
    "DeleteProject": "PROJECT_NOT_FOUND",
    "UndeleteProject": "PROJECT_NOT_DELETED",
    "DeleteWebhook": "WEBHOOK_NOT_FOUND",
}
# Other values of fields that do not take every text, and the fields that must not be beside a field.
ANOTHER: Mapping[str, str] = {
    "rrule": "FREQ=WEEKLY",
    "due_on": "2030-01-02",
    "time_zone": "UTC",
    "color": "#123456",
    "url": "https://example.com/another",
    "event_types": "project.restored",
}
EXCLUSIVE: Mapping[str, Sequence[str]] = {"due_on": ("due_date", "recurrence"), "before_id": ("after_id",)}
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"

# Makes a call by one way into the system.
Way = Callable[[Rpc, Message, Account, Mapping[str, str]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Scene:
    """A write in its own world, with access to the database."""

    rpc: Rpc
    world: World
    account: Account
    message: Any
    postgres: asyncpg.Pool

    @property
    def changes(self) -> int:
        """The number of changes that the write makes. A webhook is not in the log."""
        if ".WebhookService." in self.rpc.name:
            return 0
        return len(self.message.requests) if "requests" in self.message.DESCRIPTOR.fields_by_name else 1

    @property
    def second_time(self) -> str:
        """The outcome if the write is executed again."""
        return SECOND_TIME.get(self.rpc.name.rpartition(".")[2], "OK")

    async def logged(self) -> int:
        """Returns the number of changes in the user's log. Fails unless the counter has the same number."""
        row = await self.postgres.fetchrow(
            "SELECT count(*), (SELECT last_seq FROM task.counters WHERE user_id = $1) AS last FROM task.changes WHERE user_id = $1", self.account.id
        )
        assert row[0] == row[1]
        return int(row[0])

    async def require_logged(self, count: int) -> None:
        """Fails unless the log has `count` changes."""
        assert await self.logged() == count

    async def require_committed(self, before: int, committed: bool = True) -> None:  # noqa: FBT001, FBT002 - a fact, not an option
        """Fails unless the write, made with the key, is committed, or not. `before`: the number of changes before it."""
        kept = await self.postgres.fetchval("SELECT count(*) FROM task.idempotency_keys WHERE user_id = $1", self.account.id)
        assert kept == committed
        await self.require_logged(before + self.changes * committed)

    async def age(self, by: timedelta) -> None:
        """Makes the user's idempotency keys older."""
        # In two statements, because Citus does not compute with a time in an UPDATE.
        found = await self.postgres.fetch("SELECT key, created_at FROM task.idempotency_keys WHERE user_id = $1", self.account.id)
        older = "UPDATE task.idempotency_keys SET created_at = $3 WHERE user_id = $1 AND key = $2"
        await self.postgres.executemany(older, [(self.account.id, row["key"], row["created_at"] - by) for row in found])

    @contextlib.asynccontextmanager
    async def held_up(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Blocks all writes of the user during the block. Yields a function that fails unless `count` connections wait for the lock."""
        async with self.postgres.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM task.counters WHERE user_id = $1 FOR UPDATE", self.account.id)
            pid = connection.get_server_pid()

            async def waiting(count: int) -> None:
                assert await self.postgres.fetchval(BLOCKED, pid) == count

            yield waiting


async def make_scene(rest: httpx.AsyncClient, postgres: asyncpg.Pool, rpc: Rpc, *others: Rpc) -> Scene:
    """Creates a scene for a write. Its world has tasks, and what the write and the other methods name."""
    world, account = await make_world(rest, "$task_id", *(row_of(one.name).message for one in (rpc, *others)))
    return Scene(rpc, world, account, message_of(rpc, filled(row_of(rpc.name).message, world)), postgres)


# Takes the method of the write, and others.
SceneFactory = Callable[..., Awaitable[Scene]]


def over_rest(client: httpx.AsyncClient) -> Way:
    """Returns the way that uses this client."""
    return lambda *call: by_rest(client, *call)


def over_grpc(channel: grpc.aio.Channel) -> Way:
    """Returns the way that uses this channel."""
    return lambda *call: by_grpc(channel, *call)


async def done(way: Way, scene: Scene, headers: Mapping[str, str] = KEY) -> Answer:
    """Makes the scene's write by a way, with the idempotency key unless other headers are given."""
    return await way(scene.rpc, scene.message, scene.account, headers)


async def require_replays(ways: Mapping[str, Way], scene: Scene, first: Answer) -> None:
    """Fails unless each way returns the first answer, marked as replayed, and changes nothing."""
    before = await scene.logged()
    for name, way in ways.items():
        again = await done(way, scene)
        assert (again.outcome, again.replayed) == ("OK", "true"), f"{name}: {again}"
        assert again.values == first.values, name
    assert await scene.logged() == before


def others(message: Any) -> Iterator[tuple[str, Any]]:
    """Yields variants of the message: one with a changed value for each field, and one with a shorter list for each list."""
    present = {field.name for field, _ in message.ListFields()}
    for field in message.DESCRIPTOR.fields:
        if is_output_only(field) and field.name not in present:
            continue
        copy = type(message).FromString(message.SerializeToString())
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            _change(copy, field)
            yield field.name, copy
            continue
        value = getattr(message, field.name)
        for what, changed in others(value[0] if field.is_repeated else value):
            another = type(message).FromString(message.SerializeToString())
            inner = getattr(another, field.name)
            (inner[0] if field.is_repeated else inner).CopyFrom(changed)
            yield f"{field.name}.{what}", another
        if field.is_repeated:
            del getattr(copy, field.name)[-1]
            yield f"{field.name} without the last", copy


def _change(message: Any, field: FieldDescriptor) -> None:
    """Sets a field to another valid value."""
    for other in EXCLUSIVE.get(field.name, ()):
        message.ClearField(other)
    name, value = field.name, getattr(message, field.name)
    rules: Any = field.GetOptions().Extensions[validate_pb2.field]  # type: ignore[index]  # the stubs do not know custom options
    if field.is_repeated:
        value.append(ANOTHER.get(name, "another"))
    elif field.message_type is not None and field.message_type.name == "FieldMask":
        value.paths[:] = ["description"]
    elif field.message_type is not None:
        value.seconds += 1
    elif field.type == FieldDescriptor.TYPE_STRING:
        is_id = rules.string.uuid or name == "id" or name.endswith("_id")
        setattr(message, name, OTHER_ID if is_id else ANOTHER.get(name, "another"))
    elif field.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, name, not value)
    else:
        # Value 1: the lowest priority, or the first status.
        assert value != 1
        setattr(message, name, 1)
