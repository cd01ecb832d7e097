"""Pipelined GETs over one dedicated Redis connection: each is written at once, and Redis answers in the same order.

For each command, redis-py takes a connection from its pool and returns it, which costs about 100 µs of CPU. GET is the one command that frequent
calls wait for, so it bypasses the pool. The connection itself (handshake, parser) is redis-py's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError


class Reads:
    """Contract: Redis answers each GET within `timeout_seconds`. If it does not, or if the connection is lost, all waiting GETs fail together.

    The timeout has two halves. The second half starts only when the event loop has run after the first. So a process that was stalled does not take
    its own delay for a timeout of Redis. If Redis closes the connection, `on_lost` is called, even if no GET is waiting: the next connection may
    lead to another Redis, or to an empty one.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, timeout_seconds: float, on_lost: Callable[[BaseException], None]) -> None:
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._on_lost = on_lost
        self._pipe: _Pipe | None = None
        self._connecting: asyncio.Task[_Pipe] | None = None

    async def get(self, key: str) -> bytes | None:
        """Returns the key's value, or None. If one GET fails, all waiting ones raise its RedisError, OSError or TimeoutError."""
        return await (await self._connected()).get(key)

    async def connect(self) -> None:
        """Opens the connection if there is none. Raises the same errors as `get`."""
        await self._connected()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, as far as this process knows."""
        return self._pipe is not None and not self._pipe.ended

    async def _connected(self) -> "_Pipe":
        pipe = self._pipe
        if pipe is None or pipe.ended:
            # All callers that come during the attempt share it and its failure. They must not try one after the other.
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
            pipe = await asyncio.shield(self._connecting)
        return pipe

    def reset(self) -> None:
        """Closes the connection. The next read opens a new one."""
        if self._pipe is not None:
            self._pipe.end(RedisConnectionError("reset"))

    async def close(self) -> None:
        """Closes the connection, and cancels an attempt to open one."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self.reset()
        if self._pipe is not None:
            await self._pipe.closed()

    async def _connect(self) -> "_Pipe":
        try:
            connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(self._timeout_seconds):
                await connection.connect()
            self._pipe = _Pipe(connection, self._timeout_seconds / 2, self._on_lost)
            return self._pipe
        finally:
            self._connecting = None


class _Pipe:
    """One connection, and the GETs that wait for its answers, in the order in which they were sent.

    They end together with the connection, so that no GET receives the answer to another.
    """

    def __init__(self, connection: Any, half_seconds: float, on_lost: Callable[[BaseException], None]) -> None:
        self.ended = False
        self._on_lost = on_lost
        self._connection = connection
        self._half_seconds = half_seconds
        self._waiting: deque[asyncio.Future[bytes | None]] = deque()
        self._answered = 0
        self._watching = False
        self._closing: asyncio.Task[None] | None = None
        self._reading = asyncio.create_task(self._read())

    async def get(self, key: str) -> bytes | None:
        connection = self._connection
        # redis-py would reconnect by itself, and no task would read the answers.
        if self.ended or not connection.is_connected:
            raise RedisConnectionError("the connection has ended")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append(future)
        if not self._watching:
            self._watching = True
            loop.call_later(self._half_seconds, self._watch, self._answered)
        try:
            await connection.send_packed_command(connection.pack_command("GET", key), check_health=False)
        except (RedisError, OSError) as error:
            self.end(error)
        return await future

    def end(self, error: BaseException) -> None:
        """Fails all waiting GETs and closes the connection."""
        if self.ended:
            return
        self.ended = True
        if self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._closing = asyncio.create_task(self._connection.disconnect(nowait=True))
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # prevents asyncio's warning if the caller is cancelled now and never reads it
        self._waiting.clear()

    async def closed(self) -> None:
        """Waits until the connection's tasks have ended."""
        await asyncio.gather(self._reading, *([self._closing] if self._closing else []), return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                value = await self._connection.read_response(disable_decoding=True)
                if not self._waiting:
                    raise RedisConnectionError("an answer that nobody asked for")
                self._answered += 1
                future = self._waiting.popleft()
                # A cancelled caller has cancelled its future.
                if not future.done():
                    future.set_result(value)
        except (RedisError, OSError) as error:
            self.end(error)
            self._on_lost(error)

    def _watch(self, due: int) -> None:
        """Ends the connection unless the GETs sent before the previous check are answered. `due` is the number of answers that they need."""
        self._watching = False
        if self.ended:
            return
        if self._answered < due:
            self.end(TimeoutError())
        elif self._waiting:
            self._watching = True
            asyncio.get_running_loop().call_later(self._half_seconds, self._watch, self._answered + len(self._waiting))
