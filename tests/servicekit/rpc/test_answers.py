"""Large answers: a user makes few at once and at a limited rate, they count until the client has read them, and small ones are not affected."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message
from taskmanager.task.v1 import task_pb2, task_service_pb2

from servicekit.errors import Overloaded
from servicekit.identity import Identity
from servicekit.rpc.answers import AT_ONCE, BYTES_PER_SECOND, Answers
from servicekit.rpc.call import Call
from servicekit.rpc.method import methods_of
from tests.servicekit.rpc.serving import GOOD, TASKS, USER_ID, Serving, Tasks, serving
from tests.support.unread import Unread, unread
from tests.support.waiting import eventually

WITHIN_SECONDS = 10.0
CALLS = 10
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
    began = time.monotonic()
    client.read()
    await _begun(lists, CALLS)
    # The first calls have kept their turns for long. Those that follow keep an even flow.
    assert time.monotonic() - began > (CALLS - 2 * AT_ONCE) * lists.size / BYTES_PER_SECOND
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


def _call() -> Call:
    return Call({}, None, caller=Identity(USER_ID, USER_ID, "t", 2**31))


async def _begun(lists: Lists, number: int) -> None:
    async def require() -> None:
        assert lists.begun == number

    await eventually(require, within=WITHIN_SECONDS, every=0.01)


async def _ended(client: Unread, ends: dict[str, int]) -> None:
    async def require() -> None:
        assert client.ends == ends

    await eventually(require, within=WITHIN_SECONDS, every=0.01)
