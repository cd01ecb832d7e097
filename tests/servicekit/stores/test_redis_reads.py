"""The pipelined reads, against a server that answers, drops connections or delays answers, as the test configures it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from servicekit.stores.redis_reads import Reads

# In the tests in which every answer comes.
PATIENT_SECONDS = 5.0
TIMEOUT_SECONDS = 0.2


class Server:
    """A RESP server whose answers to GET contain the key, so that a test notices an answer that reaches the wrong caller."""

    def __init__(self) -> None:
        self.drops: Iterator[str] = iter(())
        self.seconds_per_answer = 0.0
        self.silent = False
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        drop = next(self.drops, "")
        try:
            while line := await reader.readline():
                words = [await self._word(reader) for _ in range(int(line[1:]))]
                await self._answer(writer, words, drop)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _word(self, reader: asyncio.StreamReader) -> bytes:
        word = await reader.readexactly(int((await reader.readline())[1:]))
        await reader.readexactly(2)
        return word

    async def _answer(self, writer: asyncio.StreamWriter, words: list[bytes], drop: str) -> None:
        name = words[0].upper()
        if name == b"GET":
            if drop == "at the first question":
                raise ConnectionError
            await asyncio.sleep(self.seconds_per_answer)
            if not self.silent:
                value = b"value of " + words[1]
                writer.write(b"$%d\r\n%s\r\n" % (len(value), value))
        elif name == b"HELLO":
            writer.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
        else:
            writer.write(b"+OK\r\n")
            if drop == "after the handshake" and b"LIB-VER" in words:
                raise ConnectionError


@asynccontextmanager
async def reading(server: Server, timeout_seconds: float = PATIENT_SECONDS) -> AsyncIterator[Reads]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    pool = redis.asyncio.BlockingConnectionPool.from_url(f"redis://127.0.0.1:{port}", socket_connect_timeout=timeout_seconds)
    reads = Reads(pool, timeout_seconds, lambda _: None)
    try:
        yield reads
    finally:
        await reads.close()
        listening.close()


async def _connected(reads: Reads) -> None:
    """Connects. On a busy machine, an attempt may take longer than the short timeout."""
    async with asyncio.timeout(PATIENT_SECONDS):
        while not reads.is_connected:
            with suppress(RedisError, OSError):
                await reads.connect()


async def _ask(reads: Reads, *keys: str) -> list[object]:
    return list(await asyncio.gather(*(reads.get(key) for key in keys), return_exceptions=True))


async def test_each_has_its_own_answer() -> None:
    async with reading(Server()) as reads:
        keys = [f"key {i}" for i in range(200)]
        assert await _ask(reads, *keys) == [f"value of {key}".encode() for key in keys]


@pytest.mark.parametrize("drop", ["after the handshake", "at the first question"])
async def test_a_connection_that_ends_at_once_leaves_no_answer_to_a_stranger(drop: str) -> None:
    server = Server()
    server.drops = iter([drop] * 3)
    async with reading(server) as reads:
        for _ in range(3):
            assert all(isinstance(answer, RedisError | OSError) for answer in await _ask(reads, "a", "b"))
        for key in "cdef":
            assert await reads.get(key) == f"value of {key}".encode()
        assert server.connections >= 4


async def test_a_caller_that_leaves_takes_no_answer_with_it() -> None:
    async with reading(Server()) as reads:
        await reads.get("a")
        leaving, staying = asyncio.create_task(reads.get("b")), asyncio.create_task(reads.get("c"))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == b"value of c"
        assert await reads.get("d") == b"value of d"


@pytest.mark.parametrize("fault", ["slow", "silent"])
async def test_nobody_waits_longer_than_the_timeout(fault: str) -> None:
    """The server either does not answer, or answers each GET 50 ms after the previous one."""
    server = Server()
    async with reading(server, TIMEOUT_SECONDS) as reads:
        await _connected(reads)
        server.silent, server.seconds_per_answer = fault == "silent", 0.05 if fault == "slow" else 0.0
        began = asyncio.get_running_loop().time()
        # The server would need 10 seconds for these answers.
        answers = await _ask(reads, *map(str, range(200)))
        assert asyncio.get_running_loop().time() - began < 4.0
        assert any(isinstance(answer, TimeoutError) for answer in answers)
        server.silent, server.seconds_per_answer = False, 0.0
        await _connected(reads)
        assert await reads.get("b") == b"value of b"


async def test_those_who_come_while_it_connects_fail_together() -> None:
    pool = redis.asyncio.BlockingConnectionPool.from_url("redis://127.0.0.1:1", socket_connect_timeout=TIMEOUT_SECONDS)
    reads = Reads(pool, TIMEOUT_SECONDS, lambda _: None)
    began = asyncio.get_running_loop().time()
    answers = await _ask(reads, *map(str, range(50)))
    assert all(isinstance(answer, RedisError | OSError | TimeoutError) for answer in answers)
    assert asyncio.get_running_loop().time() - began < 4.0
    await reads.close()


async def test_after_the_end_nobody_is_left_waiting() -> None:
    server = Server()
    async with reading(server) as reads:
        await reads.get("a")
        server.silent = True
        waiting = asyncio.create_task(reads.get("b"))
        await asyncio.sleep(0)
        await reads.close()
        with pytest.raises(RedisError):
            await waiting
