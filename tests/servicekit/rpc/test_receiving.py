"""Requests arrive when it is their turn: until then grpc keeps little of them, and no caller delays another."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from servicekit.errors import MalformedRequest
from servicekit.identity import Identity
from servicekit.rpc.call import Call
from servicekit.rpc.receiving import Receiving
from servicekit.rpc.server import WINDOW_BYTES
from tests.servicekit.rpc.serving import GOOD, OTHER, TASKS, Limits, Serving, serving
from tests.servicekit.rpc.test_budget import of_size
from tests.support.uploads import Uploads
from tests.support.waiting import eventually

ADA, BOB = (Call({}, None, caller=Identity(UUID(int=number), UUID(int=number), "t", 2**31)) for number in (1, 2))
NOBODY, ELSEWHERE = (Call({"x-envoy-external-address": address}, None) for address in ("192.0.2.1", "192.0.2.2"))
PATH = f"/{TASKS.full_name}/GetTask"
BODY = of_size(2_000_000)
# A connection whose calls have sent so much has a large window, if grpc may choose it.
WARM_CALLS, WITHIN_SECONDS, STILL_SECONDS = 8, 10.0, 0.5


class Reads:
    """Requests that arrive when `release` is set."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving
        self._begun: list[Call] = []
        self.release = asyncio.Event()

    def start(self, call: Call) -> "asyncio.Task[bytes]":
        async def read() -> bytes:
            self._begun.append(call)
            await self.release.wait()
            return b"request"

        return asyncio.create_task(self._receiving.receive(read, call))

    async def begun(self) -> list[Call]:
        """Returns the calls whose requests may arrive, after all calls have had the opportunity."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self._begun


@pytest.mark.parametrize(("one", "other"), [(ADA, BOB), (NOBODY, ELSEWHERE)], ids=["users", "addresses"])
async def test_beyond_the_free_places_each_caller_has_turns_of_its_own(one: Call, other: Call) -> None:
    reads = Reads(Receiving(at_once=1, of_caller=2))
    received = [reads.start(one) for _ in range(5)]
    assert await reads.begun() == [one] * 3
    received.append(reads.start(other))
    assert await reads.begun() == [one] * 3 + [other]
    reads.release.set()
    assert await asyncio.gather(*received) == [b"request"] * 6
    assert await reads.begun() == [one] * 3 + [other] + [one] * 2


async def test_a_call_that_ends_gives_its_place_to_the_next() -> None:
    reads = Reads(Receiving(at_once=1, of_caller=1))
    free, turn, waiting = (reads.start(ADA) for _ in range(3))
    assert len(await reads.begun()) == 2
    turn.cancel()
    assert len(await reads.begun()) == 3
    waiting.cancel()
    free.cancel()
    await asyncio.gather(free, turn, waiting, return_exceptions=True)
    again = [reads.start(ADA) for _ in range(3)]
    assert len(await reads.begun()) == 5
    reads.release.set()
    assert await asyncio.gather(*again) == [b"request"] * 3


async def test_a_call_without_a_message_is_rejected() -> None:
    async def nothing() -> object:
        return object()

    with pytest.raises(MalformedRequest):
        await Receiving().receive(nothing, ADA)


@contextlib.asynccontextmanager
async def uploads(server: Serving, *, left_out: int = 0, calls: int = 1, token: str = GOOD[0][1]) -> AsyncIterator[Uploads]:
    """Yields a connection that has begun so many calls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    client = Uploads(writer, PATH, token, BODY, left_out=left_out)
    await client.begin(calls)
    running = asyncio.create_task(client.run(reader))
    try:
        yield client
    finally:
        running.cancel()
        writer.close()
        await asyncio.gather(running, return_exceptions=True)


async def test_of_a_request_that_waits_grpc_keeps_only_the_window() -> None:
    async with serving(Limits(receiving=Receiving(at_once=0, of_caller=1))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.closing(writer):
            client = Uploads(writer, PATH, GOOD[0][1], BODY)
            async with asyncio.timeout(WITHIN_SECONDS):
                for _ in range(WARM_CALLS):
                    await client.begin(1)
                    await client.run(reader)
            assert server.handled("OK") == WARM_CALLS
            async with uploads(server, left_out=1) as unfinished:

                async def nearly_arrived() -> None:
                    assert list(unfinished.sent.values()) == [len(BODY) + 4]

                await eventually(nearly_arrived, within=WITHIN_SECONDS)
                await client.begin(1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STILL_SECONDS):
                        await client.run(reader)
                (sent,) = client.sent.values()
                assert 0 < sent <= WINDOW_BYTES
                # The request of another user arrives meanwhile.
                assert (await server.get_task(BODY, OTHER)).title == "Found"


async def test_nothing_of_a_request_without_a_valid_token_is_received() -> None:
    async with serving() as server, uploads(server, left_out=1, token="Bearer bad") as client:

        async def rejected() -> None:
            assert not client.sent
            assert server.handled("Unauthenticated") == 1

        await eventually(rejected, within=WITHIN_SECONDS)


async def test_a_request_that_does_not_arrive_ends_at_the_deadline() -> None:
    async with serving(Limits(deadline_seconds=0.2)) as server, uploads(server, left_out=1) as client:

        async def ended() -> None:
            assert not client.sent
            assert server.handled("DeadlineExceeded") == 1

        await eventually(ended, within=WITHIN_SECONDS)
