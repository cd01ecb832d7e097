"""Large answers: a user makes few at once, they have an even flow, they count until the client has read them, and small ones are not affected."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import pytest
from google.protobuf.message import Message
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import Overloaded
from servicekit.identity import Identity
from servicekit.rpc.answers import AT_ONCE, BYTES_PER_SECOND, HARMLESS_BYTES, PAGE_BYTES, SLOWEST, Answers
from servicekit.rpc.call import ORIGINAL_PATH, Call
from servicekit.rpc.method import methods_of
from tests.servicekit.rpc.serving import GOOD, OTHER_USER_ID, TASKS, USER_ID, Serving, Tasks, serving
from tests.support.unread import Unread, unread
from tests.support.waiting import eventually

WITHIN_SECONDS = 10.0
CALLS = 10
MIB = 1024 * 1024
GRPC: Mapping[str, str] = {}
REST = {ORIGINAL_PATH: "/api/v1/tasks"}
# The answers of 2 MiB, over REST, that a user gets at once: AT_ONCE, and one for the turn that ends at once. The next ones take 4 s each.
BURST = AT_ONCE + 1
METHODS = {method.name: method for method in methods_of(TASKS)}
LIST = {":method": "POST", ":path": f"/{TASKS.full_name}/ListTasks", **dict(GOOD)}


class Lists(Tasks):
    """Handlers whose lists have so many bytes of text."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.begun = 0

    async def list_tasks(self, _: task_service_pb2.ListTasksRequest, __: Call) -> Message:
        self.begun += 1
        return task_service_pb2.ListTasksResponse(tasks=[task_pb2.Task(description="d" * self.size)])


@pytest.fixture
def lists(request: pytest.FixtureRequest) -> Lists:
    return Lists(getattr(request, "param", 1024 * 1024))


@pytest.fixture
async def server(lists: Lists) -> AsyncIterator[Serving]:
    async with serving(tasks=lists) as running:
        yield running


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Unread]:
    async with unread("127.0.0.1", server.port) as client:
        yield client


def test_the_methods_with_many_messages_are_known() -> None:
    lists = {"ListTasks", "ListTaskChanges", "BatchGetTasks", "BatchCreateTasks", "BatchUpdateTasks"}
    assert {name for name, method in METHODS.items() if method.answers_many} == lists
    assert {"GetTask", "ListTasks", "BatchGetTasks"} <= {name for name, method in METHODS.items() if method.only_reads}
    assert not {"CreateTask", "BatchUpdateTasks", "DeleteTask"} & {name for name, method in METHODS.items() if method.only_reads}


async def test_answers_that_nobody_reads_let_no_more_be_made(lists: Lists, client: Unread) -> None:
    for _ in range(CALLS):
        client.ask(LIST, b"")
    await _begun(lists, AT_ONCE)
    await asyncio.sleep(0.5)
    assert lists.begun == AT_ONCE
    client.read()
    await _begun(lists, CALLS)
    await _ended(client, {"0": CALLS})


@pytest.mark.parametrize("lists", [1000], indirect=True)
async def test_small_answers_are_not_counted(lists: Lists, client: Unread) -> None:
    for _ in range(CALLS):
        client.ask(LIST, b"")
    await _begun(lists, CALLS)


async def test_the_deadline_of_an_unread_answer_gives_its_turn_back(lists: Lists, client: Unread) -> None:
    for _ in range(AT_ONCE):
        client.ask({**LIST, "grpc-timeout": "1S"}, b"")
    await _begun(lists, AT_ONCE)
    client.ask(LIST, b"")
    await _begun(lists, AT_ONCE + 1)


async def test_a_client_that_goes_gives_its_turns_back(lists: Lists, server: Serving) -> None:
    for wanted in (AT_ONCE, 2 * AT_ONCE):
        async with unread("127.0.0.1", server.port) as client:
            for _ in range(AT_ONCE):
                client.ask(LIST, b"")
            await _begun(lists, wanted)


async def test_beyond_the_limit_of_all_reads_are_rejected_and_writes_keep_their_answer() -> None:
    answers = Answers(unsent_bytes=1_500_000)
    made = 0

    async def make(_: object, __: Call) -> bytes:
        nonlocal made
        made += 1
        return b"x" * 1_000_000

    read, write = (answers.limit(METHODS[name], make) for name in ("ListTasks", "BatchUpdateTasks"))
    first = _call()
    await read(None, first)
    with pytest.raises(Overloaded) as refused:
        await read(None, _call())
    assert refused.value.retry_after_seconds == 1.0
    second = _call()
    assert len(await write(None, second)) == 1_000_000
    # Now nothing is begun any more, so no write can be done whose answer has no room.
    for handler in (read, write):
        with pytest.raises(Overloaded):
            await handler(None, _call())
    assert made == 3
    for each in (*first.at_end, *second.at_end):
        each()
    await read(None, _call())


class Reader:
    """The calls of a method whose clients read each answer at once."""

    def __init__(self, method: str, text: bytes, size: int = 2 * MIB) -> None:
        self._handler = Answers().limit(METHODS[method], self._make)
        self._data = text * size
        self.made = 0

    async def _make(self, _: object, __: Call) -> bytes:
        self.made += 1
        return self._data

    async def _read(self, call: Call) -> None:
        await self._handler(None, call)
        for each in call.at_end:
            each()

    async def answered(self, metadata: Mapping[str, str], user_id: UUID = USER_ID, within: float = 1) -> int:
        """Returns how many of CALLS calls have their answer within so many seconds. The client cancels the others."""
        done, waiting = await asyncio.wait([asyncio.create_task(self._read(_call(metadata, user_id))) for _ in range(CALLS)], timeout=within)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*done, *waiting, return_exceptions=True)
        return len(done)


async def test_answers_that_become_json_follow_each_other_slowly() -> None:
    assert (PAGE_BYTES, PAGE_BYTES / HARMLESS_BYTES, SLOWEST, BYTES_PER_SECOND) == (2 * MIB, 16, 16, 8 * MIB)
    reader = Reader("ListTasks", b"t")
    assert await reader.answered(REST) == BURST
    assert await reader.answered(REST, OTHER_USER_ID) == BURST
    assert await Reader("ListTasks", b"t", MIB).answered(GRPC) == CALLS


@pytest.mark.parametrize("size", [100_000, HARMLESS_BYTES])
async def test_those_that_delay_nobody_do_not(size: int) -> None:
    """The gateway turns them into JSON in 3 ms."""
    assert await Reader("ListTasks", b"t", size).answered(REST) == CALLS


@pytest.mark.parametrize("text", [b"<", b">", b"\x01"])
async def test_what_becomes_longer_as_json_counts_as_such(text: bytes) -> None:
    assert await Reader("ListTasks", text, MIB).answered(REST) == AT_ONCE


async def test_the_answer_of_a_write_does_not_wait_but_the_next_write_does() -> None:
    writer = Reader("BatchUpdateTasks", b"t")
    assert await writer.answered(REST) == writer.made == BURST


async def test_answers_have_an_even_flow() -> None:
    """None of the turns ends together with another."""
    reader = Reader("ListTasks", b"t")
    assert await reader.answered(REST, within=1) == BURST
    assert await reader.answered(REST, within=4) == 1


async def test_the_error_of_a_rejected_answer_does_not_keep_the_answer() -> None:
    """An error, and all frames of its traceback, can live until a garbage collection."""
    limited = Answers(unsent_bytes=MIB).limit(METHODS["ListTasks"], _large)
    results = await asyncio.gather(limited(None, _call()), limited(None, _call(user_id=OTHER_USER_ID)), return_exceptions=True)
    (error,) = [result for result in results if isinstance(result, Overloaded)]
    kept = [value for frame, _ in traceback.walk_tb(error.__traceback__) for value in frame.f_locals.values() if isinstance(value, bytes)]
    assert sum(map(len, kept)) == 0


async def _large(_: object, __: Call) -> bytes:
    await asyncio.sleep(0)
    return b"t" * MIB


def _call(metadata: Mapping[str, str] = GRPC, user_id: UUID = USER_ID) -> Call:
    return Call(metadata, None, caller=Identity(user_id, user_id, "t", 2**31))


async def _begun(lists: Lists, number: int) -> None:
    async def require() -> None:
        assert lists.begun == number

    await eventually(require, within=WITHIN_SECONDS, every=0.01)


async def _ended(client: Unread, ends: dict[str, int]) -> None:
    async def require() -> None:
        assert client.ends == ends

    await eventually(require, within=WITHIN_SECONDS, every=0.01)
