"""The pipelined commands, against a server that answers, drops connections or delays answers, as the test configures it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import RedisError, ResponseError

from servicekit.stores.redis_session import Pipelined, Session

# In the tests in which every answer comes.
PATIENT_SECONDS = 5.0
TIMEOUT_SECONDS = 0.2


class Server:
    """A RESP server whose answers to GETEX contain the key, so that a test notices an answer that reaches the wrong caller."""

    def __init__(self) -> None:
        self.drops: Iterator[str] = iter(())
        self.seconds_per_answer = 0.0
        self.silent = False
        self.connections = 0
        self.run_id, self.role = b"one", b"master"
        self.error = b""
        self.in_pieces = False
        self.times = 1

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
        if name == b"GETEX":
            if drop == "at the first question":
                raise ConnectionError
            await asyncio.sleep(self.seconds_per_answer)
            if not self.silent:
                value = b"value of " + words[1]
                answer = self.error or b"$%d\r\n%s\r\n" % (len(value), value)
                for piece in [answer[:5], answer[5:]] if self.in_pieces else [answer] * self.times:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01 if self.in_pieces else 0)
        elif name == b"INFO":
            info = b"# Server\r\nredis_version:7\r\nrun_id:%s\r\n# Replication\r\nrole:%s\r\n" % (self.run_id, self.role)
            writer.write(b"$%d\r\n%s\r\n" % (len(info), info))
            if drop == "after the handshake":
                raise ConnectionError
        else:
            writer.write(b"+OK\r\n")


@asynccontextmanager
async def reading(server: Server, timeout_seconds: float = PATIENT_SECONDS) -> AsyncIterator[Pipelined]:
    """Yields the pipelined commands of an open session."""
    async with listening(server) as url, opened(url, timeout_seconds) as session:
        yield session.pipelined


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[str]:
    """Starts the server and yields its URL."""
    started = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{started.sockets[0].getsockname()[1]}"
    finally:
        started.close()


@asynccontextmanager
async def opened(url: str, timeout_seconds: float = PATIENT_SECONDS) -> AsyncIterator[Session]:
    """Yields an open session. It connects with patience, and only its pipelined commands have the timeout."""
    session = Session(url, PATIENT_SECONDS, lambda _session, _error: None)
    session.pipelined._half_seconds = timeout_seconds / 2
    try:
        await session.open()
        yield session
    finally:
        await session.close()


async def _ask(commands: Pipelined, *keys: str) -> list[object]:
    return list(await asyncio.gather(*(commands.get(key.encode()) for key in keys), return_exceptions=True))


async def test_each_has_its_own_answer() -> None:
    async with reading(Server()) as commands:
        keys = [f"key {i}" for i in range(200)]
        assert await _ask(commands, *keys) == [f"value of {key}".encode() for key in keys]


@pytest.mark.parametrize("drop", ["after the handshake", "at the first question"])
async def test_a_connection_that_ends_fails_its_commands(drop: str) -> None:
    server = Server()
    server.drops = iter([drop])
    async with reading(server) as commands:
        for _ in range(2):
            assert all(isinstance(answer, RedisError | OSError) for answer in await _ask(commands, "a", "b"))
        assert commands.ended


async def test_a_caller_that_leaves_takes_no_answer_with_it() -> None:
    async with reading(Server()) as commands:
        await commands.get(b"a")
        leaving, staying = asyncio.ensure_future(commands.get(b"b")), asyncio.ensure_future(commands.get(b"c"))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == b"value of c"
        assert await commands.get(b"d") == b"value of d"


@pytest.mark.parametrize("fault", ["slow", "silent"])
async def test_nobody_waits_longer_than_the_timeout(fault: str) -> None:
    """The server either does not answer, or answers each GET 50 ms after the previous one."""
    server = Server()
    async with reading(server, TIMEOUT_SECONDS) as commands:
        server.silent, server.seconds_per_answer = fault == "silent", 0.05 if fault == "slow" else 0.0
        began = asyncio.get_running_loop().time()
        # The server would need 10 seconds for these answers.
        answers = await _ask(commands, *map(str, range(200)))
        assert asyncio.get_running_loop().time() - began < 4.0
        assert any(isinstance(answer, TimeoutError) for answer in answers)
        assert commands.ended


async def test_after_the_end_nobody_is_left_waiting() -> None:
    server = Server()
    async with reading(server) as commands:
        await commands.get(b"a")
        server.silent = True
        waiting = asyncio.ensure_future(commands.get(b"b"))
        await asyncio.sleep(0)
        commands.end(RedisError("closed"))
        with pytest.raises(RedisError):
            await waiting


async def test_commands_of_one_turn_are_sent_together() -> None:
    server = Server()
    async with reading(server) as commands:
        await commands.get(b"a")
        assert commands._transport is not None
        written: list[bytes] = []
        write = commands._transport.write
        commands._transport = type(
            "Recorded", (), {"write": lambda _, data: (written.append(data), write(data)), "abort": commands._transport.abort}
        )()
        await _ask(commands, *map(str, range(50)))
        assert len(written) == 1


async def test_an_error_of_redis_fails_all_commands() -> None:
    server = Server()
    server.error = b"-READONLY You can't write against a read only replica.\r\n"
    async with reading(server) as commands:
        answers = await _ask(commands, "a", "b")
        assert all(isinstance(answer, ResponseError) and "READONLY" in str(answer) for answer in answers)
        assert commands.ended


async def test_an_answer_in_pieces_is_put_together() -> None:
    server = Server()
    server.in_pieces = True
    async with reading(server) as commands:
        assert await _ask(commands, "a", "b") == [b"value of a", b"value of b"]


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    server = Server()
    server.times = 2
    async with reading(server) as commands:
        assert await commands.get(b"a") == b"value of a"
        async with asyncio.timeout(PATIENT_SECONDS):
            while not commands.ended:
                await asyncio.sleep(0.001)


async def test_every_connection_of_a_session_is_with_the_same_process() -> None:
    server = Server()
    async with listening(server) as url, opened(url) as session:
        process = session.process
        await session.client.ping()
        server.run_id = b"another"
        await session.client.connection_pool.disconnect()
        with pytest.raises(RedisError, match="another process"):
            await session.client.ping()
    async with listening(server) as url, opened(url) as session:
        assert session.process != process


async def test_a_session_with_a_replica_does_not_open() -> None:
    server = Server()
    server.role = b"slave"
    async with listening(server) as url:
        with pytest.raises(RedisError, match="replica"):
            async with opened(url):
                pass
